//! The carry over one chunk: P·carry + S, from the product of the chunk's gates and its scan from zero.
//!
//! Every algorithm folds this one expression from left to right, and never an aggregate into another: same bits,
//! whichever thread sums a chunk and however many chunks it takes at once.

use ssm_core::Element;

use super::dispatch::Job;
use super::lanes::{Isa, LANES, Real};

/// `out` = P·carry + S, and S alone where the carry is 0 (a product that overflowed must not make NaN of a zero).
/// Answers whether every lane is finite; where one is not, [`patch`] has the last word.
pub(crate) struct Fold<T> {
    /// Padded to LANES, as are all four rows.
    pub(crate) width: usize,
    pub(crate) carry: *const T,
    pub(crate) p: *const T,
    pub(crate) s: *const T,
    pub(crate) out: *mut T,
}

impl<T: Real> Job for Fold<T> {
    type Out = bool;

    #[inline(always)]
    unsafe fn run<I: Isa>(&self) -> bool {
        let mut finite = true;
        let mut d = 0;
        while d < self.width {
            let (mut carry, mut s) = ([T::ZERO; LANES], [T::ZERO; LANES]);
            // SAFETY: the rows are padded to LANES; `out` may be one of the others, each block is read before it is
            // written.
            unsafe {
                let (vc, vs) = (T::load_row::<I>(self.carry.add(d)), T::load_row::<I>(self.s.add(d)));
                let mut out = [T::ZERO; LANES];
                T::store_row::<I>(carry.as_mut_ptr(), vc);
                T::store_row::<I>(s.as_mut_ptr(), vs);
                T::store_row::<I>(out.as_mut_ptr(), T::fma::<I>(T::load_row::<I>(self.p.add(d)), vc, vs));
                for i in 0..LANES {
                    out[i] = if carry[i] == T::ZERO { s[i] } else { out[i] };
                    finite &= out[i].finite();
                }
                T::store_row::<I>(self.out.add(d), T::load_row::<I>(out.as_ptr()));
            }
            d += LANES;
        }
        finite
    }
}

/// Where a lane of `out` is not finite, the plain loop's own state `exact` stands instead: a product or a partial sum that
/// leaves the accumulator's range never reaches a result that the loop keeps finite, and a NaN goes where the loop takes
/// it.
///
/// # Safety
///
/// Both rows are good for `width` elements.
pub(crate) unsafe fn patch<T: Real + Element>(width: usize, out: *mut T, exact: *const T) {
    for d in 0..width {
        // SAFETY: d < width.
        unsafe {
            if !(*out.add(d)).finite() {
                *out.add(d) = *exact.add(d);
            }
        }
    }
}
