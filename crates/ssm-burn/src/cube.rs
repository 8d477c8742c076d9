//! burn's CubeCL backend. Its tensors lie on one of several runtimes; here is what those have in common.
//!
//! A [`Runtime`] is one whose memory and queue a backend of ours can work with. Operands are viewed where they lie, at
//! any offset; only those whose elements are not in (B, L, D) order are copied, on the device. Outputs and workspace
//! come from burn's own pool.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType as BurnType, Shape};
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::{CubeBackend, CubeDevice};
use ssm_core::{
    Backend, BackwardArgs, DType, ForwardArgs, GatedScan, Kernel, Op, PlanOptions, RunError, ScanBackward,
    ScanForward,
};

use crate::backend::{
    Arriving, Forward, Gradients, Operands, Optional, Outcome, ScanDispatch, ScanKernels, can_plan,
    full_shape, state_shape, untracked,
};
use crate::gates::{GateDispatch, GateGradients};
use crate::{Error, burn_type};

type Tensor = FloatTensor<CubeBackend>;
type Ref<'a, R> = <<R as Runtime>::Kernels as Backend>::Ref<'a>;
type Mut<'a, R> = <<R as Runtime>::Kernels as Backend>::Mut<'a>;
type Queue<'a, R> = <<R as Runtime>::Kernels as Backend>::Queue<'a>;
type DeviceError<R> = <<R as Runtime>::Kernels as Backend>::Error;

/// A runtime of CubeCL that one of our backends works with.
pub(crate) trait Runtime {
    /// That backend.
    type Kernels: Kernel<ScanForward> + Kernel<ScanBackward>;
    /// A tensor's memory, which stays where it is while this lives.
    type Memory;

    fn kernels(&self) -> &Self::Kernels;

    /// The memory behind a tensor. What burn has queued on it comes before anything that is enqueued from now on.
    fn memory(&self, tensor: &Tensor) -> Result<Self::Memory, Error>;

    fn view<'a>(&'a self, memory: &'a Self::Memory, elements: u64, dtype: DType) -> Ref<'a, Self>;

    fn view_mut<'a>(&'a self, memory: &'a Self::Memory, elements: u64, dtype: DType) -> Mut<'a, Self>;

    /// Lets `launch` enqueue work; what burn queues after the return comes after it.
    fn enqueue(
        &self,
        client: &Client,
        launch: impl for<'q> FnOnce(Queue<'q, Self>) -> Result<(), RunError<DeviceError<Self>>>,
    ) -> Result<(), Error>;
}

/// Runs the body with the runtime of a device.
macro_rules! on_runtime {
    ($device:expr, |$runtime:ident| $body:expr) => {
        match $device {
            #[cfg(feature = "wgpu")]
            CubeDevice::Wgpu(device) => {
                let $runtime = &crate::wgpu::Connected::to(device)?;
                $body
            }
            #[cfg(feature = "cuda")]
            CubeDevice::Cuda(device) => {
                let $runtime = &crate::cuda::Opened::on(device)?;
                $body
            }
            other => Err(Error::UnsupportedDevice { device: format!("{other:?}") }),
        }
    };
}

/// Whether tensors of the device can be scanned.
///
/// # Errors
///
/// [`Error::UnsupportedDevice`]; [`Error::NotConnected`] for a wgpu device, `Error::Cuda` for a CUDA device.
pub(crate) fn serves(device: &CubeDevice) -> Result<(), Error> {
    on_runtime!(device, |_runtime| Ok(()))
}

impl ScanDispatch for CubeBackend {
    fn gated_scan(operands: Operands<Self>, problem: GatedScan, options: PlanOptions) -> Outcome<Self> {
        untracked(&operands, &problem, &options).into()
    }
}

impl ScanKernels for CubeBackend {
    fn check(problem: &GatedScan, options: &PlanOptions, device: &CubeDevice) -> Result<(), Error> {
        on_runtime!(device, |runtime| can_plan(runtime.kernels(), problem, options))
    }

