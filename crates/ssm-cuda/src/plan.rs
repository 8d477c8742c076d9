//! Plans: pure arithmetic on the problem and the device's limits.
//!
//! March and Chunked give the same bits, so the choice between them is one of speed alone: march where whole
//! sequences and channel tiles keep every multiprocessor busy, split time across blocks where they do not.

use ssm_core::{
    Algorithm, Backend, Checkpoint, GatedScan, Op, Operand, PlanError, PlanOptions, Report, ScanBackward,
    ScanForward, ScanStep,
};

use crate::kernels::{Direction, Entry, Target, Walk};
use crate::tuning::{
    MARCH_BALANCE_PERCENT, MARCH_COLUMNS_PER_MULTIPROCESSOR, MARCH_WARPS_PER_MULTIPROCESSOR,
    REGISTERS_PER_MULTIPROCESSOR, Row, registers,
};
use crate::{CudaBackend, DeviceLimits};

/// The most blocks that a grid's first dimension holds.
pub(crate) const GRID_MAX: u64 = i32::MAX as u64;
/// Threads a block of the step kernel.
pub(crate) const STEP_THREADS: u64 = 128;
/// Parts of the workspace begin on a multiple of this.
const PART: u64 = 256;
/// Shared memory that the driver keeps for itself in every block, from compute capability 8.0 on.
const RESERVED_SHARED: u64 = 1024;

/// What a launch needs to know. Only this crate makes one.
#[derive(Clone, Debug)]
pub struct Detail {
    /// The kernel; none where there is nothing to compute.
    pub(crate) pass: Passes,
    /// The forward pass that a backward without saved states begins with.
    pub(crate) carry: Option<Passes>,
    /// Sequences a launch.
    pub(crate) tile: u64,
    /// Accumulator elements of saved state a sequence; of a packed one, the element that a sequence adds besides those
    /// its offset counts.
    pub(crate) saved_stride: u64,
    pub(crate) workspace: Workspace,
}

/// A kernel, and the one for operands that it is too wide for. Alignment is known at the launch only; the bits are the
/// same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passes {
    pub(crate) wide: Pass,
    pub(crate) narrow: Pass,
}

impl Passes {
    /// The pass for operands whose addresses and rows are multiples of so many bytes.
    pub(crate) const fn pick(&self, access: u32) -> &Pass {
        if access < self.wide.access { &self.narrow } else { &self.wide }
    }

    pub(crate) const fn both(&self) -> [&Pass; 2] {
        [&self.wide, &self.narrow]
    }
}

/// One kernel and how it is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) entry: Entry,
    pub(crate) sequential: bool,
    /// Channels a block.
    pub(crate) lanes: u64,
    /// Bytes that every address and row must be a multiple of.
    pub(crate) access: u32,
    pub(crate) threads: u32,
    pub(crate) shared: u32,
    pub(crate) stages: u32,
    pub(crate) workers: u32,
    /// Bytes of work that the blocks of one column share, and that are set to 0xff before the launch.
    pub(crate) work_bytes: u64,
}

/// Where the parts of the workspace begin, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workspace {
    pub(crate) cu: u64,
    pub(crate) states: u64,
    pub(crate) work: u64,
    pub(crate) bytes: u64,
}

impl Workspace {
    fn part(&mut self, bytes: u64) -> Result<u64, PlanError> {
        let start = self.bytes;
        let end = start.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(PART));
        self.bytes = end.ok_or(PlanError::Overflow)?;
        Ok(start)
    }
}

/// The problem and the device, with what follows from both.
#[derive(Clone, Copy)]
struct Planner<'a> {
    problem: &'a GatedScan,
    limits: &'a DeviceLimits,
    row: Row,
    direction: Direction,
    /// Steps of the longest sequence.
    longest: u64,
    /// Steps of all sequences.
    steps: u64,
}

