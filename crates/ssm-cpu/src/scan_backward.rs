//! Backward: a, c, dy (and x and b, where a gradient needs them) pass through memory once, and the gradients. h is rebuilt
//! chunk by chunk in the worker's cache.

use std::ops::Range;

use ssm_core::Grads;

use crate::arena::Arena;
use crate::drive::{Pass, Scratch, Threads};
use crate::grid::{Chain, Tensor};
use crate::kernel::{
    BackwardRows, BackwardSums, Leave, Level, Lines, OUTPUTS, Rebuild, Rows, Storage, SumRows,
};
use crate::output::Output;
use crate::plan::Detail;
use crate::scan_forward::{Forward, Keep, Operands, States, finish_to, start_from, walk};

/// A backward scan over storage E and output O.
pub(crate) struct Backward<'p, E: Storage, O> {
    pub(crate) detail: &'p Detail,
    pub(crate) level: Level,
    pub(crate) grads: Grads,
    pub(crate) operands: Operands<E>,
    pub(crate) h0: *const E::Acc,
    pub(crate) keep: Keep<E::Acc>,
    pub(crate) dy: Tensor<O>,
    /// Null for 0.
    pub(crate) d_last: *const E::Acc,
    pub(crate) dx: Tensor<E>,
    pub(crate) da: Tensor<E>,
    pub(crate) db: Tensor<E>,
    pub(crate) dc: Tensor<E>,
    /// Null when not asked for.
    pub(crate) dh0: *mut E::Acc,
}

// SAFETY: workers write disjoint chunks of disjoint chains; see `Pass`.
unsafe impl<E: Storage, O> Sync for Backward<'_, E, O> {}

impl<E: Storage, O: Storage<Acc = E::Acc>> Backward<'_, E, O> {
    /// # Safety
    ///
    /// Every pointer is good for the plan's problem, and `workspace` for the plan's workspace.
    pub(crate) unsafe fn launch(mut self, threads: &Threads<'_>, workspace: *mut u8) {
        let detail = self.detail;
        for region in detail.regions() {
            let cut = || {
                // SAFETY: the plan measured these cuts.
                let mut arena = unsafe { Arena::new(workspace) };
                detail.carve(&region, &mut arena)
            };
            if detail.own_states() {
                let states = States::of(cut().states, &detail.grid, &region);
                // SAFETY: the caller's contract; the states have a row for every chunk of the region.
                unsafe { walk(&self.carry_only(states), detail, self.level, &region, cut(), true, threads) };
                self.keep = Keep::States(states);
            }
            // SAFETY: the caller's contract.
            unsafe { walk(&self, detail, self.level, &region, cut(), detail.chunked(), threads) };
        }
        for gradient in [&self.dx, &self.da, &self.db, &self.dc] {
            // SAFETY: slack rows belong to no chain.
            unsafe { gradient.clear(detail.grid.slack()) };
        }
    }

    /// Forward again, for the states alone.
    fn carry_only(&self, states: States<E::Acc>) -> Forward<'_, E, O> {
        Forward {
            detail: self.detail,
            level: self.level,
            operands: self.operands,
            h0: self.h0,
            y: Tensor::NONE,
            last: std::ptr::null_mut(),
            keep: Keep::States(states),
        }
    }

    /// The chunk that is walked as the `o`-th: the last one first.
    fn chunk(chain: &Chain, o: usize) -> usize {
        chain.sequence.chunks() - 1 - o
    }

    /// Brings h before and after every step of chunk `k` into the worker's history: row 0 before the first step.
    unsafe fn recall(&self, chain: &Chain, k: usize, scratch: &Scratch<E::Acc>) {
        let steps = chain.sequence.steps(k);
        let row = |i: usize| scratch.history.wrapping_add(i * scratch.pitch);
        // SAFETY: history has a row for every step and one more; the saved rows are the chain's own.
        unsafe {
            match &self.keep {
                Keep::All(h) => {
                    if steps.start == 0 {
                        start_from(self.h0, self.detail.grid.channels, chain, row(0));
                    }
                    let from = steps.start.saturating_sub(1);
                    let first = usize::from(steps.start == 0);
                    let saved = h.up(chain, from);
                    for i in 0..steps.end - from {
                        std::ptr::copy_nonoverlapping(saved.row(i), row(first + i), chain.width);
                    }
                }
                Keep::States(states) => {
                    std::ptr::copy_nonoverlapping(states.row(chain, k), row(0), chain.width);
                    let job = Rebuild {
                        steps: steps.len(),
                        width: chain.width,
                        inputs: self.operands.inputs(chain, steps.start),
                        h: Rows { first: row(0), stride: scratch.pitch as isize },
                        c: self.operands.c.up(chain, steps.start),
                        dy: self.dy.up(chain, steps.start),
                    };
                    self.level.run(&job);
                }
                // Launch has put the workspace's states in the place of nothing.
                Keep::Nothing => {}
            }
        }
    }
}

