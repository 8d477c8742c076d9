//! How workers walk the chunk grid, for forward and backward alike.
//!
//! **March**: one worker owns a chain and goes along it chunk by chunk, one pass over memory.
//!
//! **Chunked**: where chains are fewer than workers, a group of chunks is the unit. A worker sums each chunk of its
//! group, waits for the carry of the group before, folds chunk by chunk, publishes the carry, and only then applies it, reading
//! the group again from its cache. Groups are handed out in order, so that the one a worker waits for is always finished or
//! in the hands of a running worker: no deadlock, however many workers really run.
//!
//! Both fold the same expression over the same chunks: same bits.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::arena::Arena;
use crate::grid::{Chain, Grid, Region};
use crate::kernel::{Fold, Level, Real, SumRows, patch, stream};

/// One direction of the scan, chunk by chunk. Chunks are counted in the order in which they are walked.
pub(crate) trait Pass: Sync {
    type T: Real;

    /// Whether [`Pass::apply`] writes anything; without, only the carry is walked.
    fn applies(&self) -> bool;

    // SAFETY of the methods below: rows are padded to LANES beyond the chain's width; no other worker is in the same
    // chunk of the same chain.

    /// Fills the state that the chain begins with.
    unsafe fn start(&self, chain: &Chain, state: *mut Self::T);
    /// Runs the chunk's sums on.
    unsafe fn sums(&self, chain: &Chain, chunk: usize, sums: SumRows<Self::T>);
    /// Hears of the state with which a chunk is entered.
    unsafe fn enter(&self, chain: &Chain, chunk: usize, state: *const Self::T);
    /// Writes the chunk's outputs, taking `scratch.state` from the entering state to the leaving one in the plain loop.
    /// With `SUMS`, runs `scratch.sums` on beside it.
    unsafe fn apply<const SUMS: bool>(&self, chain: &Chain, chunk: usize, scratch: &Scratch<Self::T>);
    /// Takes the state that the chain ends with.
    unsafe fn finish(&self, chain: &Chain, state: *const Self::T);
}

/// The memory of one worker. Rows are padded to LANES and as wide as the widest tile.
#[derive(Debug)]
pub(crate) struct Scratch<T> {
    pub(crate) pitch: usize,
    pub(crate) state: *mut T,
    /// As many rows each as a group has chunks.
    pub(crate) sums: SumRows<T>,
    /// The carry before each of those, and after the last.
    carry: *mut f64,
    /// h of a chunk, and the one before it.
    pub(crate) history: *mut T,
    /// Outputs on their way past the caches.
    pub(crate) stage: *mut u8,
}

/// How much memory a worker has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScratchSize {
    pub(crate) pitch: usize,
    pub(crate) group: usize,
    pub(crate) history_rows: usize,
    pub(crate) stage_bytes: usize,
}

impl<T> Scratch<T> {
    pub(crate) fn carve(size: &ScratchSize, arena: &mut Arena) -> Self {
        let ScratchSize { pitch, group, history_rows, stage_bytes } = *size;
        let mut rows = |count: usize| arena.take(count.saturating_mul(pitch));
        let (s, state, history) = (rows(group), rows(1), rows(history_rows));
        let sums = SumRows { s, p: arena.take(group.saturating_mul(pitch)) };
        let carry = arena.take((group + 1).saturating_mul(pitch));
        Self { pitch, state, sums, carry, history, stage: arena.take(stage_bytes) }
    }

    /// The sums of the group's `i`-th chunk.
    fn sums_of(&self, i: usize) -> SumRows<T> {
        let at = i * self.pitch;
        SumRows { s: self.sums.s.wrapping_add(at), p: self.sums.p.wrapping_add(at) }
    }

    /// The carry before the group's `i`-th chunk.
    fn carry_before(&self, i: usize) -> *mut f64 {
        self.carry.wrapping_add(i * self.pitch)
    }
}

/// What the workers of a chunked walk share: per chain, how many groups are done, and the carry after them.
#[derive(Debug)]
pub(crate) struct Relay {
    // A line each: neighbours are waited on by different workers.
    done: *mut [AtomicU32; 16],
    carry: *mut f64,
    pitch: usize,
}

impl Relay {
    pub(crate) fn carve(chains: usize, pitch: usize, arena: &mut Arena) -> Self {
        Self { done: arena.take(chains), carry: arena.take(chains.saturating_mul(pitch)), pitch }
    }
}