impl<'a> Planner<'a> {
    fn new(
        problem: &'a GatedScan,
        limits: &'a DeviceLimits,
        direction: Direction,
    ) -> Result<Self, PlanError> {
        let unsupported = |dtype| PlanError::UnsupportedType { backend: CudaBackend::NAME, dtype };
        let target = Target::for_device(limits.capability);
        let row = *target.and_then(|t| t.row(problem.dtype())).ok_or(unsupported(problem.dtype()))?;
        crate::params::type_tag(problem.out_dtype()).ok_or(unsupported(problem.out_dtype()))?;
        let (longest, steps) = match problem.cu_seqlens() {
            Some(cu) => (
                cu.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0) as u64,
                cu.last().copied().unwrap_or(0) as u64,
            ),
            None => (problem.len() as u64, problem.len() as u64 * problem.batch() as u64),
        };
        Ok(Self { problem, limits, row, direction, longest, steps })
    }

    fn any(&self) -> bool {
        self.problem.dtype() != self.problem.out_dtype()
    }

    /// Channel tiles of one sequence.
    fn columns(&self, walk: Walk) -> u64 {
        (self.problem.channels() as u64).div_ceil(self.row.lanes(self.direction, walk))
    }

    /// Columns that blocks walk along: a packed batch is one row of them.
    fn rows(&self, walk: Walk) -> u64 {
        match walk {
            Walk::Chunked if self.problem.cu_seqlens().is_some() => 1,
            _ => self.problem.sequences() as u64,
        }
    }

    /// Chunks of the longest walk along a column.
    fn walk_chunks(&self) -> u64 {
        let chunk = self.row.chunk(self.direction);
        match self.problem.cu_seqlens() {
            Some(_) => self.problem.len() as u64 / chunk + self.problem.sequences() as u64,
            None => (self.problem.len() as u64).div_ceil(chunk).max(1),
        }
    }

    /// Chunks of all sequences together.
    fn chunks(&self) -> u64 {
        let chunk = self.row.chunk(self.direction);
        match self.problem.cu_seqlens() {
            Some(cu) => cu.windows(2).map(|w| ((w[1] - w[0]) as u64).div_ceil(chunk)).sum(),
            None => (self.problem.len() as u64).div_ceil(chunk) * self.problem.batch() as u64,
        }
    }

    /// Rows of saved states that one more sequence takes: all of its own, or the one beside those its offset counts.
    fn saved_rows_a_sequence(&self) -> u64 {
        match self.problem.cu_seqlens() {
            Some(_) => 1,
            None => (self.problem.len() as u64).div_ceil(self.row.save),
        }
    }

    /// Accumulator elements of chunk states for so many sequences.
    fn states(&self, sequences: u64) -> Result<u64, PlanError> {
        if sequences == 0 {
            return Ok(0);
        }
        let shared = match self.problem.cu_seqlens() {
            Some(_) => self.problem.len() as u64 / self.row.save,
            None => 0,
        };
        let rows = sequences.checked_mul(self.saved_rows_a_sequence()).and_then(|r| r.checked_add(shared));
        rows.and_then(|r| r.checked_mul(self.problem.channels() as u64)).ok_or(PlanError::Overflow)
    }

    fn saved(&self) -> Result<u64, PlanError> {
        match self.problem.checkpoint() {
            Checkpoint::Nothing => Ok(0),
            Checkpoint::ChunkStates => self.states(self.problem.sequences() as u64),
            Checkpoint::FullH => Ok(self.problem.elements()),
        }
    }

    /// Accumulator elements of `saved` by which the next sequence lies further on.
    fn saved_stride(&self) -> u64 {
        let rows = match (self.problem.checkpoint(), self.problem.cu_seqlens()) {
            (Checkpoint::FullH, Some(_)) => 0,
            (Checkpoint::FullH, None) => self.problem.len() as u64,
            _ => self.saved_rows_a_sequence(),
        };
        rows * self.problem.channels() as u64
    }

    /// Whether marching keeps every multiprocessor busy to the end.
    fn march_fills(&self) -> bool {
        let (columns, sm) = (self.columns(Walk::March), u64::from(self.limits.multiprocessors.max(1)));
        let all = u128::from(self.steps) * u128::from(columns);
        let needed = u128::from(self.longest) * u128::from(sm * MARCH_COLUMNS_PER_MULTIPROCESSOR);
        let tiles = columns.saturating_mul(self.problem.sequences() as u64).max(1);
        let waves = tiles.div_ceil(sm);
        let balance = u128::from(tiles) * 100 / (u128::from(waves) * u128::from(sm));
        all >= needed && balance >= u128::from(MARCH_BALANCE_PERCENT)
    }

    fn algorithm(&self, options: &PlanOptions) -> Algorithm {
        options.algorithm.unwrap_or_else(|| {
            // One chunk leaves nothing to split.
            let march = self.longest <= self.row.chunk(self.direction) || self.march_fills();
            if march { Algorithm::March } else { Algorithm::Chunked }
        })
    }

    /// Whether a march is better done by blocks of many warps, each block alone on its column, than by single warps:
    /// where warps are few, in 16-bit types, which keep one warp too busy, without b and c, which leaves a warp's ring half
    /// empty, and where rows begin between the pieces that a warp copies.
    fn marches_in_blocks(&self) -> bool {
        let warps = self.columns(Walk::March).saturating_mul(self.problem.sequences() as u64);
        let few = u64::from(self.limits.multiprocessors) * MARCH_WARPS_PER_MULTIPROCESSOR;
        self.problem.cu_seqlens().is_none()
            && self.longest > self.row.chunk(self.direction)
            && (self.problem.dtype().size() == 2
                || warps < few
                || !self.problem.has_b() && !self.problem.has_c()
                || !(self.problem.channels() as u64)
                    .is_multiple_of(self.row.lanes(self.direction, Walk::March) / 32))
    }

    fn passes(&self, algorithm: Algorithm) -> Result<Passes, PlanError> {
        let walk = match algorithm {
            Algorithm::March if self.marches_in_blocks() => Walk::Chunked,
            Algorithm::Sequential | Algorithm::March => Walk::March,
            Algorithm::Chunked => Walk::Chunked,
        };
        let narrow = Self { row: self.row.narrow(), ..*self }.pass(algorithm, walk, true)?;
        let wide = if self.any() { narrow } else { self.pass(algorithm, walk, false)? };
        Ok(Passes { wide, narrow })
    }

    fn pass(&self, algorithm: Algorithm, walk: Walk, any: bool) -> Result<Pass, PlanError> {
        let (direction, size) = (self.direction, self.problem.dtype().size());
        let entry = Entry::Scan { direction, walk, dtype: self.problem.dtype(), any };
        let threads = self.row.threads(direction, walk);
        let out = if any { 4 } else { size };
        let shared = |stages| self.row.shared(direction, walk, out, stages);
        let least = self.row.least_stages(direction, walk);
        let mut stages = self.row.stages(direction, walk);
        if walk == Walk::March {
            // Short sequences need fewer, and then more blocks fit.
            stages = stages.min(self.longest.div_ceil(self.row.stage));
        }
        stages = stages.max(least);
        while stages > least && shared(stages) > u64::from(self.limits.shared_per_block) {
            stages -= 1;
        }
        if shared(stages) > u64::from(self.limits.shared_per_block) {
            return Err(PlanError::UnsupportedAlgorithm { backend: CudaBackend::NAME, algorithm });
        }
        let rows = self.rows(walk);
        let columns = self.columns(walk).checked_mul(rows).ok_or(PlanError::Overflow)?;
        let workers = match algorithm {
            Algorithm::Sequential | Algorithm::March => 1,
            Algorithm::Chunked => {
                let room = self.resident(shared(stages), threads) * u64::from(self.limits.multiprocessors);
                (room / columns.max(1)).clamp(1, self.walk_chunks().max(1))
            }
        };
        let work_bytes = if workers > 1 { self.work_bytes(columns)? } else { 0 };
        Ok(Pass {
            entry,
            sequential: algorithm == Algorithm::Sequential,
            lanes: self.row.lanes(direction, walk),
            access: if any { 0 } else { narrow(self.row.lanes(direction, walk) / 32 * size)? },
            threads: narrow(threads)?,
            shared: narrow(shared(stages))?,
            stages: narrow(stages)?,
            workers: narrow(workers)?,
            work_bytes,
        })
    }

    /// Blocks that fit on one multiprocessor at once.
    fn resident(&self, shared: u64, threads: u64) -> u64 {
        let by_shared = u64::from(self.limits.shared_per_multiprocessor) / (shared + RESERVED_SHARED);
        let by_threads = u64::from(self.limits.threads_per_multiprocessor) / threads.max(1);
        let by_registers = REGISTERS_PER_MULTIPROCESSOR / (threads.max(1) * registers(self.direction));
        let by_blocks = u64::from(self.limits.blocks_per_multiprocessor);
        by_shared.min(by_threads).min(by_registers).min(by_blocks).max(1)
    }

    /// scan_chunked_work of scan_abi.h.
    fn work_bytes(&self, columns: u64) -> Result<u64, PlanError> {
        let tickets = columns.checked_mul(8).and_then(|b| b.checked_next_multiple_of(256));
        let rows = columns.checked_mul(self.walk_chunks());
        // The aggregate of a channel's chunk, two numbers of 8 bytes, and forward the carry after it.
        let step = if self.direction == Direction::Forward { 24 } else { 16 };
        let pairs = rows.and_then(|r| r.checked_mul(self.row.lanes(self.direction, Walk::Chunked) * step));
        tickets.zip(pairs).and_then(|(t, p)| t.checked_add(p)).ok_or(PlanError::Overflow)
    }

    /// Sequences a launch: all, unless the grid or, where a workspace grows with them, the caller's memory tile says
    /// fewer.
    fn tile(&self, pass: &Passes, carry: Option<&Passes>) -> Result<u64, PlanError> {
        let sequences = self.problem.sequences() as u64;
        let mut tile = sequences.max(1);
        for pass in [Some(pass), carry].into_iter().flatten().flat_map(Passes::both) {
            let blocks =
                (self.problem.channels() as u64).div_ceil(pass.lanes).max(1) * u64::from(pass.workers);
            if blocks > GRID_MAX {
                return Err(PlanError::TooLargeForDevice {
                    backend: CudaBackend::NAME,
                    operand: Operand::X,
                    needed: blocks.saturating_mul(pass.lanes * self.problem.dtype().size()),
                    limit: GRID_MAX * pass.lanes * self.problem.dtype().size(),
                });
            }
            let split = !matches!(pass.entry, Entry::Scan { walk: Walk::Chunked, .. })
                || self.problem.cu_seqlens().is_none();
            if split {
                tile = tile.min(GRID_MAX / blocks);
            }
        }
        if carry.is_some() && self.problem.cu_seqlens().is_none() {
            tile = tile.min(self.problem.tile().batch.map_or(u64::MAX, |b| b as u64));
        }
        Ok(tile)
    }

    fn detail(&self, pass: Passes, carry: Option<Passes>) -> Result<Detail, PlanError> {
        let tile = self.tile(&pass, carry.as_ref())?;
        let mut workspace = Workspace::default();
        if let Some(cu) = self.problem.cu_seqlens() {
            workspace.cu = workspace.part(cu.len() as u64 * 8)?;
        }
        if carry.is_some() {
            let sequences = (self.problem.sequences() as u64).min(match self.problem.cu_seqlens() {
                Some(_) => u64::MAX,
                None => tile,
            });
            let bytes = self.states(sequences)?.checked_mul(4).ok_or(PlanError::Overflow)?;
            workspace.states = workspace.part(bytes)?;
        }
        let passes = [Some(&pass), carry.as_ref()].into_iter().flatten().flat_map(Passes::both);
        workspace.work = workspace.part(passes.map(|p| p.work_bytes).max().unwrap_or(0))?;
        Ok(Detail { pass, carry, tile, saved_stride: self.saved_stride(), workspace })
    }

    fn report<O: Op>(
        &self,
        algorithm: Algorithm,
        workspace: u64,
        traffic: Traffic,
    ) -> Result<Report, PlanError> {
        let p = self.problem;
        Ok(Report {
            backend: CudaBackend::NAME,
            op: O::NAME,
            shape: [p.batch(), p.len(), p.channels()],
            dtype: p.dtype(),
            checkpoint: p.checkpoint(),
            algorithm,
            chunk_len: usize::try_from(self.row.chunk(self.direction)).map_err(|_| PlanError::Overflow)?,
            chunks: self.chunks(),
            workspace_bytes: workspace,
            saved: traffic.saved,
            bytes_read: traffic.read,
            bytes_written: traffic.written,
        })
    }
}

