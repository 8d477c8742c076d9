//! A chunk's aggregates, and the carry over it: P·carry + S, from the product P of the chunk's gates and its scan S from
//! zero.
//!
//! Every algorithm folds this one expression from left to right, and never an aggregate into another: same bits,
//! whichever thread sums a chunk and however many chunks it takes at once.
//!
//! The carry is kept in f64, and P with what its roundings lost: a state that lives for thousands of chunks is then rounded
//! no more often than one that lives for a single chunk, and the error does not grow with the length.

use super::dispatch::Job;
use super::lanes::{Isa, Real};

/// One padded row each: the scan from zero, the product of the gates, and what the product's roundings lost.
#[derive(Debug)]
pub(crate) struct SumRows<T> {
    pub(crate) s: *mut T,
    pub(crate) p: *mut T,
    pub(crate) lost: *mut T,
}

impl<T> Clone for SumRows<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SumRows<T> {}

/// The same in registers, for some channels.
#[derive(Clone, Copy)]
pub(super) struct Sums<V> {
    pub(super) s: V,
    p: V,
    lost: V,
}

impl<T: Real> SumRows<T> {
    /// # Safety
    ///
    /// The rows are good for LANES elements from `d` on.
    #[inline(always)]
    pub(super) unsafe fn load<I: Isa>(&self, d: usize) -> Sums<T::V<I>> {
        // SAFETY: the caller's contract.
        unsafe {
            Sums {
                s: T::load_row::<I>(self.s.add(d)),
                p: T::load_row::<I>(self.p.add(d)),
                lost: T::load_row::<I>(self.lost.add(d)),
            }
        }
    }

    /// # Safety
    ///
    /// As [`SumRows::load`].
    #[inline(always)]
    pub(super) unsafe fn store<I: Isa>(&self, d: usize, sums: Sums<T::V<I>>) {
        // SAFETY: the caller's contract.
        unsafe {
            T::store_row::<I>(self.s.add(d), sums.s);
            T::store_row::<I>(self.p.add(d), sums.p);
            T::store_row::<I>(self.lost.add(d), sums.lost);
        }
    }
}

impl<V: Copy> Sums<V> {
    /// One gate more, with the scan that comes out of it.
    #[inline(always)]
    pub(super) fn pass<T: Real<V<I> = V>, I: Isa>(self, gate: V, s: V) -> Self {
        let p = T::mul::<I>(gate, self.p);
        let lost = T::fma::<I>(gate, self.lost, T::lost::<I>(gate, self.p, p));
        Self { s, p, lost }
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
                let p = (*self.sums.p.add(d)).widen() + (*self.sums.lost.add(d)).widen();
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