/// A region to walk, and with whom.
pub(crate) struct Walk<'a, T> {
    pub(crate) grid: &'a Grid,
    pub(crate) region: &'a Region,
    pub(crate) level: Level,
    /// Chunks a group.
    pub(crate) group: usize,
    /// The plain loop's state instead of the fold.
    pub(crate) exact: bool,
    /// One per worker.
    pub(crate) scratch: &'a [Scratch<T>],
    pub(crate) relay: Relay,
}

// SAFETY: the pointers are to workspace of which each worker uses its own scratch, and the relay by its protocol.
unsafe impl<T: Send> Sync for Walk<'_, T> {}

impl<T: Real> Walk<'_, T> {
    /// One pass over every chain, each owned by one worker.
    ///
    /// # Safety
    ///
    /// The pass's pointers are good for the region, and scratch is as large as the region needs.
    pub(crate) unsafe fn march<P: Pass<T = T>>(&self, pass: &P, threads: &Threads<'_>) {
        let next = AtomicUsize::new(0);
        threads.run(self.scratch.len(), |worker| {
            let scratch = &self.scratch[worker];
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.region.chains() {
                    break;
                }
                // SAFETY: the ticket makes this worker the chain's only one.
                unsafe { self.march_chain(pass, &self.grid.chain(self.region, index), scratch) };
            }
            stream::fence();
        });
    }

    unsafe fn march_chain<P: Pass<T = T>>(&self, pass: &P, chain: &Chain, scratch: &Scratch<T>) {
        let (mut carry, mut next) = (scratch.carry_before(0), scratch.carry_before(1));
        // SAFETY: all rows are this worker's own; the pass is good for the chain.
        unsafe {
            pass.start(chain, scratch.state);
            widen(chain, scratch.state, carry);
            for chunk in 0..chain.sequence.chunks() {
                narrow(chain, carry, scratch.state);
                pass.enter(chain, chunk, scratch.state);
                reset(chain, scratch.sums);
                if self.exact {
                    self.plain(pass, chain, chunk, scratch);
                    widen(chain, scratch.state, carry);
                    continue;
                }
                if pass.applies() {
                    pass.apply::<true>(chain, chunk, scratch);
                } else {
                    pass.sums(chain, chunk, scratch.sums);
                }
                if !self.fold(chain, carry, scratch.sums, next) {
                    if !pass.applies() {
                        pass.sums(chain, chunk, SumRows { s: scratch.state, ..scratch.sums });
                    }
                    patch(chain.width, next, scratch.state);
                }
                std::mem::swap(&mut carry, &mut next);
            }
            narrow(chain, carry, scratch.state);
            pass.finish(chain, scratch.state);
        }
    }

    /// A chunk in the plain loop, with outputs where there are any.
    unsafe fn plain<P: Pass<T = T>>(&self, pass: &P, chain: &Chain, chunk: usize, scratch: &Scratch<T>) {
        // SAFETY: all rows are this worker's own; the pass is good for the chain.
        unsafe {
            if pass.applies() {
                pass.apply::<false>(chain, chunk, scratch);
            } else {
                pass.sums(chain, chunk, SumRows { s: scratch.state, ..scratch.sums });
            }
        }
    }

    /// Groups of chunks in parallel, the carry handed from one to the next.
    ///
    /// # Safety
    ///
    /// As [`Walk::march`], and the relay has room for the region's chains.
    pub(crate) unsafe fn chunked<P: Pass<T = T>>(&self, pass: &P, threads: &Threads<'_>) {
        let chains = self.region.chains();
        for chain in 0..chains {
            // SAFETY: the relay has room for every chain, and no worker runs yet.
            unsafe { self.relay.done.add(chain).write(Default::default()) };
        }
        // A chain without steps still has a state to hand on: its one group is empty.
        let longest = self.grid.longest(self.region.sequences.clone());
        let groups = longest.div_ceil(self.group * crate::grid::CHUNK).max(1);
        let (next, tickets) = (AtomicUsize::new(0), groups.saturating_mul(chains));
        threads.run(self.scratch.len(), |worker| {
            loop {
                let ticket = next.fetch_add(1, Ordering::Relaxed);
                if ticket >= tickets {
                    break;
                }
                let chain = self.grid.chain(self.region, ticket % chains);
                // SAFETY: the ticket makes this worker the group's only one.
                unsafe { self.group(pass, &chain, ticket / chains, &self.scratch[worker]) };
            }
            stream::fence();
        });
    }

    unsafe fn group<P: Pass<T = T>>(&self, pass: &P, chain: &Chain, group: usize, scratch: &Scratch<T>) {
        let chunks = chain.sequence.chunks();
        let first = group * self.group;
        let last = (first + self.group).min(chunks);
        if group > 0 && first >= chunks {
            return;
        }
        // SAFETY: scratch is this worker's own; the relay is used by its protocol: group g reads the carry after it saw g
        // groups done, and no other group touches it before g + 1 are.
        unsafe {
            for (i, chunk) in (first..last).enumerate() {
                let sums = scratch.sums_of(i);
                reset(chain, sums);
                if !self.exact {
                    pass.sums(chain, chunk, sums);
                }
            }
            let done = &(*self.relay.done.add(chain.index))[0];
            let handed = self.relay.carry.add(chain.index * self.relay.pitch);
            if group == 0 {
                pass.start(chain, scratch.state);
                widen(chain, scratch.state, scratch.carry);
            } else {
                wait_for(done, group as u32);
                std::ptr::copy_nonoverlapping(handed, scratch.carry, padded(chain));
            }
            for (i, chunk) in (first..last).enumerate() {
                let (carry, next, sums) =
                    (scratch.carry_before(i), scratch.carry_before(i + 1), scratch.sums_of(i));
                if !self.exact && self.fold(chain, carry, sums, next) {
                    continue;
                }
                narrow(chain, carry, scratch.state);
                pass.sums(chain, chunk, SumRows { s: scratch.state, ..sums });
                if self.exact {
                    widen(chain, scratch.state, next);
                } else {
                    patch(chain.width, next, scratch.state);
                }
            }
            let carry = scratch.carry_before(last.saturating_sub(first));
            if last == chunks {
                narrow(chain, carry, scratch.state);
                pass.finish(chain, scratch.state);
            } else {
                std::ptr::copy_nonoverlapping(carry, handed, padded(chain));
                done.store(group as u32 + 1, Ordering::Release);
            }
            for (i, chunk) in (first..last).enumerate() {
                narrow(chain, scratch.carry_before(i), scratch.state);
                pass.enter(chain, chunk, scratch.state);
                if pass.applies() {
                    pass.apply::<false>(chain, chunk, scratch);
                }
            }
        }
    }

    unsafe fn fold(&self, chain: &Chain, carry: *const f64, sums: SumRows<T>, out: *mut f64) -> bool {
        // SAFETY: rows of this worker, padded beyond the chain's width.
        unsafe { self.level.run(&Fold { width: chain.width, carry, sums, out }) }
    }
}

