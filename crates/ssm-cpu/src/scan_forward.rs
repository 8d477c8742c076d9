//! Forward: x, a, b and c pass through memory once, and y.

use std::ops::Range;

use ssm_core::{Checkpoint, Element};

use crate::arena::Arena;
use crate::drive::{Pass, Scratch, Threads, Walk, padded};
use crate::grid::{Chain, Grid, Region, Tensor};
use crate::kernel::{ForwardRows, ForwardSums, Inputs, Leave, Level, Lines, OUTPUTS, Rows, Storage, SumRows};
use crate::output::Output;
use crate::plan::{Detail, Workspace};

/// What forward leaves behind.
#[derive(Debug)]
pub(crate) enum Keep<T> {
    Nothing,
    /// The state before each chunk.
    States(States<T>),
    /// Every h.
    All(Tensor<T>),
}

/// States before chunks: the caller's, or those of one region in a workspace.
#[derive(Debug)]
pub(crate) struct States<T> {
    base: *mut T,
    pitch: usize,
    first_chunk: usize,
    first_channel: usize,
}

impl<T> Clone for States<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for States<T> {}

impl<T> States<T> {
    /// Of the whole problem.
    pub(crate) fn whole(base: *mut T, channels: usize) -> Self {
        Self { base, pitch: channels, first_chunk: 0, first_channel: 0 }
    }

    /// Of one region.
    pub(crate) fn of(base: *mut T, grid: &Grid, region: &Region) -> Self {
        let first_chunk = grid.first_chunk(region.sequences.start);
        Self { base, pitch: region.channels.len(), first_chunk, first_channel: region.channels.start }
    }

    /// The row of chunk `k` of the chain's sequence.
    pub(crate) fn row(&self, chain: &Chain, k: usize) -> *mut T {
        let chunk = chain.sequence.first_chunk + k - self.first_chunk;
        self.base.wrapping_add(chunk * self.pitch + chain.channel - self.first_channel)
    }
}

/// The full-size inputs that both directions read.
#[derive(Clone, Copy)]
pub(crate) struct Operands<E> {
    pub(crate) x: Tensor<E>,
    pub(crate) a: Tensor<E>,
    pub(crate) b: Tensor<E>,
    pub(crate) c: Tensor<E>,
}

impl<E> Operands<E> {
    /// What drives the recurrence, from the chain's step `t` on, upwards in time.
    pub(crate) fn inputs(&self, chain: &Chain, t: usize) -> Inputs<E> {
        Inputs { x: self.x.up(chain, t), a: self.a.up(chain, t), b: self.b.up(chain, t) }
    }
}

/// A forward scan over storage E and output O.
pub(crate) struct Forward<'p, E: Storage, O> {
    pub(crate) detail: &'p Detail,
    pub(crate) level: Level,
    pub(crate) operands: Operands<E>,
    /// Null for a state of 0.
    pub(crate) h0: *const E::Acc,
    /// None walks the carry only.
    pub(crate) y: Tensor<O>,
    /// Null when not asked for.
    pub(crate) last: *mut E::Acc,
    pub(crate) keep: Keep<E::Acc>,
}

// SAFETY: workers write disjoint chunks of disjoint chains; see `Pass`.
unsafe impl<E: Storage, O> Sync for Forward<'_, E, O> {}

impl<E: Storage, O: Storage<Acc = E::Acc>> Forward<'_, E, O> {
    /// # Safety
    ///
    /// Every pointer is good for the plan's problem, and `workspace` for the plan's workspace.
    pub(crate) unsafe fn launch(&self, threads: &Threads<'_>, workspace: *mut u8) {
        for region in self.detail.regions() {
            // SAFETY: the plan measured these cuts.
            let mut arena = unsafe { Arena::new(workspace) };
            let detail = self.detail;
            let workspace = detail.carve(&region, &mut arena);
            // SAFETY: the caller's contract.
            unsafe { walk(self, detail, self.level, &region, workspace, detail.chunked(), threads) };
        }
        let slack = self.detail.grid.slack();
        // SAFETY: slack rows belong to no chain.
        unsafe {
            self.y.clear(slack.clone());
            if let Keep::All(h) = &self.keep {
                h.clear(slack);
            }
        }
    }
}

/// Walks a region, in groups of chunks or chain by chain.
///
/// # Safety
///
/// The pass's pointers are good for the region, and the workspace was cut for it.
pub(crate) unsafe fn walk<P: Pass>(
    pass: &P,
    detail: &Detail,
    level: Level,
    region: &Region,
    workspace: Workspace<P::T>,
    chunked: bool,
    threads: &Threads<'_>,
) {
    let Workspace { relay, scratch, .. } = workspace;
    let walk = Walk {
        grid: &detail.grid,
        region,
        level,
        group: detail.group(),
        exact: detail.exact(),
        scratch: &scratch,
        relay,
    };
    // SAFETY: the caller's contract.
    unsafe { if chunked { walk.chunked(pass, threads) } else { walk.march(pass, threads) } }
}