struct Traffic {
    saved: u64,
    read: u64,
    written: u64,
}

fn narrow(value: u64) -> Result<u32, PlanError> {
    u32::try_from(value).map_err(|_| PlanError::Overflow)
}

/// Adds up byte counts that are each a problem's own, so that the sum stays far from 2⁶⁴ or is an error.
fn bytes(parts: &[(u64, u64)]) -> Result<u64, PlanError> {
    parts.iter().try_fold(0u64, |sum, (count, size)| {
        count.checked_mul(*size).and_then(|b| sum.checked_add(b)).ok_or(PlanError::Overflow)
    })
}

pub(crate) fn forward(
    op: &ScanForward,
    limits: &DeviceLimits,
    options: &PlanOptions,
) -> Result<(Report, Detail), PlanError> {
    let (p, planner) = (op.problem(), Planner::new(op.problem(), limits, Direction::Forward)?);
    let algorithm = planner.algorithm(options);
    let detail = planner.detail(planner.passes(algorithm)?, None)?;
    let saved = planner.saved()?;
    let inputs = (2 + u64::from(p.has_b()) + u64::from(p.has_c())) * p.dtype().size();
    let read = bytes(&[(p.elements(), inputs), (p.state_elements(), 4 * u64::from(p.has_initial_state()))])?;
    let written = bytes(&[
        (p.elements(), p.out_dtype().size()),
        (p.state_elements(), 4 * u64::from(p.wants_final_state())),
        (saved, 4),
    ])?;
    let report =
        planner.report::<ScanForward>(algorithm, detail.workspace.bytes, Traffic { saved, read, written })?;
    Ok((report, detail))
}

