//! Where a burn backend plugs in.
//!
//! [`ScanKernels`] is what a backend implements: plan, forward and backward on its own tensor primitives. Autodiff is
//! written once above it, in `autodiff.rs`. [`ScanDispatch`] is what burn's run-time dispatch needs: one method, from
//! which its macro makes the routing. So a new backend is one more name in that list, one `ScanKernels`, and its device among
//! those that `scan.rs` lets through (burn's dispatch panics on a backend that the list does not name).

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, backend_extension};
use burn::tensor::Shape;
use ssm_core::{Checkpoint, GatedScan, Grads, Kernel, PlanOptions, ScanBackward, ScanForward};

use crate::Error;

/// An operand that a problem may lack. (burn's derive maps enums across the dispatch boundary, but not `Option`.)
#[derive(Clone, Debug, ExtensionType)]
pub(crate) enum Optional<B: Backend> {
    /// It has one.
    Given(FloatTensor<B>),
    /// It has none.
    Absent,
}

impl<B: Backend> Optional<B> {
    pub(crate) fn as_ref(&self) -> Option<&FloatTensor<B>> {
        match self {
            Self::Given(tensor) => Some(tensor),
            Self::Absent => None,
        }
    }

    pub(crate) fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Given(tensor) => Some(tensor),
            Self::Absent => None,
        }
    }
}

impl<B: Backend> From<Option<FloatTensor<B>>> for Optional<B> {
    fn from(tensor: Option<FloatTensor<B>>) -> Self {
        tensor.map_or(Self::Absent, Self::Given)
    }
}

/// The inputs of a scan, checked: shapes, element types and devices fit the problem.
#[derive(Clone, Debug, ExtensionType)]
pub(crate) struct Operands<B: Backend> {
    /// (B, L, D).
    pub x: FloatTensor<B>,
    /// (B, L, D).
    pub a: FloatTensor<B>,
    /// (B, L, D).
    #[extension_type]
    pub b: Optional<B>,
    /// (B, L, D).
    #[extension_type]
    pub c: Optional<B>,
    /// (N, D), accumulator.
    #[extension_type]
    pub h0: Optional<B>,
}

/// What a scan comes to.
#[derive(Clone, Debug, ExtensionType)]
pub(crate) enum Outcome<B: Backend> {
    /// The outputs.
    Done {
        /// (B, L, D), the output type.
        y: FloatTensor<B>,
        /// hT (N, D), accumulator, where the problem asks for it.
        #[extension_type]
        final_state: Optional<B>,
    },
    /// Why there are none.
    Failed(Error),
}

impl<B: Backend> From<Result<(FloatTensor<B>, Option<FloatTensor<B>>), Error>> for Outcome<B> {
    fn from(result: Result<(FloatTensor<B>, Option<FloatTensor<B>>), Error>) -> Self {
        match result {
            Ok((y, final_state)) => Self::Done { y, final_state: final_state.into() },
            Err(error) => Self::Failed(error),
        }
    }
}

/// The scan on whichever backend the tensors live on.
#[backend_extension(Flex, Cube: cfg(any(feature = "wgpu", feature = "cuda")), Autodiff)]
pub(crate) trait ScanDispatch: Backend {
    /// Forward, recorded for backward where an operand is tracked.
    fn gated_scan(
        #[extension_type] operands: Operands<Self>,
        problem: GatedScan,
        options: PlanOptions,
    ) -> Outcome<Self>;
}

/// What forward leaves behind.
#[derive(Clone, Debug)]
pub(crate) struct Forward<B: Backend> {
    /// (B, L, D), the output type.
    pub y: FloatTensor<B>,
    /// hT (N, D), accumulator, where the problem asks for it.
    pub final_state: Option<FloatTensor<B>>,
    /// What backward wants back, in the accumulator type; its size is the checkpoint policy's.
    pub saved: Option<FloatTensor<B>>,
}

/// What backward is given besides the inputs.
#[derive(Clone, Debug)]
pub(crate) struct Arriving<B: Backend> {
    /// What forward saved.
    pub saved: Option<FloatTensor<B>>,
    /// (B, L, D), the output type.
    pub dy: FloatTensor<B>,
    /// dhT (N, D), accumulator, where the op has one.
    pub d_final_state: Option<FloatTensor<B>>,
}

/// Forward where nothing is tracked: what backward would want is not kept.
///
/// # Errors
///
/// As [`ScanKernels::scan_forward`].
pub(crate) fn untracked<B: ScanKernels>(
    operands: &Operands<B>,
    problem: &GatedScan,
    options: &PlanOptions,
) -> Result<(FloatTensor<B>, Option<FloatTensor<B>>), Error> {
    let problem = problem.to_builder().checkpoint(Checkpoint::Nothing).build()?;
    B::scan_forward(&problem, options, operands).map(|out| (out.y, out.final_state))
}

/// The gradients of x, a, b, c and h0, in that order, where the op asks for them.
pub(crate) type Gradients<B> = [Option<FloatTensor<B>>; 5];

/// The gated scan on one burn backend's tensor primitives.
pub(crate) trait ScanKernels: Backend {
    /// Plans forward and a backward for every gradient, so that nothing foreseeable is left to fail in backward, which
    /// burn gives no way to return an error.
    ///
    /// # Errors
    ///
    /// [`Error::Plan`], [`Error::Problem`].
    fn check(problem: &GatedScan, options: &PlanOptions, device: &Self::Device) -> Result<(), Error>;

    /// y, and what the problem asks for besides.
    ///
    /// # Errors
    ///
    /// [`Error`] when the operands do not fit or the device fails.
    fn scan_forward(
        problem: &GatedScan,
        options: &PlanOptions,
        operands: &Operands<Self>,
    ) -> Result<Forward<Self>, Error>;

    /// The gradients that the op asks for; `None` for the others.
    ///
    /// # Errors
    ///
    /// As [`ScanKernels::scan_forward`].
    fn scan_backward(
        op: &ScanBackward,
        options: &PlanOptions,
        operands: &Operands<Self>,
        arriving: &Arriving<Self>,
    ) -> Result<Gradients<Self>, Error>;
}

/// [`ScanKernels::check`] where these kernels are what runs.
pub(crate) fn can_plan<K>(kernels: &K, problem: &GatedScan, options: &PlanOptions) -> Result<(), Error>
where
    K: Kernel<ScanForward> + Kernel<ScanBackward>,
{
    Kernel::<ScanForward>::plan(kernels, &problem.forward(), options)?;
    let mut op = problem.backward(Grads::all(problem))?;
    if problem.wants_final_state() {
        op = op.with_final_state();
    }
    Kernel::<ScanBackward>::plan(kernels, &op, options)?;
    Ok(())
}

pub(crate) fn full_shape(problem: &GatedScan) -> Shape {
    Shape::from([problem.batch(), problem.len(), problem.channels()])
}

pub(crate) fn state_shape(problem: &GatedScan) -> Shape {
    Shape::from([problem.sequences(), problem.channels()])
}
