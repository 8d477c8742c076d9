//! Scans on slices: plan, allocate, run, return.

use ssm_core::{
    BackwardArgs, DType, Element, ForwardArgs, GatedScan, Kernel, Op, Plan, PlanError, PlanOptions,
    ProblemError, RunError, ScanBackward, ScanForward, ScanStep, StepArgs,
};

use crate::{CpuBackend, CpuMut, DeviceError};

/// What a call on slices can say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The problem makes no sense.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// The problem cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An operand does not fit.
    #[error(transparent)]
    Run(#[from] RunError<DeviceError>),
}

/// Inputs of a scan over storage type E: slices in (B, L, D) order, D contiguous; states are (N, D).
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, E: Element> {
    /// (B, L, D).
    pub x: &'a [E],
    /// (B, L, D).
    pub a: &'a [E],
    /// (B, L, D); none means b = 1.
    pub b: Option<&'a [E]>,
    /// (B, L, D); none means y = h.
    pub c: Option<&'a [E]>,
    /// (N, D); none means 0.
    pub h0: Option<&'a [E::Acc]>,
}

/// What forward returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward<E: Element, O> {
    /// (B, L, D).
    pub y: Vec<O>,
    /// hT (N, D); empty unless the problem asks for it.
    pub final_state: Vec<E::Acc>,
    /// What backward wants back; its size is the checkpoint policy's.
    pub saved: Vec<E::Acc>,
}

/// The gradients that were asked for; the others are empty.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is the gradient of the operand of that name")]
pub struct Gradients<E: Element> {
    pub x: Vec<E>,
    pub a: Vec<E>,
    pub b: Vec<E>,
    pub c: Vec<E>,
    pub h0: Vec<E::Acc>,
}

/// y, and what the problem asks for besides. The types are checked against the problem's.
///
/// # Errors
///
/// [`Error`] when an operand has the wrong type or length, is missing, or is not part of the problem.
pub fn forward<E: Element, O: Element>(
    backend: &CpuBackend,
    problem: &GatedScan,
    inputs: &Inputs<'_, E>,
) -> Result<Forward<E, O>, Error> {
    let plan = Kernel::<ScanForward>::plan(backend, &problem.forward(), &PlanOptions::default())?;
    let mut y = room::<O>(problem.elements());
    let mut final_state =
        room::<E::Acc>(if problem.wants_final_state() { problem.state_elements() } else { 0 });
    let mut saved = room::<E::Acc>(plan.report().saved);
    let args = ForwardArgs {
        x: inputs.x.into(),
        a: inputs.a.into(),
        b: inputs.b.map(Into::into),
        c: inputs.c.map(Into::into),
        h0: inputs.h0.map(Into::into),
        y: y.as_mut_slice().into(),
        final_state: problem.wants_final_state().then(|| final_state.as_mut_slice().into()),
        saved: (plan.report().saved > 0).then(|| saved.as_mut_slice().into()),
    };
    run(&plan, backend, args)?;
    Ok(Forward { y, final_state, saved })
}

/// The gradients that `op` asks for, from dy (B, L, D) and, where `op` has one, dhT (N, D).
///
/// # Errors
///
/// As [`forward`].
pub fn backward<E: Element, O: Element>(
    backend: &CpuBackend,
    op: &ScanBackward,
    inputs: &Inputs<'_, E>,
    saved: &[E::Acc],
    dy: &[O],
    d_final_state: Option<&[E::Acc]>,
) -> Result<Gradients<E>, Error> {
    let plan = Kernel::<ScanBackward>::plan(backend, op, &PlanOptions::default())?;
    let (problem, grads) = (op.problem(), op.grads());
    let full = |wanted| room::<E>(if wanted { problem.elements() } else { 0 });
    let (mut x, mut a, mut b, mut c) = (full(grads.x), full(grads.a), full(grads.b), full(grads.c));
    let mut h0 = room::<E::Acc>(if grads.h0 { problem.state_elements() } else { 0 });
    let args = BackwardArgs {
        x: inputs.x.into(),
        a: inputs.a.into(),
        b: inputs.b.map(Into::into),
        c: inputs.c.map(Into::into),
        h0: inputs.h0.map(Into::into),
        saved: (plan.report().saved > 0 || !saved.is_empty()).then(|| saved.into()),
        dy: dy.into(),
        d_final_state: d_final_state.map(Into::into),
        dx: grads.x.then(|| x.as_mut_slice().into()),
        da: grads.a.then(|| a.as_mut_slice().into()),
        db: grads.b.then(|| b.as_mut_slice().into()),
        dc: grads.c.then(|| c.as_mut_slice().into()),
        dh0: grads.h0.then(|| h0.as_mut_slice().into()),
    };
    run(&plan, backend, args)?;
    Ok(Gradients { x, a, b, c, h0 })
}

/// The next L tokens: y (B, L, D), and `state` (B, D) moved on in place.
///
/// # Errors
///
/// As [`forward`]; `inputs.h0` is not part of a step.
pub fn step<E: Element, O: Element>(
    backend: &CpuBackend,
    op: &ScanStep,
    inputs: &Inputs<'_, E>,
    state: &mut [E::Acc],
) -> Result<Vec<O>, Error> {
    let plan = Kernel::<ScanStep>::plan(backend, op, &PlanOptions::default())?;
    if inputs.h0.is_some() {
        let operand = ssm_core::Operand::H0;
        return Err(RunError::Bind(ssm_core::BindError::Unexpected { operand }).into());
    }
    let mut y = room::<O>(op.problem().elements());
    let args = StepArgs {
        x: inputs.x.into(),
        a: inputs.a.into(),
        b: inputs.b.map(Into::into),
        c: inputs.c.map(Into::into),
        y: y.as_mut_slice().into(),
        state: state.into(),
    };
    run(&plan, backend, args)?;
    Ok(y)
}

/// A problem fits the address space, so the count fits a usize.
fn room<T: Element>(elements: u64) -> Vec<T> {
    vec![T::default(); elements as usize]
}

fn run<O: Op>(
    plan: &Plan<O, CpuBackend>,
    backend: &CpuBackend,
    args: O::Args<'_, CpuBackend>,
) -> Result<(), RunError<DeviceError>>
where
    CpuBackend: Kernel<O>,
{
    let mut workspace = vec![0u64; plan.report().workspace_bytes.div_ceil(DType::F64.size()) as usize];
    let bytes = size_of_val(workspace.as_slice());
    // SAFETY: the vector is that large, lives beyond the call, and any bits are a u8 or wider element.
    let view = unsafe { CpuMut::from_raw(workspace.as_mut_ptr().cast(), bytes / 8, DType::F64) };
    plan.run(backend, args, Some(view), ())
}
