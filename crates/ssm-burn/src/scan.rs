//! The gated scan on burn tensors.

use std::sync::Arc;

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::{DType as BurnType, Device, FloatDType, Tensor};
use ssm_core::{Algorithm, Checkpoint, DType, GatedScan, PlanOptions};

use crate::Error;
use crate::backend::{Operands, Optional, Outcome, ScanDispatch};

/// What a scan may have besides its operands.
#[derive(Clone, Debug, Default)]
pub struct ScanOptions {
    /// The state before the first step, (N, D), f32 (f64 for f64 operands); none means 0. N is B, or the number of
    /// packed sequences.
    pub h0: Option<Tensor<2>>,
    /// Whether hT (N, D) is returned.
    pub final_state: bool,
    /// Whether time runs from the last step to the first.
    pub reverse: bool,
    /// Packed sequences: rows `cu[i]..cu[i + 1]` of the one batch row are sequence i. Rows past the last are 0 in y and
    /// in every gradient.
    pub cu_seqlens: Option<Arc<[usize]>>,
    /// What forward keeps for backward: nothing, one state a chunk (the default), or all of h.
    pub checkpoint: Checkpoint,
    /// The type of y, where it differs from the operands'.
    pub out_dtype: Option<FloatDType>,
    /// This algorithm and no other; [`Algorithm::Sequential`] is exact for gates whose products leave the accumulator's
    /// range within a chunk.
    pub algorithm: Option<Algorithm>,
}

/// What a scan returns.
#[derive(Clone, Debug)]
pub struct ScanOutput {
    /// (B, L, D).
    pub y: Tensor<3>,
    /// hT (N, D) in the accumulator type, where it was asked for.
    pub final_state: Option<Tensor<2>>,
}

/// `h[t] = a[t]·h[t-1] + b[t]·x[t]`, `y[t] = c[t]·h[t]`, along the second dimension, with gradients for every operand.
///
/// x, a, b, c are (B, L, D) of one element type: f32, f16, bf16 or f64. No b means b = 1, no c means y = h. The state is
/// f32 whatever the type (f64 for f64), and each output is rounded once. Operands are read where they lie; under autodiff
/// they are kept for backward, and beside them what [`ScanOptions::checkpoint`] says.
///
/// # Errors
///
/// [`Error`] for operands whose shapes, types or devices do not fit together, for cu_seqlens that make no sense, and for
/// what the backend cannot serve. Nothing has been computed then.
///
/// # Panics
///
/// In burn's `backward`, which returns nothing, when the device itself fails there. Whatever can be foreseen of backward is
/// checked here.
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use ssm_burn::{ScanOptions, gated_scan};
///
/// let device = Device::flex().autodiff();
/// let x = Tensor::<3>::random([2, 100, 16], Distribution::Default, &device).require_grad();
/// let a = Tensor::<3>::random([2, 100, 16], Distribution::Uniform(0.9, 1.0), &device);
/// let out = gated_scan(x.clone(), a, None, None, ScanOptions { final_state: true, ..Default::default() })?;
/// let gradients = (out.y.sum() + out.final_state.unwrap().sum()).backward();
/// assert_eq!(x.grad(&gradients).unwrap().dims(), [2, 100, 16]);
/// # Ok::<(), ssm_burn::Error>(())
/// ```
pub fn gated_scan(
    x: Tensor<3>,
    a: Tensor<3>,
    b: Option<Tensor<3>>,
    c: Option<Tensor<3>>,
    options: ScanOptions,
) -> Result<ScanOutput, Error> {
    let [batch, len, channels] = x.dims();
    let dtype = ssm_type(x.dtype())?;
    let mut builder = GatedScan::builder(batch, len, channels)
        .dtype(dtype)
        .b(b.is_some())
        .c(c.is_some())
        .initial_state(options.h0.is_some())
        .final_state(options.final_state)
        .reverse(options.reverse)
        .checkpoint(options.checkpoint);
    if let Some(out) = options.out_dtype {
        builder = builder.out_dtype(ssm_type(out.into())?);
    }
    if let Some(cu) = &options.cu_seqlens {
        builder = builder.cu_seqlens(cu);
    }
    let problem = builder.build()?;

    let mut first = First::of(&x)?;
    first.fits("a", &a, x.dims(), x.dtype())?;
    for (name, operand) in [("b", &b), ("c", &c)] {
        if let Some(operand) = operand {
            first.fits(name, operand, x.dims(), x.dtype())?;
        }
    }
    if let Some(h0) = &options.h0 {
        first.fits("h0", h0, [problem.sequences(), channels], burn_type(problem.accumulator()))?;
    }
    let optional = |operand: Option<Tensor<3>>| Optional::from(operand.map(Tensor::into_dispatch));
    let operands = Operands {
        x: x.into_dispatch(),
        a: a.into_dispatch(),
        b: optional(b),
        c: optional(c),
        h0: options.h0.map(Tensor::into_dispatch).into(),
    };
    match Dispatch::gated_scan(operands, problem, PlanOptions { algorithm: options.algorithm }) {
        Outcome::Done { y, final_state } => Ok(ScanOutput {
            y: Tensor::from_dispatch(y),
            final_state: final_state.into_option().map(Tensor::from_dispatch),
        }),
        Outcome::Failed(error) => Err(error),
    }
}

