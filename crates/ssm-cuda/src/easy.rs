//! Scans on slices of host memory: plan, upload, run, download.
//!
//! For tests, tools and first steps: every call moves its operands over the bus and waits. Where tensors stay on the
//! device, plan once and launch on views.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DeviceRepr};
use half::{bf16, f16};
use ssm_core::{
    BackwardArgs, BindError, Element, ForwardArgs, GatedScan, Kernel, Op, Operand, Plan, PlanError,
    PlanOptions, ProblemError, RunError, ScanBackward, ScanStep, StepArgs,
};

use crate::{CudaBackend, CudaError, CudaMut, CudaOp, CudaRef};

/// An element type that the device computes on.
pub trait CudaElement: Element<Acc = f32> + DeviceRepr {}

impl CudaElement for f32 {}
impl CudaElement for f16 {}
impl CudaElement for bf16 {}

/// What a call on slices can say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The problem makes no sense.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// The problem cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An operand does not fit, or the launch failed.
    #[error(transparent)]
    Run(#[from] RunError<CudaError>),
    /// Memory, copies, or work that failed on the device.
    #[error(transparent)]
    Device(#[from] CudaError),
}

/// Inputs of a scan over storage type E: slices in (B, L, D) order, D contiguous; states are (N, D).
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, E: CudaElement> {
    /// (B, L, D).
    pub x: &'a [E],
    /// (B, L, D).
    pub a: &'a [E],
    /// (B, L, D); none means b = 1.
    pub b: Option<&'a [E]>,
    /// (B, L, D); none means y = h.
    pub c: Option<&'a [E]>,
    /// (N, D); none means 0.
    pub h0: Option<&'a [f32]>,
}

/// What forward returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward<O> {
    /// (B, L, D).
    pub y: Vec<O>,
    /// hT (N, D); empty unless the problem asks for it.
    pub final_state: Vec<f32>,
    /// What backward wants back; its size is the checkpoint policy's.
    pub saved: Vec<f32>,
}

/// The gradients that were asked for; the others are empty.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is the gradient of the operand of that name")]
pub struct Gradients<E> {
    pub x: Vec<E>,
    pub a: Vec<E>,
    pub b: Vec<E>,
    pub c: Vec<E>,
    pub h0: Vec<f32>,
}

/// y, and what the problem asks for besides. The types are checked against the problem's.
///
/// # Errors
///
/// [`Error`] when an operand has the wrong type or length, is missing, or is not part of the problem, or when the
/// device fails.
pub fn forward<E: CudaElement, O: CudaElement>(
    backend: &CudaBackend,
    problem: &GatedScan,
    inputs: &Inputs<'_, E>,
) -> Result<Forward<O>, Error> {
    let plan = backend.plan(&problem.forward(), &PlanOptions::default())?;
    let stream = backend.context().default_stream();
    let device = DeviceInputs::upload(&stream, inputs)?;
    let states = if problem.wants_final_state() { problem.state_elements() } else { 0 };
    let mut y = Buffer::<O>::room(&stream, problem.elements())?;
    let mut final_state = Buffer::<f32>::room(&stream, states)?;
    let mut saved = Buffer::<f32>::room(&stream, plan.report().saved)?;
    let mut workspace = workspace(&plan, &stream)?;
    let args = ForwardArgs {
        x: device.x.view(),
        a: device.a.view(),
        b: device.b.as_ref().map(Buffer::view),
        c: device.c.as_ref().map(Buffer::view),
        h0: device.h0.as_ref().map(Buffer::view),
        y: y.view_mut(),
        final_state: problem.wants_final_state().then(|| final_state.view_mut()),
        saved: (plan.report().saved > 0).then(|| saved.view_mut()),
    };
    plan.run(backend, args, Some(workspace.view_mut()), (&stream).into())?;
    Ok(Forward { y: y.download()?, final_state: final_state.download()?, saved: saved.download()? })
}

/// The gradients that `op` asks for, from dy (B, L, D) and, where `op` has one, dhT (N, D).
///
/// # Errors
///
/// As [`forward`].
pub fn backward<E: CudaElement, O: CudaElement>(
    backend: &CudaBackend,
    op: &ScanBackward,
    inputs: &Inputs<'_, E>,
    saved: &[f32],
    dy: &[O],
    d_final_state: Option<&[f32]>,
) -> Result<Gradients<E>, Error> {
    let plan = backend.plan(op, &PlanOptions::default())?;
    let (problem, grads) = (op.problem(), op.grads());
    let stream = backend.context().default_stream();
    let device = DeviceInputs::upload(&stream, inputs)?;
    let saved = Buffer::upload(&stream, saved)?;
    let dy = Buffer::upload(&stream, dy)?;
    let d_final_state = d_final_state.map(|d| Buffer::upload(&stream, d)).transpose()?;
    let full = |wanted| Buffer::<E>::room(&stream, if wanted { problem.elements() } else { 0 });
    let (mut x, mut a, mut b, mut c) = (full(grads.x)?, full(grads.a)?, full(grads.b)?, full(grads.c)?);
    let mut h0 = Buffer::<f32>::room(&stream, if grads.h0 { problem.state_elements() } else { 0 })?;
    let mut workspace = workspace(&plan, &stream)?;
    let args = BackwardArgs {
        x: device.x.view(),
        a: device.a.view(),
        b: device.b.as_ref().map(Buffer::view),
        c: device.c.as_ref().map(Buffer::view),
        h0: device.h0.as_ref().map(Buffer::view),
        saved: (plan.report().saved > 0 || saved.len > 0).then(|| saved.view()),
        dy: dy.view(),
        d_final_state: d_final_state.as_ref().map(Buffer::view),
        dx: grads.x.then(|| x.view_mut()),
        da: grads.a.then(|| a.view_mut()),
        db: grads.b.then(|| b.view_mut()),
        dc: grads.c.then(|| c.view_mut()),
        dh0: grads.h0.then(|| h0.view_mut()),
    };
    plan.run(backend, args, Some(workspace.view_mut()), (&stream).into())?;
    Ok(Gradients {
        x: x.download()?,
        a: a.download()?,
        b: b.download()?,
        c: c.download()?,
        h0: h0.download()?,
    })
}

