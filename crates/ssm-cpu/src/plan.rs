//! Plans: pure arithmetic on the problem and the number of threads.

use ssm_core::{Algorithm, Checkpoint, DType, GatedScan, Op, PlanError, PlanOptions, Report, ScanBackward};

use crate::arena::Arena;
use crate::drive::{Relay, Scratch, ScratchSize};
use crate::grid::{CHUNK, Grid, Region};
use crate::kernel::{MAX_TILE, stream};

/// Outputs smaller than this are likely to be read again from the caches; larger ones go past them.
const STREAM_FROM_BYTES: u64 = 1 << 22;
/// Rows on their way past the caches, per worker: a part of the first-level cache.
const STAGE_BYTES: usize = 8 << 10;
/// A chunked group is read twice, the second time from the second-level cache: what it may take there.
const GROUP_BYTES: usize = 512 << 10;
/// Backward holds h of a chunk beside the operands, so its tiles are narrower.
const BACKWARD_TILE: usize = 1024;
/// Below this many elements a worker costs more than it brings.
const ELEMENTS_PER_WORKER: u64 = 1 << 15;

/// What a launch needs to know. Only this crate makes one.
#[derive(Clone, Debug)]
pub struct Detail {
    pub(crate) grid: Grid,
    algorithm: Algorithm,
    workers: usize,
    pub(crate) stream: bool,
    sequences: usize,
    channels: usize,
    tile: usize,
    group: usize,
    history_rows: usize,
    stage_bytes: usize,
    /// Whether states live in the workspace: backward without saved ones.
    own_states: bool,
}

/// The workspace of one region, cut.
pub(crate) struct Workspace<T> {
    pub(crate) relay: Relay,
    pub(crate) states: *mut T,
    pub(crate) scratch: Vec<Scratch<T>>,
}

/// What differs between the ops.
pub(crate) struct Shape {
    /// Full-size tensors in storage type, that are read together in a group's first pass.
    pub(crate) summed: u64,
    /// Full-size tensors that are written.
    pub(crate) outputs: u64,
    pub(crate) backward: bool,
    /// The plain loop only.
    pub(crate) exact: bool,
    /// Whether backward finds its states by itself.
    pub(crate) own_states: bool,
}

impl Detail {
    pub(crate) fn new(
        problem: &GatedScan,
        options: &PlanOptions,
        threads: usize,
        shape: &Shape,
    ) -> Result<Self, PlanError> {
        let grid = Grid::new(problem);
        let tile = if shape.backward { BACKWARD_TILE } else { MAX_TILE };
        let memory = problem.tile();
        let sequences = memory.batch.unwrap_or(usize::MAX).min(problem.sequences().max(1));
        let channels = memory.channels.unwrap_or(usize::MAX).min(problem.channels().max(1));
        let most = usize::try_from(problem.elements() / ELEMENTS_PER_WORKER).unwrap_or(usize::MAX);
        let mut workers = threads.min(most.max(1));
        let chains = sequences.saturating_mul(channels.div_ceil(tile));
        let algorithm = match options.algorithm {
            _ if shape.exact => Algorithm::Sequential,
            Some(algorithm) => algorithm,
            // March reads memory once; it is the better one unless workers would stand idle.
            None if chains % workers == 0 || chains >= 4 * workers => Algorithm::March,
            None => Algorithm::Chunked,
        };
        if algorithm != Algorithm::Chunked {
            workers = workers.min(chains.max(1));
        }
        let width = tile.min(channels);
        let chunk_bytes = CHUNK * width * problem.dtype().size() as usize * shape.summed as usize;
        // Two stages of a row at least, of each of the four gradients.
        let stage_bytes = 2 * STAGE_BYTES.max(4 * width * problem.accumulator().size() as usize);
        Ok(Self {
            grid,
            algorithm,
            workers,
            stream: stream::AVAILABLE
                && bytes(shape.outputs, problem.elements(), problem.dtype()) >= STREAM_FROM_BYTES,
            sequences,
            channels,
            tile,
            group: (GROUP_BYTES / chunk_bytes.max(1)).clamp(1, CHUNK),
            history_rows: if shape.backward { CHUNK + 1 } else { 0 },
            stage_bytes,
            own_states: shape.own_states,
        })
    }

    pub(crate) fn chunked(&self) -> bool {
        self.algorithm == Algorithm::Chunked
    }

    pub(crate) fn own_states(&self) -> bool {
        self.own_states
    }

    pub(crate) fn exact(&self) -> bool {
        self.algorithm == Algorithm::Sequential
    }

    /// Chunks a group: one, where no walk is chunked.
    pub(crate) fn group(&self) -> usize {
        if self.chunked_somewhere() { self.group } else { 1 }
    }

    /// The carry-only walk that fills a workspace's states goes through groups, whatever the algorithm.
    fn chunked_somewhere(&self) -> bool {
        self.algorithm == Algorithm::Chunked || self.own_states
    }

