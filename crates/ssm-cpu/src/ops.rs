//! The three ops: how each is planned, and how a bound call becomes a launch.

use ssm_core::{
    Algorithm, Bound, BoundParts, Checkpoint, Element, Kernel, Op, Plan, PlanError, PlanOptions,
    ScanBackward, ScanForward, ScanStep,
};

use crate::backend::{CpuBackend, DeviceError};
use crate::grid::Tensor;
use crate::kernel::Storage;
use crate::plan::{Detail, Shape, backward_traffic, forward_traffic, saved_elements};
use crate::scan_backward::Backward;
use crate::scan_forward::{Forward, Keep, Operands};
use crate::types::with_types;
use crate::{CpuMut, CpuRef};

impl Kernel<ScanForward> for CpuBackend {
    type Detail = Detail;

    fn plan(&self, op: &ScanForward, options: &PlanOptions) -> Result<Plan<ScanForward, Self>, PlanError> {
        let problem = op.problem();
        let shape = Shape {
            summed: 2 + u64::from(problem.has_b()),
            outputs: 1,
            backward: false,
            exact: false,
            own_states: false,
        };
        let detail = Detail::new(problem, options, self.threads().count(), &shape)?;
        let saved = saved_elements(problem, &detail.grid);
        let (h0, last) = (problem.has_initial_state(), problem.wants_final_state());
        let (read, written) = forward_traffic(problem, saved, u64::from(h0), u64::from(last));
        let report = detail.report(op, saved, read, written)?;
        Ok(Plan::new(op.clone(), report, detail))
    }

    fn launch(&self, call: Bound<'_, '_, ScanForward, Self>, (): ()) -> Result<(), DeviceError> {
        let parts = call.into_parts();
        with_types!(parts.plan.op(), |E, O| launch_forward::<E, O>(self, parts));
        Ok(())
    }
}

fn launch_forward<E: Storage, O: Storage<Acc = E::Acc>>(
    backend: &CpuBackend,
    parts: BoundParts<'_, '_, ScanForward, CpuBackend>,
) {
    let BoundParts { plan, mut args, mut workspace } = parts;
    let detail = plan.detail();
    let channels = detail.grid.channels;
    let forward = Forward::<E, O> {
        detail,
        level: backend.level(),
        operands: operands(&args.x, &args.a, args.b.as_ref(), args.c.as_ref(), channels),
        h0: state(args.h0.as_ref()),
        y: Tensor::new(args.y.as_mut_ptr(), channels),
        last: state_mut(args.final_state.as_mut()),
        keep: Keep::new(plan.report().checkpoint, state_mut(args.saved.as_mut()), channels),
    };
    // SAFETY: bind has checked every operand and the workspace against this plan.
    unsafe { forward.launch(&backend.threads(), bytes(workspace.as_mut())) };
}

impl Kernel<ScanBackward> for CpuBackend {
    type Detail = Detail;

    fn plan(&self, op: &ScanBackward, options: &PlanOptions) -> Result<Plan<ScanBackward, Self>, PlanError> {
        let (problem, grads) = (op.problem(), op.grads());
        let outputs = grads.tensors();
        let shape = Shape {
            summed: 2 + u64::from(problem.has_c()),
            outputs,
            backward: true,
            exact: false,
            own_states: problem.checkpoint() == Checkpoint::Nothing && grads.need_h(),
        };
        let detail = Detail::new(problem, options, self.threads().count(), &shape)?;
        let saved = saved_elements(problem, &detail.grid);
        let states =
            if shape.own_states { detail.grid.chunks() as u64 * problem.channels() as u64 } else { 0 };
        let (read, written) = backward_traffic(op, saved, states);
        let report = detail.report(op, saved, read, written)?;
        Ok(Plan::new(op.clone(), report, detail))
    }

    fn launch(&self, call: Bound<'_, '_, ScanBackward, Self>, (): ()) -> Result<(), DeviceError> {
        let parts = call.into_parts();
        with_types!(parts.plan.op(), |E, O| launch_backward::<E, O>(self, parts));
        Ok(())
    }
}

