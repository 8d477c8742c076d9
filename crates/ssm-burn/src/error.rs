//! What a call on burn tensors can say, before any work is done.

use std::convert::Infallible;

use burn::tensor::{DType, GradientCheckpointingStrategy};
use ssm_core::{BindError, PlanError, ProblemError, RunError};

/// A call that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor of another shape than the first operand, or the layer, asks for.
    #[error("{tensor} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The tensor, named as in the documentation.
        tensor: &'static str,
        /// The shape that fits.
        expected: Vec<usize>,
        /// The tensor's.
        got: Vec<usize>,
    },
    /// A tensor of another element type than the first operand asks for.
    #[error("{tensor} is {got:?}, expected {expected:?}")]
    Type {
        /// The tensor.
        tensor: &'static str,
        /// The type that fits.
        expected: DType,
        /// The tensor's.
        got: DType,
    },
    /// An element type that no scan is stored in.
    #[error("a scan is stored in f32, f16, bf16 or f64, not in {got:?}")]
    UnsupportedType {
        /// The type.
        got: DType,
    },
    /// A burn device that this build has no kernels for.
    #[error("this build has no gated scan for {device}: see the features of ssm-burn")]
    UnsupportedDevice {
        /// The device, as burn prints it.
        device: String,
    },
    /// A device of burn's wgpu runtime that the kernels do not know the wgpu device of.
    #[error("{device} is not connected: call ssm_burn::connect_wgpu with the setup that burn made it with")]
    NotConnected {
        /// The device, as burn prints it.
        device: String,
    },
    /// burn's runtime would not give the memory of a tensor, because work on it failed, say.
    #[error("burn's runtime failed: {reason}")]
    Runtime {
        /// Its words.
        reason: String,
    },
    /// The wgpu device failed.
    #[cfg(feature = "wgpu")]
    #[error(transparent)]
    Wgpu(#[from] ssm_wgpu::WgpuError),
    /// The CUDA device failed, or cannot be used.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] ssm_cuda::CudaError),
    /// Operands on different devices.
    #[error("{tensor} is on {got}, expected {expected}")]
    Device {
        /// The tensor.
        tensor: &'static str,
        /// The first operand's device.
        expected: String,
        /// The tensor's.
        got: String,
    },
    /// Operands of two devices' autodiff that follow different strategies; burn cannot merge them.
    #[error("{tensor} is under autodiff with gradient checkpointing {got:?}, the others with {expected:?}")]
    GradientCheckpointing {
        /// The tensor.
        tensor: &'static str,
        /// The strategy of the operands before it.
        expected: GradientCheckpointingStrategy,
        /// The tensor's.
        got: GradientCheckpointingStrategy,
    },
    /// The state of another number of sequences than the input holds.
    #[error("the state is of {got} sequences, the input holds {expected}")]
    Sequences {
        /// Sequences in the input.
        expected: usize,
        /// Sequences in the state.
        got: usize,
    },
    /// A convolution over no step at all.
    #[error("a convolution needs a kernel of at least one step")]
    EmptyKernel,
    /// Heads that do not divide the width.
    #[error("{heads} heads do not divide a width of {width}")]
    Heads {
        /// D.
        width: usize,
        /// H.
        heads: usize,
    },
    /// The problem makes no sense.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// The backend cannot serve the problem.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The operands do not fit the plan.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// The CPU does not fail.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// What a backend's run says, for each backend whose device's error is one of ours.
impl<E> From<RunError<E>> for Error
where
    Self: From<E>,
{
    fn from(error: RunError<E>) -> Self {
        match error {
            RunError::Bind(error) => error.into(),
            RunError::Device(error) => error.into(),
        }
    }
}