impl<E: Storage, O: Storage<Acc = E::Acc>> Pass for Backward<'_, E, O> {
    type T = E::Acc;

    fn applies(&self) -> bool {
        [&self.dx, &self.da, &self.db, &self.dc].into_iter().any(Tensor::wanted)
    }

    unsafe fn start(&self, chain: &Chain, state: *mut E::Acc) {
        // SAFETY: the row is padded; dhT has a row for every sequence.
        unsafe { start_from(self.d_last, self.detail.grid.channels, chain, state) }
    }

    unsafe fn sums(&self, chain: &Chain, o: usize, sums: SumRows<E::Acc>) {
        let steps = chain.sequence.steps(Self::chunk(chain, o));
        let last = steps.end - 1;
        let job = BackwardSums {
            steps: steps.len(),
            width: chain.width,
            a: self.operands.a.down(chain, last),
            c: self.operands.c.down(chain, last),
            dy: self.dy.down(chain, last),
            sums,
        };
        // SAFETY: the steps are the chain's own.
        unsafe { self.level.run(&job) }
    }

    unsafe fn enter(&self, _: &Chain, _: usize, _: *const E::Acc) {}

    unsafe fn apply<const SUMS: bool>(&self, chain: &Chain, o: usize, scratch: &Scratch<E::Acc>) {
        let k = Self::chunk(chain, o);
        if self.grads.need_h() {
            // SAFETY: history is the worker's own.
            unsafe { self.recall(chain, k, scratch) };
        }
        let chunk = chain.sequence.steps(k);
        let outputs = [&self.dx, &self.da, &self.db, &self.dc].into_iter().filter(|g| g.wanted()).count();
        let row_bytes = chain.width * size_of::<E>();
        let rows = self.detail.staged_rows(row_bytes * outputs);
        let stage_bytes = outputs * rows * row_bytes;
        let mut leaving = [Lines::NONE; OUTPUTS];
        let (mut end, mut turn) = (chunk.end, 0);
        while end > chunk.start {
            let steps: Range<usize> = end.saturating_sub(rows).max(chunk.start)..end;
            let last = end - 1;
            end = steps.start;
            // Two stages in turn: one leaves while the other fills.
            let mut at = turn % 2 * stage_bytes;
            turn += 1;
            let mut output = |gradient: Tensor<E>| {
                let stage = scratch.stage.wrapping_add(at);
                at += usize::from(gradient.wanted()) * rows * row_bytes;
                Output::new(gradient, chain, &steps, self.detail.stream.then_some(stage))
            };
            let outputs = [self.dx, self.da, self.db, self.dc].map(&mut output);
            let [dx, da, db, dc] = &outputs;
            let after_last = scratch.history.wrapping_add((last + 1 - chunk.start) * scratch.pitch);
            let job = BackwardRows::<E, O, SUMS> {
                steps: steps.len(),
                width: chain.width,
                x: self.operands.x.down(chain, last),
                a: self.operands.a.down(chain, last),
                b: self.operands.b.down(chain, last),
                c: self.operands.c.down(chain, last),
                dy: self.dy.down(chain, last),
                h: Rows { first: after_last, stride: -(scratch.pitch as isize) },
                dx: dx.down(),
                da: da.down(),
                db: db.down(),
                dc: dc.down(),
                q: scratch.state,
                sums: scratch.sums,
                leaving,
            };
            // SAFETY: the steps are the chain's own, and each stage holds `rows` rows of every output.
            unsafe {
                self.level.run(&job);
                leaving = outputs.map(|output| output.leave(self.level));
            }
        }
        // SAFETY: the stages stay as they are.
        unsafe { self.level.run(&Leave(leaving)) };
    }

    unsafe fn finish(&self, chain: &Chain, state: *const E::Acc) {
        // SAFETY: dh0 has a row for every sequence.
        unsafe { finish_to(self.dh0, self.detail.grid.channels, chain, state) }
    }
}
