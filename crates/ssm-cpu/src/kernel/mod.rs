//! Loops over rows of channels, written once for every instruction set and storage type. They know nothing of sequences,
//! chunks or threads.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backward;
mod dispatch;
mod fold;
mod forward;
mod lanes;
mod portable;
pub(crate) mod stream;

pub(crate) use backward::{BackwardRows, BackwardSums};
use dispatch::Job;
pub(crate) use dispatch::Level;
pub(crate) use fold::{Fold, SumRows, patch};
pub(crate) use forward::{ForwardRows, ForwardSums, Inputs, Rebuild};
use lanes::Isa;
pub(crate) use lanes::{LANES, MAX_TILE, Real, Storage};
pub(crate) use stream::{Leave, Lines};

/// Rows in the order of time: where the first one begins, and how many elements lie from one to the next (negative where
/// time runs against memory, 0 for a row that stands for all).
#[derive(Debug)]
pub(crate) struct Rows<T> {
    pub(crate) first: *mut T,
    pub(crate) stride: isize,
}

impl<T> Clone for Rows<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Rows<T> {}

impl<T> Rows<T> {
    /// Rows that nothing is written to.
    pub(crate) const NONE: Self = Self { first: std::ptr::null_mut(), stride: 0 };

    #[inline(always)]
    pub(crate) fn row(&self, step: usize) -> *mut T {
        self.first.wrapping_offset(step as isize * self.stride)
    }

    /// Asks for the line that holds channel `d` a few steps on. The hardware follows a row, but a page ends with many rows,
    /// and rows that go down in memory are not foreseen at all. Past the last row this asks for what comes after it, or for
    /// nothing that is there; neither does harm.
    #[inline(always)]
    fn ask_ahead<I: Isa>(&self, step: usize, d: usize) {
        // One line is several blocks of a narrow type.
        if (d * size_of::<T>()).is_multiple_of(64) {
            I::prefetch(self.row(step + AHEAD).wrapping_add(d));
        }
    }

    /// Whether there are any.
    #[inline(always)]
    pub(crate) fn wanted(&self) -> bool {
        !self.first.is_null()
    }
}

/// Steps between what is asked for and what is worked on.
const AHEAD: usize = 4;

/// The most outputs that one kernel has.
pub(crate) const OUTPUTS: usize = 4;

/// Steps that a state stays in registers for.
const UNROLL: usize = 4;

/// A loop over steps and channels, cut into blocks of up to [`UNROLL`] steps by [`LANES`] channels. Between blocks, lines
/// of an earlier loop's outputs go out.
trait Blocks {
    /// Steps, and channels.
    fn extent(&self) -> (usize, usize);

    /// Outputs of the steps before, on their way out.
    #[inline(always)]
    fn leaving(&self) -> [Lines; OUTPUTS] {
        [Lines::NONE; OUTPUTS]
    }

    /// # Safety
    ///
    /// As [`dispatch::Job::run`], for the steps from `step` on, R of them, and the `n` channels from `d` on.
    unsafe fn block<I: Isa, const R: usize>(&self, step: usize, d: usize, n: usize);

    /// # Safety
    ///
    /// As [`Blocks::block`].
    #[inline(always)]
    unsafe fn band<I: Isa, const R: usize>(&self, step: usize, width: usize, leaving: &mut [Lines; OUTPUTS]) {
        let whole = width / LANES * LANES;
        let mut d = 0;
        // SAFETY: the blocks cover the channels, once each.
        unsafe {
            while d < whole {
                self.block::<I, R>(step, d, LANES);
                // As many lines leave as a block of the widest storage type brings.
                for lines in leaving.iter_mut() {
                    lines.drain::<I>(R);
                }
                d += LANES;
            }
            if whole < width {
                self.block::<I, R>(step, whole, width - whole);
            }
        }
    }
}

impl<B: Blocks> Job for B {
    type Out = ();

    #[inline(always)]
    unsafe fn run<I: Isa>(&self) {
        let ((steps, width), mut leaving) = (self.extent(), self.leaving());
        let whole = steps / UNROLL * UNROLL;
        let mut step = 0;
        // SAFETY: the caller's contract, which the lines' promise is part of; the blocks cover the steps and channels,
        // once each.
        unsafe {
            while step < whole {
                self.band::<I, UNROLL>(step, width, &mut leaving);
                step += UNROLL;
            }
            while step < steps {
                self.band::<I, 1>(step, width, &mut leaving);
                step += 1;
            }
            for lines in &mut leaving {
                lines.drain::<I>(usize::MAX);
            }
        }
    }
}