    fn scan_forward(
        problem: &GatedScan,
        options: &PlanOptions,
        operands: &Operands<Self>,
    ) -> Result<Forward<Self>, Error> {
        on_runtime!(&operands.x.device, |runtime| forward(runtime, problem, options, operands))
    }

    fn scan_backward(
        op: &ScanBackward,
        options: &PlanOptions,
        operands: &Operands<Self>,
        arriving: &Arriving<Self>,
    ) -> Result<Gradients<Self>, Error> {
        on_runtime!(&operands.x.device, |runtime| backward(runtime, op, options, operands, arriving))
    }
}

impl GateDispatch for CubeBackend {}
impl GateGradients for CubeBackend {}

/// An operand's memory, with what a view says of it.
struct Held<R: Runtime> {
    memory: R::Memory,
    elements: u64,
    dtype: DType,
}

impl<R: Runtime> Held<R> {
    /// A tensor with its elements in order, or one that [`Room`] made.
    fn of(runtime: &R, tensor: &Tensor) -> Result<Self, Error> {
        let dtype = crate::scan::ssm_type(tensor.dtype)?;
        let elements = tensor.shape().num_elements() as u64;
        Ok(Self { memory: runtime.memory(tensor)?, elements, dtype })
    }

    fn view<'a>(&'a self, runtime: &'a R) -> Ref<'a, R> {
        runtime.view(&self.memory, self.elements, self.dtype)
    }

    fn view_mut<'a>(&'a self, runtime: &'a R) -> Mut<'a, R> {
        runtime.view_mut(&self.memory, self.elements, self.dtype)
    }
}

/// The inputs of a scan, in order and held.
struct Inputs<R: Runtime> {
    x: Held<R>,
    a: Held<R>,
    b: Option<Held<R>>,
    c: Option<Held<R>>,
    h0: Option<Held<R>>,
}

impl<R: Runtime> Inputs<R> {
    fn of(runtime: &R, operands: &Operands<CubeBackend>) -> Result<Self, Error> {
        let optional = |operand: &Optional<CubeBackend>| hold_input(runtime, operand.as_ref());
        Ok(Self {
            x: Held::of(runtime, &into_contiguous(operands.x.clone()))?,
            a: Held::of(runtime, &into_contiguous(operands.a.clone()))?,
            b: optional(&operands.b)?,
            c: optional(&operands.c)?,
            h0: optional(&operands.h0)?,
        })
    }
}

fn hold_input<R: Runtime>(runtime: &R, tensor: Option<&Tensor>) -> Result<Option<Held<R>>, Error> {
    tensor.map(|tensor| Held::of(runtime, &into_contiguous(tensor.clone()))).transpose()
}

fn hold<R: Runtime>(runtime: &R, tensor: Option<&Tensor>) -> Result<Option<Held<R>>, Error> {
    tensor.map(|tensor| Held::of(runtime, tensor)).transpose()
}

/// Where fresh tensors come from: burn's pool on the device of the operands.
struct Room<'a>(&'a Tensor);

impl Room<'_> {
    fn client(&self) -> &Client {
        &self.0.client
    }

    fn tensor(&self, shape: Shape, dtype: BurnType) -> Tensor {
        let (client, device) = (self.0.client.clone(), self.0.device.clone());
        let handle = client.empty(shape.num_elements() * dtype.size());
        Tensor::new_contiguous(client, device, shape, handle, dtype)
    }

    fn full(&self, problem: &GatedScan, dtype: DType) -> Tensor {
        self.tensor(full_shape(problem), burn_type(dtype))
    }

    fn state(&self, problem: &GatedScan) -> Tensor {
        self.tensor(state_shape(problem), burn_type(problem.accumulator()))
    }

    /// f32 elements, if any.
    fn flat(&self, bytes: u64) -> Option<Tensor> {
        let elements = bytes.div_ceil(DType::F32.size()) as usize;
        (elements > 0).then(|| self.tensor(Shape::from([elements]), BurnType::F32))
    }
}

