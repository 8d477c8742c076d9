//! The backend's cells of the table ops × backends.

use std::sync::Arc;

use ssm_core::{
    Algorithm, Backend, Bound, BoundParts, Checkpoint, DType, GatedScan, Kernel, Op, Operand, Plan,
    PlanError, PlanOptions, Report, ScanBackward, ScanForward, ScanStep,
};
use wgpu::{CommandEncoder, Features};

use crate::dispatch::Schedule;
use crate::grid::{DeviceLimits, Grid, group_len, rows_that_fit};
use crate::view::{WgpuMut, WgpuRef};
use crate::{WgpuBackend, WgpuError, passes};

/// What a plan launches.
#[derive(Clone, Debug)]
pub struct ScanDetail {
    schedule: Arc<Schedule>,
}

impl Backend for WgpuBackend {
    const NAME: &'static str = "wgpu";
    type Ref<'a> = WgpuRef<'a>;
    type Mut<'a> = WgpuMut<'a>;
    type Queue<'q> = &'q mut CommandEncoder;
    type Error = WgpuError;
}

impl WgpuBackend {
    /// Whether the device has the storage type.
    pub fn supports(&self, dtype: DType) -> bool {
        match dtype {
            DType::F32 | DType::Bf16 => true,
            DType::F16 => self.device().features().contains(Features::SHADER_F16),
            DType::F64 => false,
        }
    }

    fn admit(&self, problem: &GatedScan, has_states: bool) -> Result<(), PlanError> {
        for dtype in [problem.dtype(), problem.out_dtype()] {
            if !self.supports(dtype) {
                return Err(PlanError::UnsupportedType { backend: Self::NAME, dtype });
            }
        }
        // An operand lies in one buffer, however its bindings are cut.
        let (elements, states) = (problem.elements(), problem.state_elements());
        self.fits(Operand::X, elements, problem.dtype())?;
        self.fits(Operand::Y, elements, problem.out_dtype())?;
        self.fits(Operand::H0, if has_states { states } else { 0 }, DType::F32)?;
        // Steps are counted in 32 bits on the device, with room to round up to a group.
        let limit = u64::from(u32::MAX >> 1);
        let steps = problem.len() as u64;
        if steps > limit {
            let (operand, size) = (Operand::X, problem.dtype().size());
            let (needed, limit) = (steps.saturating_mul(size), limit * size);
            return Err(PlanError::TooLargeForDevice { backend: Self::NAME, operand, needed, limit });
        }
        Ok(())
    }

    /// Whether a buffer can be so large.
    fn fits(&self, operand: Operand, elements: u64, dtype: DType) -> Result<(), PlanError> {
        let (needed, limit) = (elements.saturating_mul(dtype.size()), self.limits().buffer);
        if needed > limit {
            return Err(PlanError::TooLargeForDevice { backend: Self::NAME, operand, needed, limit });
        }
        Ok(())
    }

    /// The march where rows and channels fill the device, or where there is no time to split.
    fn choose(
        &self,
        problem: &GatedScan,
        limits: &DeviceLimits,
        options: &PlanOptions,
    ) -> Result<Algorithm, PlanError> {
        let channels = problem.channels().max(1) as u64;
        let group = group_len(problem.len());
        let splits = rows_that_fit(limits.binding, Grid::widest(problem), channels, channels) >= group;
        match options.algorithm {
            Some(Algorithm::Chunked) if !splits => {
                let algorithm = Algorithm::Chunked;
                return Err(PlanError::UnsupportedAlgorithm { backend: Self::NAME, algorithm });
            }
            Some(algorithm) => return Ok(algorithm),
            None => {}
        }
        let lanes = problem.state_elements() / (4 / problem.dtype().size()).max(1);
        // A processor has few lanes to fill, and pays for every byte read again.
        let enough = if self.is_software() { 64 } else { MARCH_LANES };
        let longest = match problem.cu_seqlens() {
            Some(cu) => cu.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0),
            None => problem.len(),
        };
        let march = !splits || lanes >= enough || longest as u64 <= group;
        Ok(if march { Algorithm::March } else { Algorithm::Chunked })
    }

    fn report<O: Op>(
        &self,
        op: &O,
        algorithm: Algorithm,
        grid: Option<&Grid>,
        schedule: &Schedule,
        saved: u64,
    ) -> Result<Report, PlanError> {
        self.fits(Operand::Workspace, schedule.workspace, DType::F32)?;
        self.fits(Operand::Saved, saved, DType::F32)?;
        let p = op.problem();
        let chunk_len = group_len(p.len());
        let groups = grid.map_or(0, |g| g.groups_before(g.sequences));
        Ok(Report {
            backend: Self::NAME,
            op: O::NAME,
            shape: [p.batch(), p.len(), p.channels()],
            dtype: p.dtype(),
            checkpoint: p.checkpoint(),
            algorithm,
            chunk_len: chunk_len as usize,
            chunks: groups,
            workspace_bytes: schedule.workspace * DType::F32.size(),
            saved,
            bytes_read: schedule.bytes_read,
            bytes_written: schedule.bytes_written,
        })
    }
}

/// Lanes from which on a march keeps enough loads in flight.
const MARCH_LANES: u64 = 8192;

/// Accumulator elements that forward leaves for backward.
fn saved_elements(problem: &GatedScan, grid: Option<&Grid>) -> u64 {
    let Some(grid) = grid else { return 0 };
    match problem.checkpoint() {
        Checkpoint::Nothing => 0,
        Checkpoint::ChunkStates => grid.chunks_before(grid.sequences) * grid.channels,
        Checkpoint::FullH => problem.elements(),
    }
}