    pub(crate) fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        self.grid.regions(self.sequences, self.channels, self.tile)
    }

    /// Rows of outputs that are staged at once.
    pub(crate) fn staged_rows(&self, row_bytes: usize) -> usize {
        (self.stage_bytes / 2 / row_bytes.max(1)).clamp(1, CHUNK)
    }

    /// Cuts the workspace for a region.
    pub(crate) fn carve<T>(&self, region: &Region, arena: &mut Arena) -> Workspace<T> {
        let pitch = region.padded_width();
        let relay = Relay::carve(if self.chunked_somewhere() { region.chains() } else { 0 }, pitch, arena);
        let chunks =
            self.grid.first_chunk(region.sequences.end) - self.grid.first_chunk(region.sequences.start);
        let states = if self.own_states { chunks.saturating_mul(region.channels.len()) } else { 0 };
        let states = arena.take(states);
        let size = ScratchSize {
            pitch,
            group: self.group(),
            history_rows: self.history_rows,
            stage_bytes: self.stage_bytes,
        };
        let scratch = (0..self.workers).map(|_| Scratch::carve(&size, arena)).collect();
        Workspace { relay, states, scratch }
    }

    /// The most that any region takes.
    fn workspace_bytes<T>(&self) -> Result<u64, PlanError> {
        // No region is larger than the first, unless packed sequences differ in length.
        let regions = if self.grid.is_packed() { usize::MAX } else { 1 };
        let widest = self.grid.widest_regions(self.sequences, self.channels, self.tile);
        let bytes = widest.take(regions).map(|region| {
            let mut arena = Arena::measure();
            drop(self.carve::<T>(&region, &mut arena));
            arena.bytes().ok_or(PlanError::Overflow)
        });
        bytes.reduce(|a, b| Ok(a?.max(b?))).unwrap_or(Ok(0))
    }

    /// The report of a plan over this detail.
    pub(crate) fn report<O: Op>(
        &self,
        op: &O,
        saved: u64,
        bytes_read: u64,
        bytes_written: u64,
    ) -> Result<Report, PlanError> {
        let problem = op.problem();
        let workspace_bytes = match problem.accumulator() {
            DType::F64 => self.workspace_bytes::<f64>(),
            _ => self.workspace_bytes::<f32>(),
        }?;
        Ok(Report {
            backend: crate::NAME,
            op: O::NAME,
            shape: [problem.batch(), problem.len(), problem.channels()],
            dtype: problem.dtype(),
            checkpoint: problem.checkpoint(),
            algorithm: self.algorithm,
            chunk_len: CHUNK,
            chunks: self.grid.chunks() as u64,
            workspace_bytes,
            saved,
            bytes_read,
            bytes_written,
        })
    }
}

/// Accumulator elements that forward leaves behind.
pub(crate) fn saved_elements(problem: &GatedScan, grid: &Grid) -> u64 {
    match problem.checkpoint() {
        Checkpoint::Nothing => 0,
        Checkpoint::ChunkStates => grid.chunks() as u64 * problem.channels() as u64,
        Checkpoint::FullH => problem.elements(),
    }
}

/// Bytes of `tensors` tensors of `elements` each. A problem that no memory holds (D = 0 aside) saturates.
fn bytes(tensors: u64, elements: u64, dtype: DType) -> u64 {
    tensors.saturating_mul(elements).saturating_mul(dtype.size())
}

/// Bytes that forward or a step reads and writes, each tensor as often as it comes from beyond the caches.
pub(crate) fn forward_traffic(
    problem: &GatedScan,
    saved: u64,
    states_in: u64,
    states_out: u64,
) -> (u64, u64) {
    let inputs = 2 + u64::from(problem.has_b()) + u64::from(problem.has_c());
    let state = |n| bytes(n, problem.state_elements(), problem.accumulator());
    let read = bytes(inputs, problem.elements(), problem.dtype()).saturating_add(state(states_in));
    let written = bytes(1, problem.elements(), problem.out_dtype())
        .saturating_add(bytes(1, saved, problem.accumulator()))
        .saturating_add(state(states_out));
    (read, written)
}

/// The same for backward; `states` are those that it finds by itself.
pub(crate) fn backward_traffic(op: &ScanBackward, saved: u64, states: u64) -> (u64, u64) {
    let (problem, grads) = (op.problem(), op.grads());
    let full = |tensors| bytes(tensors, problem.elements(), problem.dtype());
    let acc = |elements| bytes(1, elements, problem.accumulator());
    let rerun = states > 0;
    let rebuild = problem.checkpoint() != Checkpoint::FullH && grads.need_h();
    let with_b = u64::from(problem.has_b());
    let inputs = 1 // a
        + u64::from(grads.b || rebuild)
        + with_b * u64::from(grads.x || rebuild)
        + u64::from(problem.has_c())
        + u64::from(rerun) * (2 + with_b);
    let history = if grads.need_h() { saved.saturating_add(states) } else { 0 };
    let h0 = if problem.has_initial_state() { problem.state_elements() } else { 0 };
    let dh0 = if grads.h0 { problem.state_elements() } else { 0 };
    let outputs = grads.tensors();
    let read = full(inputs)
        .saturating_add(bytes(1, problem.elements(), problem.out_dtype()))
        .saturating_add(acc(history))
        .saturating_add(acc(h0));
    (read, full(outputs).saturating_add(acc(dh0)).saturating_add(acc(states)))
}
