//! The ops on this backend: from a bound call to launches on the caller's stream.
//!
//! Nothing here allocates, waits or copies from host memory, so that a launch can be captured in a graph: offsets of
//! packed sequences travel in kernel parameters, the rest is pointers.

use ssm_core::{
    BackwardArgs, Bound, BoundParts, Checkpoint, ForwardArgs, GatedScan, Kernel, Op, Operand, Plan,
    PlanError, PlanOptions, Report, ScanBackward, ScanForward, ScanStep, StepArgs,
};

use crate::kernels::{Entry, Walk};
use crate::launch::Launcher;
use crate::params::{self, access, type_tag};
use crate::plan::{self, Detail, Pass};
use crate::view::pointer;
use crate::{CudaBackend, CudaError, CudaQueue, DeviceLimits};

/// An op that this backend runs.
pub trait CudaOp: Op {
    #[doc(hidden)]
    fn plan_on(&self, limits: &DeviceLimits, options: &PlanOptions) -> Result<(Report, Detail), PlanError>;

    #[doc(hidden)]
    fn enqueue(parts: &BoundParts<'_, '_, Self, CudaBackend>, on: &Launcher<'_>) -> Result<(), CudaError>;
}

impl<O: CudaOp> Kernel<O> for CudaBackend {
    type Detail = Detail;

    fn plan(&self, op: &O, options: &PlanOptions) -> Result<Plan<O, Self>, PlanError> {
        let (report, detail) = op.plan_on(self.limits(), options)?;
        Ok(Plan::new(op.clone(), report, detail))
    }

    fn launch<'q>(&self, call: Bound<'_, '_, O, Self>, queue: CudaQueue<'q>) -> Result<(), CudaError> {
        let stream = queue.stream(self.context_id())?;
        self.context().bind_to_thread()?;
        // The parts outlive the launches: their views record on the stream that the memory is in use.
        let parts = call.into_parts();
        O::enqueue(&parts, &Launcher::new(self.kernels(), stream))
    }
}

impl DeviceLimits {
    /// What a plan would report on a device with these limits; needs no device.
    ///
    /// # Errors
    ///
    /// [`PlanError`] as from [`Kernel::plan`].
    pub fn report<O: CudaOp>(&self, op: &O, options: &PlanOptions) -> Result<Report, PlanError> {
        Ok(op.plan_on(self, options)?.0)
    }
}

/// The sequences of one launch, and how far into each operand they begin.
#[derive(Clone, Copy)]
struct Tile {
    first: u64,
    count: u64,
    /// Elements of a (B, L, D) operand.
    full: u64,
    /// Elements of an (N, D) operand.
    state: u64,
}

impl Tile {
    fn all(problem: &GatedScan, detail: &Detail) -> impl Iterator<Item = Self> {
        let channels = problem.channels() as u64;
        let sequences = if channels == 0 { 0 } else { problem.sequences() as u64 };
        let full = if problem.cu_seqlens().is_some() { 0 } else { problem.len() as u64 * channels };
        let tile = detail.tile.max(1);
        (0..sequences.div_ceil(tile)).map(move |i| {
            let first = i * tile;
            let count = tile.min(sequences - first);
            Self { first, count, full: first * full, state: first * channels }
        })
    }
}

/// An address so many elements further on; absent stays absent.
fn shift(address: u64, elements: u64, size: u64) -> u64 {
    if address == 0 { 0 } else { address + elements * size }
}

/// What the parameter blocks of forward and backward have in common.
struct Common<'a> {
    problem: &'a GatedScan,
    detail: &'a Detail,
    workspace: u64,
    /// Bytes a (B, L, D) element.
    size: u64,
    out: u64,
}

impl<'a> Common<'a> {
    fn new(problem: &'a GatedScan, detail: &'a Detail, workspace: u64) -> Self {
        Self { problem, detail, workspace, size: problem.dtype().size(), out: problem.out_dtype().size() }
    }

    fn access(&self, addresses: &[u64]) -> u32 {
        access(
            addresses.iter().fold(self.problem.channels() as u64 * self.size, |bits, address| bits | address),
        )
    }

    fn out_access(&self, address: u64) -> u32 {
        access((self.problem.channels() as u64 * self.out) | address)
    }

    fn out_type(&self) -> u32 {
        type_tag(self.problem.out_dtype()).unwrap_or(0)
    }