pub(crate) fn backward(
    op: &ScanBackward,
    limits: &DeviceLimits,
    options: &PlanOptions,
) -> Result<(Report, Detail), PlanError> {
    let (p, grads, planner) =
        (op.problem(), op.grads(), Planner::new(op.problem(), limits, Direction::Backward)?);
    let algorithm = planner.algorithm(options);
    let rerun = p.checkpoint() == Checkpoint::Nothing && grads.need_h();
    let carry = if rerun {
        Some(Planner { direction: Direction::Forward, ..planner }.passes(algorithm)?)
    } else {
        None
    };
    let detail = planner.detail(planner.passes(algorithm)?, carry)?;
    let saved = planner.saved()?;
    let states = if rerun { planner.states(p.sequences() as u64)? } else { 0 };
    let rebuild = grads.need_h() && p.checkpoint() != Checkpoint::FullH;
    let inputs = 1
        + u64::from(grads.b || rebuild)
        + u64::from(p.has_b() && (grads.x || rebuild))
        + u64::from(p.has_c())
        + u64::from(rerun) * (2 + u64::from(p.has_b()));
    let outputs = grads.tensors();
    let state_inputs = u64::from(op.has_final_state())
        + u64::from(p.has_initial_state() && grads.need_h()) * (1 + u64::from(rerun));
    let read = bytes(&[
        (p.elements(), inputs * p.dtype().size() + p.out_dtype().size()),
        (if grads.need_h() { saved } else { 0 }, 4),
        (states, 4),
        (p.state_elements(), 4 * state_inputs),
    ])?;
    let written = bytes(&[
        (p.elements(), outputs * p.dtype().size()),
        (p.state_elements(), 4 * u64::from(grads.h0)),
        (states, 4),
    ])?;
    let report = planner.report::<ScanBackward>(
        algorithm,
        detail.workspace.bytes,
        Traffic { saved, read, written },
    )?;
    Ok((report, detail))
}

