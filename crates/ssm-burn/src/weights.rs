//! RG-LRU parameters in safetensors, in and out.
//!
//! Mind the sign of Λ: the paper writes a = σ(Λ)^(8r), the published code computes a = σ(−Λ)^(8r), and both hold plain
//! numbers that load without complaint. This crate has the code's sign. A file written here says so in its metadata, and
//! an import names the sign that it reads.

use std::collections::HashMap;

use burn::module::Param;
use burn::tensor::{DType, Device, Tensor, TensorData, bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::{Error, RgLru, RgLruConfig};

/// The names of an RG-LRU's parameters in a file, behind a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RgLruNames {
    /// Λ, (D).
    pub lambda: &'static str,
    /// The recurrence gate's blocks, (H, D/H, D/H), input by output.
    pub a_weight: &'static str,
    /// (H, D/H).
    pub a_bias: &'static str,
    /// The input gate's blocks, (H, D/H, D/H), input by output.
    pub input_weight: &'static str,
    /// (H, D/H).
    pub input_bias: &'static str,
}

impl RgLruNames {
    /// This crate's.
    pub const OWN: Self = Self {
        lambda: "lambda",
        a_weight: "a_weight",
        a_bias: "a_bias",
        input_weight: "input_weight",
        input_bias: "input_bias",
    };
    /// Those of the published code, recurrentgemma.
    pub const RECURRENT_GEMMA: Self = Self {
        lambda: "a_param",
        a_weight: "a_gate.w",
        a_bias: "a_gate.b",
        input_weight: "input_gate.w",
        input_bias: "input_gate.b",
    };
    /// Those of transformers' RecurrentGemma.
    pub const TRANSFORMERS: Self = Self {
        lambda: "recurrent_param",
        a_weight: "recurrent_gate_weight",
        a_bias: "recurrent_gate_bias",
        input_weight: "input_gate_weight",
        input_bias: "input_gate_bias",
    };
}

/// What a stored Λ means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LambdaSign {
    /// a = σ(−Λ)^(8r), as in recurrentgemma, transformers and here.
    Code,
    /// a = σ(Λ)^(8r), as in the paper. Λ is negated on the way in.
    Paper,
}

/// A file that holds no RG-LRU.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// Not safetensors, or no such tensor.
    #[error("{name}: {source}")]
    Format {
        /// The tensor, or the file.
        name: String,
        /// Why.
        source: SafeTensorError,
    },
    /// A tensor of another shape than the others ask for.
    #[error("{name} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape that fits; empty for three equal or more dimensions.
        expected: Vec<usize>,
        /// The tensor's.
        got: Vec<usize>,
    },
    /// A tensor that holds no floats.
    #[error("{name} holds {got:?}, expected f32, f16, bf16 or f64")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        got: Dtype,
    },
    /// The file says that its Λ has the other sign.
    #[error("the file says that {found:?} is its sign of Λ, {asked:?} was asked for")]
    Sign {
        /// What the metadata says.
        found: LambdaSign,
        /// What the caller says.
        asked: LambdaSign,
    },
    /// The parameters make no layer.
    #[error(transparent)]
    Layer(#[from] Error),
}

const SIGN: &str = "rg_lru.gate";
const CODE: &str = "sigmoid(-lambda)^(8r)";
const PAPER: &str = "sigmoid(lambda)^(8r)";

impl RgLru {
    /// Reads the parameters `prefix` + name from a safetensors file's bytes, as f32.
    ///
    /// # Errors
    ///
    /// [`WeightsError`] for a file, tensor, shape or type that does not fit, and for a file whose metadata contradicts
    /// `sign`.
    pub fn from_safetensors(
        bytes: &[u8],
        prefix: &str,
        names: &RgLruNames,
        sign: LambdaSign,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let format = |name: &str, source| WeightsError::Format { name: name.to_owned(), source };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| format("the file", e))?;
        let metadata = header.metadata().as_ref().and_then(|metadata| metadata.get(SIGN));
        let found = metadata.and_then(|text| match text.as_str() {
            CODE => Some(LambdaSign::Code),
            PAPER => Some(LambdaSign::Paper),
            _ => None,
        });
        if let Some(found) = found.filter(|found| *found != sign) {
            return Err(WeightsError::Sign { found, asked: sign });
        }
        let file = SafeTensors::deserialize(bytes).map_err(|e| format("the file", e))?;
        let find = |name: &str| {
            let name = format!("{prefix}{name}");
            file.tensor(&name).map_err(|e| format(&name, e)).map(|view| (name, view))
        };
        let (bias_name, bias) = find(names.a_bias)?;
        let [heads, block] = *bias.shape() else {
            let got = bias.shape().to_vec();
            return Err(WeightsError::Shape {
                name: bias_name,
                expected: vec![1, got.iter().product()],
                got,
            });
        };
        let width = heads * block;
        let mut layer = RgLruConfig::new(width).with_heads(heads).init(device)?;
        let lambda = read(find(names.lambda)?, [width], device)?;
        layer.lambda = Param::from_tensor(match sign {
            LambdaSign::Code => lambda,
            LambdaSign::Paper => lambda.neg(),
        });
        let weight = |name| {
            Ok::<_, WeightsError>(Param::from_tensor(read(find(name)?, [heads, block, block], device)?))
        };
        let bias =
            |name| Ok::<_, WeightsError>(Param::from_tensor(read(find(name)?, [heads, block], device)?));
        layer.a_weight = weight(names.a_weight)?;
        layer.a_bias = bias(names.a_bias)?;
        layer.input_weight = weight(names.input_weight)?;
        layer.input_bias = bias(names.input_bias)?;
        Ok(layer)
    }

    /// The parameters as a safetensors file's bytes, in f32, under this crate's names behind `prefix`. The metadata says
    /// which sign Λ has.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Format`].
    pub fn to_safetensors(&self, prefix: &str) -> Result<Vec<u8>, WeightsError> {
        let names = RgLruNames::OWN;
        let stored = [
            stored(names.lambda, &self.lambda),
            stored(names.a_weight, &self.a_weight),
            stored(names.a_bias, &self.a_bias),
            stored(names.input_weight, &self.input_weight),
            stored(names.input_bias, &self.input_bias),
        ];
        let format = |source| WeightsError::Format { name: "the file".to_owned(), source };
        let mut views = Vec::with_capacity(stored.len());
        for (name, shape, bytes) in &stored {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(format)?;
            views.push((format!("{prefix}{name}"), view));
        }
        let metadata = HashMap::from([(SIGN.to_owned(), CODE.to_owned())]);
        safetensors::serialize(views, Some(metadata)).map_err(format)
    }
}

/// Name, shape and bytes of a parameter, in f32 as the format has it: little-endian.
fn stored<const R: usize>(
    name: &'static str,
    param: &Param<Tensor<R>>,
) -> (&'static str, Vec<usize>, Vec<u8>) {
    let data = param.val().into_data_dtype(DType::F32);
    let bytes = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
    (name, param.val().dims().to_vec(), bytes)
}

fn read<const R: usize>(
    (name, view): (String, TensorView<'_>),
    expected: [usize; R],
    device: &Device,
) -> Result<Tensor<R>, WeightsError> {
    if view.shape() != expected {
        let got = view.shape().to_vec();
        return Err(WeightsError::Shape { name, expected: expected.to_vec(), got });
    }
    let data = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        got => return Err(WeightsError::Type { name, got }),
    };
    Ok(Tensor::from_data(TensorData::new(values, expected), (device, DType::F32)))
}
