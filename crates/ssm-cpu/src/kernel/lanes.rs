//! Vectors of sixteen lanes: what an instruction set offers, and how a storage type goes in and out of them.
//!
//! A kernel is written once over an [`Isa`] and instantiated inside a function that enables that instruction set
//! (`dispatch.rs`); everything here is inlined into it. Sixteen lanes of f32 are a cache line: one AVX-512 register, two of
//! AVX, four of SSE or NEON.

use half::{bf16, f16};
use ssm_core::Element;

/// Lanes of every vector. State rows are padded to it.
pub(crate) const LANES: usize = 16;

/// The widest channel tile.
pub(crate) const MAX_TILE: usize = 2048;

/// An instruction set. Values of the vector type exist only inside functions that enable it.
pub(crate) trait Isa: Copy {
    /// Sixteen f32.
    type F32: Copy;
    /// Sixteen f64.
    type F64: Copy;

    fn mul(a: Self::F32, b: Self::F32) -> Self::F32;
    /// a·b + c, rounded once where the instruction set has it.
    fn fma(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// p·a in f64.
    fn grow(p: Self::F64, a: Self::F32) -> Self::F64;
    /// a·b + c for the f64 path, lane by lane.
    fn fma_f64(a: f64, b: f64, c: f64) -> f64;

    /// Asks for the cache line at an address, which need not be one that may be read.
    #[inline(always)]
    fn prefetch<T>(address: *const T) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch never faults.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(address.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }

    /// Copies one line of 64 bytes, past the caches where the target can.
    ///
    /// # Safety
    ///
    /// `src` is good for reading and `dst` for writing 64 bytes, and `dst` is aligned to them.
    #[inline(always)]
    unsafe fn stream_line(src: *const u8, dst: *mut u8) {
        // SAFETY: the caller's contract; SSE2 is always there.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            for part in (0..64).step_by(16) {
                use std::arch::x86_64::{_mm_loadu_si128, _mm_stream_si128};
                _mm_stream_si128(dst.add(part).cast(), _mm_loadu_si128(src.add(part).cast()));
            }
            #[cfg(not(target_arch = "x86_64"))]
            std::ptr::copy_nonoverlapping(src, dst, 64);
        }
    }

    // SAFETY of the eight below: the pointer is good for LANES elements; no alignment beyond the element's is needed.
    unsafe fn load_f32(src: *const f32) -> Self::F32;
    unsafe fn load_f16(src: *const f16) -> Self::F32;
    unsafe fn load_bf16(src: *const bf16) -> Self::F32;
    unsafe fn store_f32(dst: *mut f32, v: Self::F32);
    unsafe fn store_f16(dst: *mut f16, v: Self::F32);
    unsafe fn store_bf16(dst: *mut bf16, v: Self::F32);
    unsafe fn load_f64(src: *const f64) -> Self::F64;
    unsafe fn store_f64(dst: *mut f64, v: Self::F64);
}

/// An accumulator type.
pub(crate) trait Real: Element<Acc = Self> + PartialEq {
    type V<I: Isa>: Copy;
    const ZERO: Self;

    fn mul<I: Isa>(a: Self::V<I>, b: Self::V<I>) -> Self::V<I>;
    fn fma<I: Isa>(a: Self::V<I>, b: Self::V<I>, c: Self::V<I>) -> Self::V<I>;
    /// p·a in f64.
    fn grow<I: Isa>(p: I::F64, a: Self::V<I>) -> I::F64;
    fn finite(self) -> bool;
    fn widen(self) -> f64;
    fn narrow(v: f64) -> Self;

    /// # Safety
    ///
    /// `src` is good for reading [`LANES`] elements.
    unsafe fn load_row<I: Isa>(src: *const Self) -> Self::V<I>;

    /// # Safety
    ///
    /// `dst` is good for writing [`LANES`] elements.
    unsafe fn store_row<I: Isa>(dst: *mut Self, v: Self::V<I>);
}

/// A storage type, rounded once on the way out.
pub(crate) trait Storage: Element<Acc: Real> {
    /// What an absent b or c reads: it stays in the first-level cache, and 1·v = v exactly.
    const ONES: &'static [Self; MAX_TILE];

    /// # Safety
    ///
    /// `src` is good for reading [`LANES`] elements.
    unsafe fn load<I: Isa>(src: *const Self) -> <Self::Acc as Real>::V<I>;

    /// # Safety
    ///
    /// `dst` is good for writing [`LANES`] elements.
    unsafe fn store<I: Isa>(dst: *mut Self, v: <Self::Acc as Real>::V<I>);

    /// The first `n` lanes, the rest 0.
    ///
    /// # Safety
    ///
    /// `src` is good for reading `n` ≤ [`LANES`] elements.
    #[inline(always)]
    unsafe fn load_some<I: Isa>(src: *const Self, n: usize) -> <Self::Acc as Real>::V<I> {
        if n == LANES {
            // SAFETY: n = LANES.
            return unsafe { Self::load::<I>(src) };
        }
        let mut padded = [Self::default(); LANES];
        // SAFETY: n < LANES elements are readable, and `padded` has room for them.
        unsafe {
            std::ptr::copy_nonoverlapping(src, padded.as_mut_ptr(), n);
            Self::load::<I>(padded.as_ptr())
        }
    }