// SAFETY of the three below: rows of one worker, padded beyond the chain's width.

unsafe fn reset<T: Real>(chain: &Chain, sums: SumRows<T>) {
    for d in 0..padded(chain) {
        // SAFETY: as above.
        unsafe {
            sums.s.add(d).write(T::ZERO);
            sums.p.add(d).write(1.0);
        }
    }
}

unsafe fn widen<T: Real>(chain: &Chain, state: *const T, carry: *mut f64) {
    for d in 0..padded(chain) {
        // SAFETY: as above.
        unsafe { carry.add(d).write((*state.add(d)).widen()) };
    }
}

unsafe fn narrow<T: Real>(chain: &Chain, carry: *const f64, state: *mut T) {
    for d in 0..padded(chain) {
        // SAFETY: as above.
        unsafe { state.add(d).write(T::narrow(*carry.add(d))) };
    }
}

pub(crate) fn padded(chain: &Chain) -> usize {
    chain.width.next_multiple_of(crate::kernel::LANES)
}

/// Spins a little, then lets others run: the predecessor may be waiting for this very core.
fn wait_for(done: &AtomicU32, groups: u32) {
    let mut spins = 0u32;
    while done.load(Ordering::Acquire) != groups {
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(64) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// The threads that a launch may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threads<'a> {
    pub(crate) pool: Option<&'a rayon::ThreadPool>,
}

impl Threads<'_> {
    pub(crate) fn count(&self) -> usize {
        self.pool.map_or_else(rayon::current_num_threads, rayon::ThreadPool::current_num_threads)
    }

    /// Calls `work` once for each worker and waits for all. One worker is the calling thread.
    fn run(&self, workers: usize, work: impl Fn(usize) + Sync) {
        if workers <= 1 {
            return work(0);
        }
        let work = &work;
        match self.pool {
            Some(pool) => pool.in_place_scope(|scope| spread(scope, workers, work)),
            None => rayon::in_place_scope(|scope| spread(scope, workers, work)),
        }
    }
}

fn spread<'s>(scope: &rayon::Scope<'s>, workers: usize, work: &'s (impl Fn(usize) + Sync)) {
    for worker in 1..workers {
        scope.spawn(move |_| work(worker));
    }
    work(0);
}