/// The next L tokens: y (B, L, D), and `state` (B, D) moved on in place.
///
/// # Errors
///
/// As [`forward`]; `inputs.h0` is not part of a step. `state` is unchanged after an error.
pub fn step<E: CudaElement, O: CudaElement>(
    backend: &CudaBackend,
    op: &ScanStep,
    inputs: &Inputs<'_, E>,
    state: &mut [f32],
) -> Result<Vec<O>, Error> {
    let plan = backend.plan(op, &PlanOptions::default())?;
    if inputs.h0.is_some() {
        return Err(RunError::Bind(BindError::Unexpected { operand: Operand::H0 }).into());
    }
    let stream = backend.context().default_stream();
    let device = DeviceInputs::upload(&stream, inputs)?;
    let mut y = Buffer::<O>::room(&stream, op.problem().elements())?;
    let mut moved = Buffer::upload(&stream, state)?;
    let mut workspace = workspace(&plan, &stream)?;
    let args = StepArgs {
        x: device.x.view(),
        a: device.a.view(),
        b: device.b.as_ref().map(Buffer::view),
        c: device.c.as_ref().map(Buffer::view),
        y: y.view_mut(),
        state: moved.view_mut(),
    };
    plan.run(backend, args, Some(workspace.view_mut()), (&stream).into())?;
    let y = y.download()?;
    state.copy_from_slice(&moved.download()?);
    Ok(y)
}

fn workspace<O: CudaOp>(
    plan: &Plan<O, CudaBackend>,
    stream: &Arc<CudaStream>,
) -> Result<Buffer<f32>, CudaError> {
    Buffer::room(stream, plan.report().workspace_bytes.div_ceil(4))
}

/// Device memory of `len` elements. The driver has no empty allocation, so there is always room for one.
struct Buffer<T> {
    slice: CudaSlice<T>,
    len: usize,
    stream: Arc<CudaStream>,
}

impl<T: CudaElement> Buffer<T> {
    /// Memory that a launch writes before anything reads it.
    fn room(stream: &Arc<CudaStream>, len: u64) -> Result<Self, CudaError> {
        let len = usize::try_from(len).map_err(|_| CudaError::OutOfMemory)?;
        // SAFETY: any bits are a float, and what they are is of no matter to who only writes.
        let slice = unsafe { stream.alloc(len.max(1)) }?;
        Ok(Self { slice, len, stream: stream.clone() })
    }

    fn upload(stream: &Arc<CudaStream>, host: &[T]) -> Result<Self, CudaError> {
        let mut buffer = Self::room(stream, host.len() as u64)?;
        if !host.is_empty() {
            stream.memcpy_htod(host, &mut buffer.slice)?;
        }
        Ok(buffer)
    }

    fn view(&self) -> CudaRef<'_> {
        CudaRef::from_view(self.slice.slice(..self.len), &self.stream)
    }

    fn view_mut(&mut self) -> CudaMut<'_> {
        CudaMut::from_view(self.slice.slice_mut(..self.len), &self.stream)
    }

    /// The elements, after everything enqueued so far.
    fn download(&self) -> Result<Vec<T>, CudaError> {
        let mut host = vec![T::default(); self.len];
        if self.len > 0 {
            self.stream.memcpy_dtoh(&self.slice.slice(..self.len), &mut host)?;
        }
        // cudarc keeps what a wait inside the copy said; the next call returns it.
        self.stream.synchronize()?;
        Ok(host)
    }
}

struct DeviceInputs<E> {
    x: Buffer<E>,
    a: Buffer<E>,
    b: Option<Buffer<E>>,
    c: Option<Buffer<E>>,
    h0: Option<Buffer<f32>>,
}

impl<E: CudaElement> DeviceInputs<E> {
    fn upload(stream: &Arc<CudaStream>, inputs: &Inputs<'_, E>) -> Result<Self, CudaError> {
        let full = |host: Option<&[E]>| host.map(|host| Buffer::upload(stream, host)).transpose();
        Ok(Self {
            x: Buffer::upload(stream, inputs.x)?,
            a: Buffer::upload(stream, inputs.a)?,
            b: full(inputs.b)?,
            c: full(inputs.c)?,
            h0: inputs.h0.map(|host| Buffer::upload(stream, host)).transpose()?,
        })
    }
}
