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
use crate::kernel::{Fold, Level, Real, patch, stream};

/// One direction of the scan, chunk by chunk. Chunks are counted in the order in which they are walked.
pub(crate) trait Pass: Sync {
    type T: Real;

    /// Whether [`Pass::apply`] writes anything; without, only the carry is walked.
    fn applies(&self) -> bool;

    // SAFETY of the methods below: rows are padded to LANES beyond the chain's width; no other worker is in the same
    // chunk of the same chain.

    /// Fills the carry that the chain begins with.
    unsafe fn start(&self, chain: &Chain, carry: *mut Self::T);
    /// Runs the chunk's scan on from `s`, and the product of its gates on from `p`.
    unsafe fn sums(&self, chain: &Chain, chunk: usize, s: *mut Self::T, p: *mut Self::T);
    /// Hears of the carry with which a chunk is entered.
    unsafe fn enter(&self, chain: &Chain, chunk: usize, carry: *const Self::T);
    /// Writes the chunk's outputs, taking `scratch.state` from the entering carry to the leaving one in the plain loop.
    /// With `SUMS`, runs `scratch.s` and `scratch.p` on beside it.
    unsafe fn apply<const SUMS: bool>(&self, chain: &Chain, chunk: usize, scratch: &Scratch<Self::T>);
    /// Takes the carry that the chain ends with.
    unsafe fn finish(&self, chain: &Chain, carry: *const Self::T);
}

/// The memory of one worker. Rows are padded to LANES and as wide as the widest tile.
#[derive(Debug)]
pub(crate) struct Scratch<T> {
    pub(crate) pitch: usize,
    pub(crate) state: *mut T,
    /// As many rows as a group has chunks.
    pub(crate) s: *mut T,
    pub(crate) p: *mut T,
    /// One row more than that.
    entry: *mut T,
    spare: *mut T,
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
        let (state, s, p, entry) = (rows(1), rows(group), rows(group), rows(group + 1));
        let (spare, history) = (rows(1), rows(history_rows));
        Self { pitch, state, s, p, entry, spare, history, stage: arena.take(stage_bytes) }
    }
}

/// What the workers of a chunked walk share: per chain, how many groups are done, and the carry after them.
#[derive(Debug)]
pub(crate) struct Relay<T> {
    // A line each: neighbours are waited on by different workers.
    done: *mut [AtomicU32; 16],
    carry: *mut T,
    pitch: usize,
}

impl<T> Relay<T> {
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
    pub(crate) relay: Relay<T>,
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
        let (mut carry, mut next) = (scratch.entry, scratch.spare);
        // SAFETY: all rows are this worker's own; the pass is good for the chain.
        unsafe {
            pass.start(chain, carry);
            for chunk in 0..chain.sequence.chunks() {
                pass.enter(chain, chunk, carry);
                self.copy(chain, carry, scratch.state);
                self.reset(chain, scratch.s, scratch.p);
                if self.exact {
                    if pass.applies() {
                        pass.apply::<false>(chain, chunk, scratch);
                    } else {
                        pass.sums(chain, chunk, scratch.state, scratch.p);
                    }
                    self.copy(chain, scratch.state, carry);
                    continue;
                }
                if pass.applies() {
                    pass.apply::<true>(chain, chunk, scratch);
                } else {
                    pass.sums(chain, chunk, scratch.s, scratch.p);
                }
                if !self.fold(chain, carry, scratch.s, scratch.p, next) {
                    if !pass.applies() {
                        pass.sums(chain, chunk, scratch.state, scratch.p);
                    }
                    patch(chain.width, next, scratch.state);
                }
                std::mem::swap(&mut carry, &mut next);
            }
            pass.finish(chain, carry);
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
        let row = |rows: *mut T, i: usize| rows.wrapping_add(i * scratch.pitch);
        // SAFETY: scratch is this worker's own; the relay is used by its protocol: group g reads the carry after it saw g
        // groups done, and no other group touches it before g + 1 are.
        unsafe {
            if !self.exact {
                for (i, chunk) in (first..last).enumerate() {
                    let (s, p) = (row(scratch.s, i), row(scratch.p, i));
                    self.reset(chain, s, p);
                    pass.sums(chain, chunk, s, p);
                }
            }
            let done = &(*self.relay.done.add(chain.index))[0];
            let handed = self.relay.carry.add(chain.index * self.relay.pitch);
            if group == 0 {
                pass.start(chain, scratch.entry);
            } else {
                wait_for(done, group as u32);
                self.copy(chain, handed, scratch.entry);
            }
            for (i, chunk) in (first..last).enumerate() {
                let (carry, next) = (row(scratch.entry, i), row(scratch.entry, i + 1));
                if !self.exact && self.fold(chain, carry, row(scratch.s, i), row(scratch.p, i), next) {
                    continue;
                }
                self.reset(chain, scratch.spare, row(scratch.p, i));
                self.copy(chain, carry, scratch.state);
                pass.sums(chain, chunk, scratch.state, row(scratch.p, i));
                if self.exact {
                    self.copy(chain, scratch.state, next);
                } else {
                    patch(chain.width, next, scratch.state);
                }
            }
            let carry = row(scratch.entry, last.saturating_sub(first));
            if last == chunks {
                pass.finish(chain, carry);
            } else {
                self.copy(chain, carry, handed);
                done.store(group as u32 + 1, Ordering::Release);
            }
            for (i, chunk) in (first..last).enumerate() {
                let carry = row(scratch.entry, i);
                pass.enter(chain, chunk, carry);
                if pass.applies() {
                    self.copy(chain, carry, scratch.state);
                    pass.apply::<false>(chain, chunk, scratch);
                }
            }
        }
    }

    // SAFETY of the three below: rows of this worker, padded beyond the chain's width.

    unsafe fn copy(&self, chain: &Chain, from: *const T, to: *mut T) {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from, to, padded(chain)) }
    }

    unsafe fn reset(&self, chain: &Chain, s: *mut T, p: *mut T) {
        for d in 0..padded(chain) {
            // SAFETY: as above.
            unsafe {
                s.add(d).write(T::ZERO);
                p.add(d).write(T::ONE);
            }
        }
    }

    unsafe fn fold(&self, chain: &Chain, carry: *const T, s: *const T, p: *const T, out: *mut T) -> bool {
        // SAFETY: as above.
        unsafe { self.level.run(&Fold { width: padded(chain), carry, p, s, out }) }
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