/// The first operand, which the others have to agree with: burn's dispatch would panic where they do not.
struct First {
    device: Device,
    /// Its own, or that of the first operand that has one.
    strategy: Option<burn::tensor::GradientCheckpointingStrategy>,
}

impl First {
    fn of(x: &Tensor<3>) -> Result<Self, Error> {
        let device = x.device();
        let strategy = device.gradient_checkpointing_strategy();
        served(&device).map(|()| Self { device: device.without_autodiff(), strategy })
    }

    fn fits<const R: usize>(
        &mut self,
        tensor: &'static str,
        operand: &Tensor<R>,
        shape: [usize; R],
        dtype: BurnType,
    ) -> Result<(), Error> {
        if operand.dims() != shape {
            return Err(Error::Shape { tensor, expected: shape.to_vec(), got: operand.dims().to_vec() });
        }
        if operand.dtype() != dtype {
            return Err(Error::Type { tensor, expected: dtype, got: operand.dtype() });
        }
        let device = operand.device();
        let strategy = device.gradient_checkpointing_strategy();
        let device = device.without_autodiff();
        if device != self.device {
            let (expected, got) = (format!("{:?}", self.device), format!("{device:?}"));
            return Err(Error::Device { tensor, expected, got });
        }
        match (self.strategy, strategy) {
            (Some(expected), Some(got)) if expected != got => {
                Err(Error::GradientCheckpointing { tensor, expected, got })
            }
            _ => {
                self.strategy = self.strategy.or(strategy);
                Ok(())
            }
        }
    }
}

/// Whether tensors of the device can be scanned.
///
/// # Errors
///
/// [`Error::UnsupportedDevice`]; [`Error::NotConnected`] for a wgpu device, `Error::Cuda` for a CUDA device.
pub(crate) fn served(device: &Device) -> Result<(), Error> {
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::Flex(_) => Ok(()),
        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        DispatchDevice::Cube(cube) => crate::cube::serves(cube),
        #[allow(unreachable_patterns, reason = "burn's features, which cargo unifies, add devices")]
        other => Err(Error::UnsupportedDevice { device: format!("{other:?}") }),
    }
}

pub(crate) fn ssm_type(dtype: BurnType) -> Result<DType, Error> {
    match dtype {
        BurnType::F32 => Ok(DType::F32),
        BurnType::F16 => Ok(DType::F16),
        BurnType::BF16 => Ok(DType::Bf16),
        BurnType::F64 => Ok(DType::F64),
        got => Err(Error::UnsupportedType { got }),
    }
}

pub(crate) fn burn_type(dtype: DType) -> BurnType {
    match dtype {
        DType::F32 => BurnType::F32,
        DType::F16 => BurnType::F16,
        DType::Bf16 => BurnType::BF16,
        DType::F64 => BurnType::F64,
    }
}