fn launch_backward<E: Storage, O: Storage<Acc = E::Acc>>(
    backend: &CpuBackend,
    parts: BoundParts<'_, '_, ScanBackward, CpuBackend>,
) {
    let BoundParts { plan, mut args, mut workspace } = parts;
    let detail = plan.detail();
    let channels = detail.grid.channels;
    let saved = state::<E::Acc>(args.saved.as_ref()).cast_mut();
    let backward = Backward::<E, O> {
        detail,
        level: backend.level(),
        grads: plan.op().grads(),
        operands: operands(&args.x, &args.a, args.b.as_ref(), args.c.as_ref(), channels),
        h0: state(args.h0.as_ref()),
        keep: Keep::new(plan.report().checkpoint, saved, channels),
        dy: input(Some(&args.dy), channels),
        d_last: state(args.d_final_state.as_ref()),
        dx: gradient(args.dx.as_mut(), channels),
        da: gradient(args.da.as_mut(), channels),
        db: gradient(args.db.as_mut(), channels),
        dc: gradient(args.dc.as_mut(), channels),
        dh0: state_mut(args.dh0.as_mut()),
    };
    // SAFETY: bind has checked every operand and the workspace against this plan.
    unsafe { backward.launch(&backend.threads(), bytes(workspace.as_mut())) };
}

impl Kernel<ScanStep> for CpuBackend {
    type Detail = Detail;

    fn plan(&self, op: &ScanStep, options: &PlanOptions) -> Result<Plan<ScanStep, Self>, PlanError> {
        if let Some(algorithm) = options.algorithm.filter(|a| *a != Algorithm::Sequential) {
            return Err(PlanError::UnsupportedAlgorithm { backend: crate::NAME, algorithm });
        }
        let problem = op.problem();
        let shape = Shape { summed: 0, outputs: 1, backward: false, exact: true, own_states: false };
        let detail = Detail::new(problem, options, self.threads().count(), &shape)?;
        let (read, written) = forward_traffic(problem, 0, 1, 1);
        let report = detail.report(op, 0, read, written)?;
        Ok(Plan::new(op.clone(), report, detail))
    }

    fn launch(&self, call: Bound<'_, '_, ScanStep, Self>, (): ()) -> Result<(), DeviceError> {
        let parts = call.into_parts();
        with_types!(parts.plan.op(), |E, O| launch_step::<E, O>(self, parts));
        Ok(())
    }
}

fn launch_step<E: Storage, O: Storage<Acc = E::Acc>>(
    backend: &CpuBackend,
    parts: BoundParts<'_, '_, ScanStep, CpuBackend>,
) {
    let BoundParts { plan, mut args, mut workspace } = parts;
    let detail = plan.detail();
    let channels = detail.grid.channels;
    // Each chain reads its part of the state before it writes it.
    let state = state_mut(Some(&mut args.state));
    let forward = Forward::<E, O> {
        detail,
        level: backend.level(),
        operands: operands(&args.x, &args.a, args.b.as_ref(), args.c.as_ref(), channels),
        h0: state,
        y: Tensor::new(args.y.as_mut_ptr(), channels),
        last: state,
        keep: Keep::Nothing,
    };
    // SAFETY: bind has checked every operand and the workspace against this plan.
    unsafe { forward.launch(&backend.threads(), bytes(workspace.as_mut())) };
}

fn operands<E: Storage>(
    x: &CpuRef<'_>,
    a: &CpuRef<'_>,
    b: Option<&CpuRef<'_>>,
    c: Option<&CpuRef<'_>>,
    channels: usize,
) -> Operands<E> {
    let [x, a, b, c] = [Some(x), Some(a), b, c].map(|view| input(view, channels));
    Operands { x, a, b, c }
}

/// A full-size input, or ones.
fn input<E: Storage>(view: Option<&CpuRef<'_>>, channels: usize) -> Tensor<E> {
    view.map_or(Tensor::constant(E::ONES.as_ptr()), |v| Tensor::new(v.as_ptr::<E>().cast_mut(), channels))
}

fn gradient<E: Element>(view: Option<&mut CpuMut<'_>>, channels: usize) -> Tensor<E> {
    view.map_or(Tensor::NONE, |v| Tensor::new(v.as_mut_ptr(), channels))
}

fn state<T: Element>(view: Option<&CpuRef<'_>>) -> *const T {
    view.map_or(std::ptr::null(), |v| v.as_ptr())
}

fn state_mut<T: Element>(view: Option<&mut CpuMut<'_>>) -> *mut T {
    view.map_or(std::ptr::null_mut(), |v| v.as_mut_ptr())
}

fn bytes(workspace: Option<&mut CpuMut<'_>>) -> *mut u8 {
    workspace.map_or(std::ptr::null_mut(), CpuMut::bytes)
}