    fn flags(&self, pass: &Pass, full_h: bool) -> u32 {
        let flag = |set, bit| if set { bit } else { 0 };
        flag(self.problem.is_reverse(), params::REVERSE)
            | flag(self.problem.cu_seqlens().is_some(), params::PACKED)
            | flag(pass.sequential, params::SEQUENTIAL)
            | flag(full_h, params::FULL_H)
    }

    fn cu(&self, tile: &Tile) -> u64 {
        self.problem.cu_seqlens().map_or(0, |_| self.workspace + self.detail.workspace.cu + tile.first * 8)
    }

    fn work(&self, pass: &Pass) -> u64 {
        if pass.work_bytes > 0 { self.workspace + self.detail.workspace.work } else { 0 }
    }

    /// Saved states that the caller holds, from this tile on.
    fn saved(&self, saved: u64, tile: &Tile) -> u64 {
        shift(saved, tile.first * self.detail.saved_stride, 4)
    }

    /// Saved states in the workspace, from this tile on: those of packed sequences lie side by side, others are used
    /// by one tile after the other.
    fn states(&self, tile: &Tile) -> u64 {
        let first = if self.problem.cu_seqlens().is_some() { tile.first } else { 0 };
        self.workspace + self.detail.workspace.states + first * self.detail.saved_stride * 4
    }

    /// Blocks, threads and shared memory of a pass over a tile.
    fn grid(&self, pass: &Pass, tile: &Tile) -> (u64, u32, u32) {
        let columns = (self.problem.channels() as u64).div_ceil(pass.lanes);
        let packed = self.problem.cu_seqlens().is_some();
        let rows = match pass.entry {
            Entry::Scan { walk: Walk::Chunked, .. } if packed => 1,
            _ => tile.count,
        };
        (rows * columns * u64::from(pass.workers), pass.threads, pass.shared)
    }

    /// The batch that a launch sees: a packed one is one row, whatever the sequences.
    fn batch(&self, tile: &Tile) -> u64 {
        if self.problem.cu_seqlens().is_some() { 1 } else { tile.count }
    }

    /// Offsets of packed sequences to the workspace.
    fn put_offsets(&self, on: &Launcher<'_>) -> Result<(), CudaError> {
        let mut rest = self.problem.cu_seqlens().unwrap_or_default();
        let mut to = self.workspace + self.detail.workspace.cu;
        while let Some(&base) = rest.first() {
            let mut offsets = [0; params::PUT_MAX];
            let mut count = 0;
            for (slot, value) in offsets.iter_mut().zip(rest) {
                let Ok(offset) = u32::try_from(value - base) else { break };
                *slot = offset;
                count += 1;
            }
            let block = params::ScanPut { to, base: base as u64, count: count as u32, pad: 0, offsets };
            // SAFETY: the plan's workspace has room for every offset from `to` on.
            unsafe { on.kernel(Entry::Put, (1, 256, 0), &block)? };
            rest = &rest[count..];
            to += count as u64 * 8;
        }
        Ok(())
    }

    /// Zeroes what belongs to no sequence.
    fn clear_slack(&self, on: &Launcher<'_>, outputs: &[(u64, u64)]) -> Result<(), CudaError> {
        let Some(&end) = self.problem.cu_seqlens().and_then(<[usize]>::last) else { return Ok(()) };
        let channels = self.problem.channels() as u64;
        let (start, elements) = (end as u64 * channels, (self.problem.len() - end) as u64 * channels);
        for &(address, size) in outputs.iter().filter(|(address, _)| *address != 0) {
            // SAFETY: the bound call checked that the output has len × channels elements of this size.
            unsafe { on.fill(address + start * size, 0, elements * size)? };
        }
        Ok(())
    }

    fn prepare(&self, on: &Launcher<'_>, pass: &Pass) -> Result<(), CudaError> {
        // SAFETY: the plan's workspace holds the work area.
        unsafe { on.fill(self.work(pass), 0xff, pass.work_bytes) }
    }
}

impl CudaOp for ScanForward {
    fn plan_on(&self, limits: &DeviceLimits, options: &PlanOptions) -> Result<(Report, Detail), PlanError> {
        plan::forward(self, limits, options)
    }