    /// The first `n` lanes.
    ///
    /// # Safety
    ///
    /// `dst` is good for writing `n` ≤ [`LANES`] elements.
    #[inline(always)]
    unsafe fn store_some<I: Isa>(dst: *mut Self, v: <Self::Acc as Real>::V<I>, n: usize) {
        if n == LANES {
            // SAFETY: n = LANES.
            return unsafe { Self::store::<I>(dst, v) };
        }
        let mut padded = [Self::default(); LANES];
        // SAFETY: `padded` has LANES elements, of which n < LANES fit the destination.
        unsafe {
            Self::store::<I>(padded.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(padded.as_ptr(), dst, n);
        }
    }
}

macro_rules! storage {
    ($type:ty, $one:expr, $load:ident, $store:ident) => {
        impl Storage for $type {
            const ONES: &'static [Self; MAX_TILE] = &[$one; MAX_TILE];

            #[inline(always)]
            unsafe fn load<I: Isa>(src: *const Self) -> I::F32 {
                // SAFETY: the caller's contract is the same.
                unsafe { I::$load(src) }
            }

            #[inline(always)]
            unsafe fn store<I: Isa>(dst: *mut Self, v: I::F32) {
                // SAFETY: the caller's contract is the same.
                unsafe { I::$store(dst, v) }
            }
        }
    };
}

storage!(f32, 1.0, load_f32, store_f32);
storage!(f16, f16::ONE, load_f16, store_f16);
storage!(bf16, bf16::ONE, load_bf16, store_bf16);

impl Real for f32 {
    type V<I: Isa> = I::F32;
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn mul<I: Isa>(a: I::F32, b: I::F32) -> I::F32 {
        I::mul(a, b)
    }

    #[inline(always)]
    fn fma<I: Isa>(a: I::F32, b: I::F32, c: I::F32) -> I::F32 {
        I::fma(a, b, c)
    }

    #[inline(always)]
    fn grow<I: Isa>(p: I::F64, a: I::F32) -> I::F64 {
        I::grow(p, a)
    }

    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn narrow(v: f64) -> Self {
        v as f32
    }

    #[inline(always)]
    fn finite(self) -> bool {
        self.is_finite()
    }

    #[inline(always)]
    unsafe fn load_row<I: Isa>(src: *const Self) -> Self::V<I> {
        // SAFETY: the caller's contract is the same.
        unsafe { <Self as Storage>::load::<I>(src) }
    }

    #[inline(always)]
    unsafe fn store_row<I: Isa>(dst: *mut Self, v: Self::V<I>) {
        // SAFETY: the caller's contract is the same.
        unsafe { <Self as Storage>::store::<I>(dst, v) }
    }
}

// f64 is there to check the others with; arrays that the compiler vectorises will do.
impl Real for f64 {
    type V<I: Isa> = [f64; LANES];
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn mul<I: Isa>(a: [f64; LANES], b: [f64; LANES]) -> [f64; LANES] {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn fma<I: Isa>(a: [f64; LANES], b: [f64; LANES], c: [f64; LANES]) -> [f64; LANES] {
        std::array::from_fn(|i| I::fma_f64(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn grow<I: Isa>(p: I::F64, a: [f64; LANES]) -> I::F64 {
        let mut lanes = [0.0; LANES];
        // SAFETY: `lanes` has LANES elements.
        unsafe {
            I::store_f64(lanes.as_mut_ptr(), p);
            for (p, a) in lanes.iter_mut().zip(a) {
                *p *= a;
            }
            I::load_f64(lanes.as_ptr())
        }
    }

    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }

    #[inline(always)]
    fn narrow(v: f64) -> Self {
        v
    }

    #[inline(always)]
    fn finite(self) -> bool {
        self.is_finite()
    }

    #[inline(always)]
    unsafe fn load_row<I: Isa>(src: *const Self) -> Self::V<I> {
        // SAFETY: the caller's contract is the same.
        unsafe { <Self as Storage>::load::<I>(src) }
    }

    #[inline(always)]
    unsafe fn store_row<I: Isa>(dst: *mut Self, v: Self::V<I>) {
        // SAFETY: the caller's contract is the same.
        unsafe { <Self as Storage>::store::<I>(dst, v) }
    }
}

impl Storage for f64 {
    const ONES: &'static [Self; MAX_TILE] = &[1.0; MAX_TILE];

    #[inline(always)]
    unsafe fn load<I: Isa>(src: *const Self) -> [f64; LANES] {
        // SAFETY: the caller gives LANES elements.
        unsafe { src.cast::<[f64; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store<I: Isa>(dst: *mut Self, v: [f64; LANES]) {
        // SAFETY: the caller gives room for LANES elements.
        unsafe { dst.cast::<[f64; LANES]>().write_unaligned(v) }
    }
}
