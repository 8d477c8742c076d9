//! A chunk's aggregates, and the carry over it: P·carry + S, from the product P of the chunk's gates and its scan S from
//! zero.
//!
//! Every algorithm folds this one expression from left to right, and never an aggregate into another: same bits,
//! whichever thread sums a chunk and however many chunks it takes at once.
//!
//! The carry and P are kept in f64: a state that lives for thousands of chunks is then rounded no more often than one that
//! lives for a single chunk, and the error does not grow with the length. P is also out of reach of f32's subnormals, which
//! a product of strong gates would pass through at a hundred times the cost of other numbers.

use super::dispatch::Job;
use super::lanes::{Isa, Real};

/// One padded row each: the scan from zero, and the product of the gates.
#[derive(Debug)]
pub(crate) struct SumRows<T> {
    pub(crate) s: *mut T,
    pub(crate) p: *mut f64,
}

impl<T> Clone for SumRows<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SumRows<T> {}

/// The same in registers, for some channels.
#[derive(Clone, Copy)]
pub(super) struct Sums<V, P> {
    pub(super) s: V,
    p: P,
}

impl<T: Real> SumRows<T> {
    /// # Safety
    ///
    /// The rows are good for LANES elements from `d` on.
    #[inline(always)]
    pub(super) unsafe fn load<I: Isa>(&self, d: usize) -> Sums<T::V<I>, I::F64> {
        // SAFETY: the caller's contract.
        unsafe { Sums { s: T::load_row::<I>(self.s.add(d)), p: I::load_f64(self.p.add(d)) } }
    }

    /// # Safety
    ///
    /// As [`SumRows::load`].
    #[inline(always)]
    pub(super) unsafe fn store<I: Isa>(&self, d: usize, sums: Sums<T::V<I>, I::F64>) {
        // SAFETY: the caller's contract.
        unsafe {
            T::store_row::<I>(self.s.add(d), sums.s);
            I::store_f64(self.p.add(d), sums.p);
        }
    }
}

impl<V: Copy, P: Copy> Sums<V, P> {
    /// One gate more, with the scan that comes out of it.
    #[inline(always)]
    pub(super) fn pass<T: Real<V<I> = V>, I: Isa<F64 = P>>(self, gate: V, s: V) -> Self {
        Self { s, p: T::grow::<I>(self.p, gate) }
    }
}

/// `out` = P·carry + S, and S alone where the carry is 0 (a product that overflowed must not make NaN of a zero).
/// Answers whether every lane is finite in T; where one is not, [`patch`] has the last word.
pub(crate) struct Fold<T> {
    pub(crate) width: usize,
    pub(crate) carry: *const f64,
    pub(crate) sums: SumRows<T>,
    pub(crate) out: *mut f64,
}

impl<T: Real> Job for Fold<T> {
    type Out = bool;

    #[inline(always)]
    unsafe fn run<I: Isa>(&self) -> bool {
        let mut finite = true;
        for d in 0..self.width {
            // SAFETY: the rows are good for the width.
            unsafe {
                let (carry, s) = (*self.carry.add(d), (*self.sums.s.add(d)).widen());
                let p = *self.sums.p.add(d);
                let out = if carry == 0.0 { s } else { I::fma_f64(p, carry, s) };
                finite &= T::narrow(out).finite();
                *self.out.add(d) = out;
            }
        }
        finite
    }
}

/// Where a lane of `out` is not finite in T, the plain loop's own state `exact` stands instead: a product or a partial sum
/// that leaves the accumulator's range never reaches a result that the loop keeps finite, and a NaN goes where the loop
/// takes it.
///
/// # Safety
///
/// Both rows are good for `width` elements.
pub(crate) unsafe fn patch<T: Real>(width: usize, out: *mut f64, exact: *const T) {
    for d in 0..width {
        // SAFETY: d < width.
        unsafe {
            if !T::narrow(*out.add(d)).finite() {
                *out.add(d) = (*exact.add(d)).widen();
            }
        }
    }
}