fn forward<R: Runtime>(
    runtime: &R,
    problem: &GatedScan,
    options: &PlanOptions,
    operands: &Operands<CubeBackend>,
) -> Result<Forward<CubeBackend>, Error> {
    let plan = Kernel::<ScanForward>::plan(runtime.kernels(), &problem.forward(), options)?;
    let room = Room(&operands.x);
    let y = room.full(problem, problem.out_dtype());
    let final_state = problem.wants_final_state().then(|| room.state(problem));
    let saved = room.flat(plan.report().saved_bytes());
    let workspace = hold(runtime, room.flat(plan.report().workspace_bytes).as_ref())?;
    let inputs = Inputs::of(runtime, operands)?;
    let held_y = Held::of(runtime, &y)?;
    let held_state = hold(runtime, final_state.as_ref())?;
    let held_saved = hold(runtime, saved.as_ref())?;
    let args = ForwardArgs {
        x: inputs.x.view(runtime),
        a: inputs.a.view(runtime),
        b: inputs.b.as_ref().map(|b| b.view(runtime)),
        c: inputs.c.as_ref().map(|c| c.view(runtime)),
        h0: inputs.h0.as_ref().map(|h0| h0.view(runtime)),
        y: held_y.view_mut(runtime),
        final_state: held_state.as_ref().map(|t| t.view_mut(runtime)),
        saved: held_saved.as_ref().map(|t| t.view_mut(runtime)),
    };
    let workspace = workspace.as_ref().map(|t| t.view_mut(runtime));
    runtime.enqueue(room.client(), |queue| plan.run(runtime.kernels(), args, workspace, queue))?;
    Ok(Forward { y, final_state, saved })
}

fn backward<R: Runtime>(
    runtime: &R,
    op: &ScanBackward,
    options: &PlanOptions,
    operands: &Operands<CubeBackend>,
    arriving: &Arriving<CubeBackend>,
) -> Result<Gradients<CubeBackend>, Error> {
    let plan = Kernel::<ScanBackward>::plan(runtime.kernels(), op, options)?;
    let (problem, grads, room) = (op.problem(), op.grads(), Room(&operands.x));
    let full = |wanted: bool| wanted.then(|| room.full(problem, problem.dtype()));
    let out =
        [full(grads.x), full(grads.a), full(grads.b), full(grads.c), grads.h0.then(|| room.state(problem))];
    let workspace = hold(runtime, room.flat(plan.report().workspace_bytes).as_ref())?;
    let inputs = Inputs::of(runtime, operands)?;
    let dy = Held::of(runtime, &into_contiguous(arriving.dy.clone()))?;
    let d_final_state = hold_input(runtime, arriving.d_final_state.as_ref())?;
    let saved = hold(runtime, arriving.saved.as_ref())?;
    let mut held = [const { None }; 5];
    for (held, tensor) in held.iter_mut().zip(&out) {
        *held = hold(runtime, tensor.as_ref())?;
    }
    let [dx, da, db, dc, dh0] = held.each_ref().map(|t| t.as_ref().map(|t: &Held<R>| t.view_mut(runtime)));
    let args = BackwardArgs {
        x: inputs.x.view(runtime),
        a: inputs.a.view(runtime),
        b: inputs.b.as_ref().map(|b| b.view(runtime)),
        c: inputs.c.as_ref().map(|c| c.view(runtime)),
        h0: inputs.h0.as_ref().map(|h0| h0.view(runtime)),
        saved: saved.as_ref().map(|t| t.view(runtime)),
        dy: dy.view(runtime),
        d_final_state: d_final_state.as_ref().map(|t| t.view(runtime)),
        dx,
        da,
        db,
        dc,
        dh0,
    };
    let workspace = workspace.as_ref().map(|t| t.view_mut(runtime));
    runtime.enqueue(room.client(), |queue| plan.run(runtime.kernels(), args, workspace, queue))?;
    Ok(out)
}