    fn enqueue(parts: &BoundParts<'_, '_, Self, CudaBackend>, on: &Launcher<'_>) -> Result<(), CudaError> {
        let BoundParts { plan, args, workspace } = parts;
        let (p, detail, stream) = (plan.op().problem(), plan.detail(), on.stream());
        let ForwardArgs { x, a, b, c, h0, y, final_state, saved } = args;
        let x = pointer(Some(&x.0), stream, Operand::X)?;
        let a = pointer(Some(&a.0), stream, Operand::A)?;
        let b = pointer(b.as_ref().map(|v| &v.0), stream, Operand::B)?;
        let c = pointer(c.as_ref().map(|v| &v.0), stream, Operand::C)?;
        let h0 = pointer(h0.as_ref().map(|v| &v.0), stream, Operand::H0)?;
        let y = pointer(Some(&y.0), stream, Operand::Y)?;
        let ht = pointer(final_state.as_ref().map(|v| &v.0), stream, Operand::FinalState)?;
        let saved = pointer(saved.as_ref().map(|v| &v.0), stream, Operand::Saved)?;
        let workspace = pointer(workspace.as_ref().map(|v| &v.0), stream, Operand::Workspace)?;
        let common = Common::new(p, detail, workspace);
        let full_h = p.checkpoint() == Checkpoint::FullH;
        common.clear_slack(on, &[(y, common.out), (if full_h { saved } else { 0 }, 4)])?;
        common.put_offsets(on)?;
        let (access, out_access) = (common.access(&[x, a, b, c]), common.out_access(y));
        let pass = detail.pass.pick(access.min(out_access));
        for tile in Tile::all(p, detail) {
            common.prepare(on, pass)?;
            let full = |address| shift(address, tile.full, common.size);
            let block = params::ScanForward {
                x: full(x),
                a: full(a),
                b: full(b),
                c: full(c),
                h0: shift(h0, tile.state, 4),
                y: shift(y, tile.full, common.out),
                ht: shift(ht, tile.state, 4),
                saved: common.saved(saved, &tile),
                cu: common.cu(&tile),
                work: common.work(pass),
                batch: common.batch(&tile),
                len: p.len() as u64,
                channels: p.channels() as u64,
                sequences: tile.count,
                flags: common.flags(pass, full_h),
                access,
                out_access,
                out_type: common.out_type(),
                workers: pass.workers,
                stages: pass.stages,
            };
            // SAFETY: the bound call checked each operand's type, length and device; the plan sized the rest.
            unsafe { on.kernel(pass.entry, common.grid(pass, &tile), &block)? };
        }
        Ok(())
    }
}

impl CudaOp for ScanBackward {
    fn plan_on(&self, limits: &DeviceLimits, options: &PlanOptions) -> Result<(Report, Detail), PlanError> {
        plan::backward(self, limits, options)
    }