impl<E: Storage, O: Storage<Acc = E::Acc>> Pass for Forward<'_, E, O> {
    type T = E::Acc;

    fn applies(&self) -> bool {
        self.y.wanted()
    }

    unsafe fn start(&self, chain: &Chain, state: *mut E::Acc) {
        // SAFETY: the row is padded; h0 has a row for every sequence.
        unsafe { start_from(self.h0, self.detail.grid.channels, chain, state) }
    }

    unsafe fn sums(&self, chain: &Chain, k: usize, sums: SumRows<E::Acc>) {
        let steps = chain.sequence.steps(k);
        let job = ForwardSums {
            steps: steps.len(),
            width: chain.width,
            inputs: self.operands.inputs(chain, steps.start),
            sums,
        };
        // SAFETY: the steps are the chain's own.
        unsafe { self.level.run(&job) }
    }

    unsafe fn enter(&self, chain: &Chain, k: usize, state: *const E::Acc) {
        if let Keep::States(states) = &self.keep {
            // SAFETY: every chunk has a row.
            unsafe { std::ptr::copy_nonoverlapping(state, states.row(chain, k), chain.width) }
        }
    }

    unsafe fn apply<const SUMS: bool>(&self, chain: &Chain, k: usize, scratch: &Scratch<E::Acc>) {
        let row_bytes = chain.width * size_of::<O>();
        let rows = self.detail.staged_rows(row_bytes);
        let chunk = chain.sequence.steps(k);
        let mut leaving = [Lines::NONE; OUTPUTS];
        for (i, start) in chunk.clone().step_by(rows).enumerate() {
            let steps: Range<usize> = start..(start + rows).min(chunk.end);
            // Two stages in turn: one leaves while the other fills.
            let stage = scratch.stage.wrapping_add(i % 2 * rows * row_bytes);
            let y = Output::new(self.y, chain, &steps, self.detail.stream.then_some(stage));
            let job = ForwardRows::<E, O, SUMS> {
                steps: steps.len(),
                width: chain.width,
                inputs: self.operands.inputs(chain, start),
                c: self.operands.c.up(chain, start),
                y: y.up(),
                all_h: match &self.keep {
                    Keep::All(h) => h.up(chain, start),
                    _ => Rows::NONE,
                },
                h: scratch.state,
                sums: scratch.sums,
                leaving,
            };
            // SAFETY: the steps are the chain's own, and each stage holds `rows` rows.
            unsafe {
                self.level.run(&job);
                leaving[0] = y.leave(self.level);
            }
        }
        // SAFETY: the stages stay as they are.
        unsafe { self.level.run(&Leave(leaving)) };
    }

    unsafe fn finish(&self, chain: &Chain, state: *const E::Acc) {
        // SAFETY: hT has a row for every sequence.
        unsafe { finish_to(self.last, self.detail.grid.channels, chain, state) }
    }
}

/// Fills a padded row from a state (N, D), or with 0 where there is none.
///
/// # Safety
///
/// `state` is null or good for (N, D), `carry` for a padded row.
pub(crate) unsafe fn start_from<T: Element>(state: *const T, channels: usize, chain: &Chain, carry: *mut T) {
    // SAFETY: the caller's contract.
    unsafe {
        for d in 0..padded(chain) {
            carry.add(d).write(T::default());
        }
        if !state.is_null() {
            let row = state.add(chain.sequence.index * channels + chain.channel);
            std::ptr::copy_nonoverlapping(row, carry, chain.width);
        }
    }
}

/// Copies a row to a state (N, D), if there is one.
///
/// # Safety
///
/// `state` is null or good for (N, D), `carry` for the chain's width.
pub(crate) unsafe fn finish_to<T>(state: *mut T, channels: usize, chain: &Chain, carry: *const T) {
    if !state.is_null() {
        // SAFETY: the caller's contract.
        unsafe {
            let row = state.add(chain.sequence.index * channels + chain.channel);
            std::ptr::copy_nonoverlapping(carry, row, chain.width);
        }
    }
}

impl<T> Keep<T> {
    /// What the problem's policy keeps, in the memory that the caller brought for it.
    pub(crate) fn new(policy: Checkpoint, saved: *mut T, channels: usize) -> Self {
        match policy {
            Checkpoint::Nothing => Self::Nothing,
            Checkpoint::ChunkStates => Self::States(States::whole(saved, channels)),
            Checkpoint::FullH => Self::All(Tensor::new(saved, channels)),
        }
    }
}
