//! g = c·dy + q and q = a·g over rows, from the last step to the first. q is what flows back from the step after:
//! a[t+1]·g[t+1], or dhT.

use ssm_core::Element;

use super::fold::SumRows;
use super::lanes::{Isa, Real, Storage};
use super::{Blocks, Lines, OUTPUTS, Rows};

type Acc<E> = <E as Element>::Acc;

/// The loop itself, from the q that it finds; the gradients that are wanted come out of it. With `SUMS` the scan from
/// zero and the product of the gates run beside it, for [`super::Fold`].
///
/// Rows go backwards in time: row 0 is the last step.
pub(crate) struct BackwardRows<E: Storage, O, const SUMS: bool> {
    pub(crate) steps: usize,
    pub(crate) width: usize,
    pub(crate) x: Rows<E>,
    pub(crate) a: Rows<E>,
    pub(crate) b: Rows<E>,
    pub(crate) c: Rows<E>,
    pub(crate) dy: Rows<O>,
    /// h after each step; row i + 1 is the h before it. Padded rows; read for da and dc only.
    pub(crate) h: Rows<E::Acc>,
    pub(crate) dx: Rows<E>,
    pub(crate) da: Rows<E>,
    pub(crate) db: Rows<E>,
    pub(crate) dc: Rows<E>,
    /// One padded row each.
    pub(crate) q: *mut E::Acc,
    pub(crate) sums: SumRows<E::Acc>,
    /// Outputs of the steps before, on their way out.
    pub(crate) leaving: [Lines; OUTPUTS],
}

impl<E: Storage, O: Storage<Acc = E::Acc>, const SUMS: bool> Blocks for BackwardRows<E, O, SUMS> {
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
        // SAFETY: d + n ≤ width, for which the rows are good; state rows are padded to LANES. A gradient that is wanted has
        // rows, and h has rows when da or dc is wanted.
        unsafe {
            let mut q = Acc::<E>::load_row::<I>(self.q.add(d));
            let mut sums = SUMS.then(|| self.sums.load::<I>(d));
            for i in step..step + R {
                let gate = E::load_some::<I>(self.a.row(i).add(d), n);
                let dy = O::load_some::<I>(self.dy.row(i).add(d), n);
                let out = E::load_some::<I>(self.c.row(i).add(d), n);
                let g = Acc::<E>::fma::<I>(out, dy, q);
                q = Acc::<E>::mul::<I>(gate, g);
                sums = sums.map(|at| {
                    let s = Acc::<E>::mul::<I>(gate, Acc::<E>::fma::<I>(out, dy, at.s));
                    at.pass::<Acc<E>, I>(gate, s)
                });
                if self.dx.wanted() {
                    let b = E::load_some::<I>(self.b.row(i).add(d), n);
                    E::store_some::<I>(self.dx.row(i).add(d), Acc::<E>::mul::<I>(b, g), n);
                }
                if self.db.wanted() {
                    let x = E::load_some::<I>(self.x.row(i).add(d), n);
                    E::store_some::<I>(self.db.row(i).add(d), Acc::<E>::mul::<I>(x, g), n);
                }
                if self.da.wanted() {
                    let before = Acc::<E>::load_row::<I>(self.h.row(i + 1).add(d));
                    E::store_some::<I>(self.da.row(i).add(d), Acc::<E>::mul::<I>(before, g), n);
                }
                if self.dc.wanted() {
                    let h = Acc::<E>::load_row::<I>(self.h.row(i).add(d));
                    E::store_some::<I>(self.dc.row(i).add(d), Acc::<E>::mul::<I>(dy, h), n);
                }
            }
            Acc::<E>::store_row::<I>(self.q.add(d), q);
            if let Some(sums) = sums {
                self.sums.store::<I>(d, sums);
            }
        }
    }
}

/// The sums alone, from those that it finds: a chunk's aggregates when they begin as 0 and 1, the plain loop's q when s
/// begins as the carry.
pub(crate) struct BackwardSums<E: Storage, O> {
    pub(crate) steps: usize,
    pub(crate) width: usize,
    pub(crate) a: Rows<E>,
    pub(crate) c: Rows<E>,
    pub(crate) dy: Rows<O>,
    pub(crate) sums: SumRows<E::Acc>,
}

impl<E: Storage, O: Storage<Acc = E::Acc>> Blocks for BackwardSums<E, O> {
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
                self.a.ask_ahead::<I>(i, d);
                self.dy.ask_ahead::<I>(i, d);
                self.c.ask_ahead::<I>(i, d);
                let gate = E::load_some::<I>(self.a.row(i).add(d), n);
                let out = E::load_some::<I>(self.c.row(i).add(d), n);
                let g = Acc::<E>::fma::<I>(out, O::load_some::<I>(self.dy.row(i).add(d), n), sums.s);
                sums = sums.pass::<Acc<E>, I>(gate, Acc::<E>::mul::<I>(gate, g));
            }
            self.sums.store::<I>(d, sums);
        }
    }
}