pub(crate) fn step(
    op: &ScanStep,
    limits: &DeviceLimits,
    options: &PlanOptions,
) -> Result<(Report, Detail), PlanError> {
    if let Some(algorithm) = options.algorithm.filter(|a| *a != Algorithm::Sequential) {
        return Err(PlanError::UnsupportedAlgorithm { backend: CudaBackend::NAME, algorithm });
    }
    let (p, planner) = (op.problem(), Planner::new(op.problem(), limits, Direction::Forward)?);
    let pass = Pass {
        entry: Entry::Step { dtype: p.dtype(), any: planner.any() },
        sequential: true,
        // A block covers 128 of a launch's rows × channels; rows of fewer channels share one.
        lanes: STEP_THREADS,
        access: 0,
        threads: narrow(STEP_THREADS)?,
        shared: 0,
        stages: 0,
        workers: 1,
        work_bytes: 0,
    };
    let detail = planner.detail(Passes { wide: pass, narrow: pass }, None)?;
    let inputs = (2 + u64::from(p.has_b()) + u64::from(p.has_c())) * p.dtype().size();
    let read = bytes(&[(p.elements(), inputs), (p.state_elements(), 4)])?;
    let written = bytes(&[(p.elements(), p.out_dtype().size()), (p.state_elements(), 4)])?;
    let traffic = Traffic { saved: 0, read, written };
    let report = planner.report::<ScanStep>(Algorithm::Sequential, detail.workspace.bytes, traffic)?;
    Ok((report, detail))
}
