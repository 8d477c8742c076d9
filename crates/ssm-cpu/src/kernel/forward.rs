//! h = a·h + b·x and y = c·h over rows.

use ssm_core::Element;

use super::fold::SumRows;
use super::lanes::{Isa, LANES, Real, Storage};

use super::{Blocks, Lines, OUTPUTS, Rows};

type Acc<E> = <E as Element>::Acc;

/// What drives the recurrence.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<E> {
    pub(crate) x: Rows<E>,
    pub(crate) a: Rows<E>,
    pub(crate) b: Rows<E>,
}

impl<E: Storage> Inputs<E> {
    /// The gate and b·x of some channels of a step, with the rows ahead asked for.
    ///
    /// # Safety
    ///
    /// The rows are good for `n` elements from `d` on.
    #[inline(always)]
    unsafe fn take<I: Isa>(
        &self,
        step: usize,
        d: usize,
        n: usize,
    ) -> (<Acc<E> as Real>::V<I>, <Acc<E> as Real>::V<I>) {
        self.x.ask_ahead::<I>(step, d);
        self.a.ask_ahead::<I>(step, d);
        self.b.ask_ahead::<I>(step, d);
        // SAFETY: the caller's contract.
        unsafe {
            let x = E::load_some::<I>(self.x.row(step).add(d), n);
            let gate = E::load_some::<I>(self.a.row(step).add(d), n);
            (gate, Acc::<E>::mul::<I>(E::load_some::<I>(self.b.row(step).add(d), n), x))
        }
    }
}

/// The loop itself, from the h that it finds. With `SUMS` the scan from zero and the product of the gates run beside it,
/// for [`super::Fold`].
pub(crate) struct ForwardRows<E: Storage, O, const SUMS: bool> {
    pub(crate) steps: usize,
    pub(crate) width: usize,
    pub(crate) inputs: Inputs<E>,
    pub(crate) c: Rows<E>,
    pub(crate) y: Rows<O>,
    /// Every h, where the caller keeps them.
    pub(crate) all_h: Rows<E::Acc>,
    /// One padded row each.
    pub(crate) h: *mut E::Acc,
    pub(crate) sums: SumRows<E::Acc>,
    /// Outputs of the steps before, on their way out.
    pub(crate) leaving: [Lines; OUTPUTS],
}

impl<E: Storage, O: Storage<Acc = E::Acc>, const SUMS: bool> Blocks for ForwardRows<E, O, SUMS> {
    #[inline(always)]
    fn extent(&self) -> (usize, usize) {
        (self.steps, self.width)
    }

    #[inline(always)]
    fn leaving(&self) -> [Lines; OUTPUTS] {
        self.leaving
    }

    #[inline(always)]
    unsafe fn block<I: Isa, const R: usize>(&self, step: usize, d: usize, n: usize) {
        // SAFETY: d + n ≤ width, for which the rows are good; state rows are padded to LANES.
        unsafe {
            let mut h = Acc::<E>::load_row::<I>(self.h.add(d));
            let mut sums = SUMS.then(|| self.sums.load::<I>(d));
            for i in step..step + R {
                self.c.ask_ahead::<I>(i, d);
                let (gate, u) = self.inputs.take::<I>(i, d, n);
                h = Acc::<E>::fma::<I>(gate, h, u);
                sums = sums.map(|at| at.pass::<Acc<E>, I>(gate, Acc::<E>::fma::<I>(gate, at.s, u)));
                if self.all_h.wanted() {
                    let mut row = [Acc::<E>::ZERO; LANES];
                    Acc::<E>::store_row::<I>(row.as_mut_ptr(), h);
                    std::ptr::copy_nonoverlapping(row.as_ptr(), self.all_h.row(i).add(d), n);
                }
                let y = Acc::<E>::mul::<I>(E::load_some::<I>(self.c.row(i).add(d), n), h);
                O::store_some::<I>(self.y.row(i).add(d), y, n);
            }
            Acc::<E>::store_row::<I>(self.h.add(d), h);
            if let Some(sums) = sums {
                self.sums.store::<I>(d, sums);
            }
        }
    }
}

/// The sums alone, from those that it finds: a chunk's aggregates when they begin as 0 and 1, the plain loop's state when s
/// begins as the carry.
pub(crate) struct ForwardSums<E: Storage> {
    pub(crate) steps: usize,
    pub(crate) width: usize,
    pub(crate) inputs: Inputs<E>,
    pub(crate) sums: SumRows<E::Acc>,
}

impl<E: Storage> Blocks for ForwardSums<E> {
    #[inline(always)]
    fn extent(&self) -> (usize, usize) {
        (self.steps, self.width)
    }

    #[inline(always)]
    unsafe fn block<I: Isa, const R: usize>(&self, step: usize, d: usize, n: usize) {
        // SAFETY: d + n ≤ width, for which the rows are good; state rows are padded to LANES.
        unsafe {
            let mut sums = self.sums.load::<I>(d);
            for i in step..step + R {
                let (gate, u) = self.inputs.take::<I>(i, d, n);
                sums = sums.pass::<Acc<E>, I>(gate, Acc::<E>::fma::<I>(gate, sums.s, u));
            }
            self.sums.store::<I>(d, sums);
        }
    }
}

/// Every h of a chunk again, from the one before it: row i + 1 from row i, padded rows. Of all that backward reads this
/// comes first, so it also asks for the operands that only the rest of backward needs: what follows then finds everything
/// in the cache and leaves the memory to its outputs.
pub(crate) struct Rebuild<E: Storage, O> {
    pub(crate) steps: usize,
    pub(crate) width: usize,
    pub(crate) inputs: Inputs<E>,
    pub(crate) h: Rows<E::Acc>,
    /// Upwards in time, as the others.
    pub(crate) c: Rows<E>,
    pub(crate) dy: Rows<O>,
}

impl<E: Storage, O> Blocks for Rebuild<E, O> {
    #[inline(always)]
    fn extent(&self) -> (usize, usize) {
        (self.steps, self.width)
    }

    #[inline(always)]
    unsafe fn block<I: Isa, const R: usize>(&self, step: usize, d: usize, n: usize) {
        // SAFETY: d + n ≤ width, for which the rows are good; state rows are padded to LANES.
        unsafe {
            let mut h = Acc::<E>::load_row::<I>(self.h.row(step).add(d));
            for i in step..step + R {
                self.c.ask_ahead::<I>(i, d);
                self.dy.ask_ahead::<I>(i, d);
                let (gate, u) = self.inputs.take::<I>(i, d, n);
                h = Acc::<E>::fma::<I>(gate, h, u);
                Acc::<E>::store_row::<I>(self.h.row(i + 1).add(d), h);
            }
        }
    }
}