    fn enqueue(parts: &BoundParts<'_, '_, Self, CudaBackend>, on: &Launcher<'_>) -> Result<(), CudaError> {
        let BoundParts { plan, args, workspace } = parts;
        let (op, detail, stream) = (plan.op(), plan.detail(), on.stream());
        let p = op.problem();
        let BackwardArgs { x, a, b, c, h0, saved, dy, d_final_state, dx, da, db, dc, dh0 } = args;
        let x = pointer(Some(&x.0), stream, Operand::X)?;
        let a = pointer(Some(&a.0), stream, Operand::A)?;
        let b = pointer(b.as_ref().map(|v| &v.0), stream, Operand::B)?;
        let c = pointer(c.as_ref().map(|v| &v.0), stream, Operand::C)?;
        let h0 = pointer(h0.as_ref().map(|v| &v.0), stream, Operand::H0)?;
        let saved = pointer(saved.as_ref().map(|v| &v.0), stream, Operand::Saved)?;
        let dy = pointer(Some(&dy.0), stream, Operand::Dy)?;
        let dht = pointer(d_final_state.as_ref().map(|v| &v.0), stream, Operand::DFinalState)?;
        let dx = pointer(dx.as_ref().map(|v| &v.0), stream, Operand::Dx)?;
        let da = pointer(da.as_ref().map(|v| &v.0), stream, Operand::Da)?;
        let db = pointer(db.as_ref().map(|v| &v.0), stream, Operand::Db)?;
        let dc = pointer(dc.as_ref().map(|v| &v.0), stream, Operand::Dc)?;
        let dh0 = pointer(dh0.as_ref().map(|v| &v.0), stream, Operand::Dh0)?;
        let workspace = pointer(workspace.as_ref().map(|v| &v.0), stream, Operand::Workspace)?;
        let common = Common::new(p, detail, workspace);
        common.clear_slack(on, &[dx, da, db, dc].map(|address| (address, common.size)))?;
        if op.grads() == ssm_core::Grads::default() {
            return Ok(());
        }
        common.put_offsets(on)?;
        let (access, out_access) = (common.access(&[x, a, b, c, dx, da, db, dc]), common.out_access(dy));
        let pass = detail.pass.pick(access.min(out_access));
        for tile in Tile::all(p, detail) {
            let full = |address| shift(address, tile.full, common.size);
            let state = |address| shift(address, tile.state, 4);
            let mut states = common.saved(saved, &tile);
            if let Some(carry) = &detail.carry {
                states = common.states(&tile);
                let carry = carry.pick(access);
                common.prepare(on, carry)?;
                let block = params::ScanForward {
                    x: full(x),
                    a: full(a),
                    b: full(b),
                    h0: state(h0),
                    saved: states,
                    cu: common.cu(&tile),
                    work: common.work(carry),
                    batch: common.batch(&tile),
                    len: p.len() as u64,
                    channels: p.channels() as u64,
                    sequences: tile.count,
                    flags: common.flags(carry, false),
                    access,
                    out_access: 16,
                    out_type: common.out_type(),
                    workers: carry.workers,
                    stages: carry.stages,
                    ..Default::default()
                };
                // SAFETY: as below; the plan's workspace holds the states of a tile.
                unsafe { on.kernel(carry.entry, common.grid(carry, &tile), &block)? };
            }
            common.prepare(on, pass)?;
            let block = params::ScanBackward {
                x: full(x),
                a: full(a),
                b: full(b),
                c: full(c),
                h0: state(h0),
                saved: states,
                dy: shift(dy, tile.full, common.out),
                dht: state(dht),
                dx: full(dx),
                da: full(da),
                db: full(db),
                dc: full(dc),
                dh0: state(dh0),
                cu: common.cu(&tile),
                work: common.work(pass),
                batch: common.batch(&tile),
                len: p.len() as u64,
                channels: p.channels() as u64,
                sequences: tile.count,
                flags: common.flags(pass, p.checkpoint() == Checkpoint::FullH),
                access,
                out_access,
                out_type: common.out_type(),
                workers: pass.workers,
                stages: pass.stages,
            };
            // SAFETY: the bound call checked each operand's type, length and device; the plan sized the rest.
            unsafe { on.kernel(pass.entry, common.grid(pass, &tile), &block)? };
        }
        Ok(())
    }
}

impl CudaOp for ScanStep {
    fn plan_on(&self, limits: &DeviceLimits, options: &PlanOptions) -> Result<(Report, Detail), PlanError> {
        plan::step(self, limits, options)
    }

    fn enqueue(parts: &BoundParts<'_, '_, Self, CudaBackend>, on: &Launcher<'_>) -> Result<(), CudaError> {
        let BoundParts { plan, args, .. } = parts;
        let (p, detail, stream) = (plan.op().problem(), plan.detail(), on.stream());
        let StepArgs { x, a, b, c, y, state } = args;
        let x = pointer(Some(&x.0), stream, Operand::X)?;
        let a = pointer(Some(&a.0), stream, Operand::A)?;
        let b = pointer(b.as_ref().map(|v| &v.0), stream, Operand::B)?;
        let c = pointer(c.as_ref().map(|v| &v.0), stream, Operand::C)?;
        let y = pointer(Some(&y.0), stream, Operand::Y)?;
        let state = pointer(Some(&state.0), stream, Operand::State)?;
        let common = Common::new(p, detail, 0);
        for tile in Tile::all(p, detail) {
            let full = |address| shift(address, tile.full, common.size);
            let block = params::ScanStep {
                x: full(x),
                a: full(a),
                b: full(b),
                c: full(c),
                y: shift(y, tile.full, common.out),
                state: shift(state, tile.state, 4),
                batch: tile.count,
                len: p.len() as u64,
                channels: p.channels() as u64,
                out_type: common.out_type(),
                pad: 0,
            };
            let blocks = (tile.count * p.channels() as u64).div_ceil(plan::STEP_THREADS);
            // SAFETY: the bound call checked each operand's type, length and device.
            unsafe { on.kernel(detail.pass.wide.entry, (blocks, detail.pass.wide.threads, 0), &block)? };
        }
        Ok(())
    }
}