fn has_states(problem: &GatedScan) -> bool {
    problem.has_initial_state() || problem.wants_final_state()
}

/// A problem without a channel has no grid, and nothing to do.
fn grid_of(problem: &GatedScan, limits: &DeviceLimits) -> Option<Grid> {
    (problem.channels() > 0).then(|| Grid::new(problem, limits))
}

fn mut_ref<'a>(view: &Option<WgpuMut<'a>>) -> Option<WgpuRef<'a>> {
    view.as_ref().map(WgpuMut::as_ref)
}

impl Kernel<ScanForward> for WgpuBackend {
    type Detail = ScanDetail;

    fn plan(&self, op: &ScanForward, options: &PlanOptions) -> Result<Plan<ScanForward, Self>, PlanError> {
        let (problem, limits) = (op.problem(), self.limits());
        self.admit(problem, has_states(problem))?;
        let algorithm = self.choose(problem, &limits, options)?;
        let grid = grid_of(problem, &limits);
        let schedule = grid.as_ref().map(|g| passes::forward(problem, g, &limits, algorithm, false));
        let schedule = schedule.unwrap_or_default();
        let saved = saved_elements(problem, grid.as_ref());
        let report = self.report(op, algorithm, grid.as_ref(), &schedule, saved)?;
        Ok(Plan::new(op.clone(), report, ScanDetail { schedule: Arc::new(schedule) }))
    }

    fn launch(
        &self,
        call: Bound<'_, '_, ScanForward, Self>,
        queue: &mut CommandEncoder,
    ) -> Result<(), WgpuError> {
        let BoundParts { plan, args, workspace } = call.into_parts();
        let operands = |operand| match operand {
            Operand::X => Some(args.x),
            Operand::A => Some(args.a),
            Operand::B => args.b,
            Operand::C => args.c,
            Operand::H0 => args.h0,
            Operand::Y => Some(args.y.as_ref()),
            Operand::FinalState => mut_ref(&args.final_state),
            Operand::Saved => mut_ref(&args.saved),
            _ => mut_ref(&workspace),
        };
        self.encode(&plan.detail().schedule, &operands, queue)
    }
}

impl Kernel<ScanBackward> for WgpuBackend {
    type Detail = ScanDetail;

    fn plan(&self, op: &ScanBackward, options: &PlanOptions) -> Result<Plan<ScanBackward, Self>, PlanError> {
        let (problem, limits) = (op.problem(), self.limits());
        self.admit(problem, has_states(problem))?;
        let algorithm = self.choose(problem, &limits, options)?;
        let grid = grid_of(problem, &limits);
        let schedule = grid.as_ref().map(|g| passes::backward(op, g, &limits, algorithm)).unwrap_or_default();
        let saved = saved_elements(problem, grid.as_ref());
        let report = self.report(op, algorithm, grid.as_ref(), &schedule, saved)?;
        Ok(Plan::new(op.clone(), report, ScanDetail { schedule: Arc::new(schedule) }))
    }

    fn launch(
        &self,
        call: Bound<'_, '_, ScanBackward, Self>,
        queue: &mut CommandEncoder,
    ) -> Result<(), WgpuError> {
        let BoundParts { plan, args, workspace } = call.into_parts();
        let operands = |operand| match operand {
            Operand::X => Some(args.x),
            Operand::A => Some(args.a),
            Operand::B => args.b,
            Operand::C => args.c,
            Operand::H0 => args.h0,
            Operand::Saved => args.saved,
            Operand::Dy => Some(args.dy),
            Operand::DFinalState => args.d_final_state,
            Operand::Dx => mut_ref(&args.dx),
            Operand::Da => mut_ref(&args.da),
            Operand::Db => mut_ref(&args.db),
            Operand::Dc => mut_ref(&args.dc),
            Operand::Dh0 => mut_ref(&args.dh0),
            _ => mut_ref(&workspace),
        };
        self.encode(&plan.detail().schedule, &operands, queue)
    }
}

impl Kernel<ScanStep> for WgpuBackend {
    type Detail = ScanDetail;

    fn plan(&self, op: &ScanStep, options: &PlanOptions) -> Result<Plan<ScanStep, Self>, PlanError> {
        let (problem, limits) = (op.problem(), self.limits());
        self.admit(problem, true)?;
        let algorithm = self.choose(problem, &limits, options)?;
        let grid = grid_of(problem, &limits);
        let schedule = grid.as_ref().map(|g| passes::forward(problem, g, &limits, algorithm, true));
        let schedule = schedule.unwrap_or_default();
        let report = self.report(op, algorithm, grid.as_ref(), &schedule, 0)?;
        Ok(Plan::new(op.clone(), report, ScanDetail { schedule: Arc::new(schedule) }))
    }

    fn launch(
        &self,
        call: Bound<'_, '_, ScanStep, Self>,
        queue: &mut CommandEncoder,
    ) -> Result<(), WgpuError> {
        let BoundParts { plan, args, workspace } = call.into_parts();
        let operands = |operand| match operand {
            Operand::X => Some(args.x),
            Operand::A => Some(args.a),
            Operand::B => args.b,
            Operand::C => args.c,
            Operand::Y => Some(args.y.as_ref()),
            Operand::State => Some(args.state.as_ref()),
            _ => mut_ref(&workspace),
        };
        self.encode(&plan.detail().schedule, &operands, queue)
    }
}
