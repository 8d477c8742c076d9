//! Tensors in host memory, tagged with their type at run time.

use half::{bf16, f16};
use ssm_core::{DType, Element};

/// A tensor in host memory.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant holds elements of the type of that name")]
pub enum HostTensor {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    F64(Vec<f64>),
}

/// Runs the expression with `$v` bound to the vector inside, whatever its type.
macro_rules! with_elements {
    ($tensor:expr, $v:ident => $body:expr) => {
        match $tensor {
            HostTensor::F32($v) => $body,
            HostTensor::F16($v) => $body,
            HostTensor::Bf16($v) => $body,
            HostTensor::F64($v) => $body,
        }
    };
}

impl HostTensor {
    /// Each value rounded once to `dtype`.
    pub fn from_f64(dtype: DType, values: &[f64]) -> Self {
        fn round<E: Element>(values: &[f64]) -> Vec<E> {
            values.iter().map(|&v| E::from_f64(v)).collect()
        }
        match dtype {
            DType::F32 => Self::F32(round(values)),
            DType::F16 => Self::F16(round(values)),
            DType::Bf16 => Self::Bf16(round(values)),
            DType::F64 => Self::F64(round(values)),
        }
    }

    /// `len` times one value.
    pub fn filled(dtype: DType, len: usize, value: f64) -> Self {
        match dtype {
            DType::F32 => Self::F32(vec![f32::from_f64(value); len]),
            DType::F16 => Self::F16(vec![f16::from_f64(value); len]),
            DType::Bf16 => Self::Bf16(vec![bf16::from_f64(value); len]),
            DType::F64 => Self::F64(vec![value; len]),
        }
    }

    /// What an output holds before a run: an element that no backend wrote is seen.
    pub fn poison(dtype: DType, len: usize) -> Self {
        Self::filled(dtype, len, f64::NAN)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::Bf16(_) => DType::Bf16,
            Self::F64(_) => DType::F64,
        }
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        with_elements!(self, v => v.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every value, exact.
    pub fn to_f64(&self) -> Vec<f64> {
        with_elements!(self, v => v.iter().map(|e| Element::to_f64(*e)).collect())
    }

    /// The bytes, in this machine's order.
    pub fn bytes(&self) -> Vec<u8> {
        with_elements!(self, v => v.iter().flat_map(|e| e.to_ne_bytes()).collect())
    }

    /// As many elements as the bytes hold.
    pub fn from_bytes(dtype: DType, bytes: &[u8]) -> Self {
        match dtype {
            DType::F32 => Self::F32(bytes.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b)).collect()),
            DType::F16 => Self::F16(bytes.as_chunks().0.iter().map(|b| f16::from_ne_bytes(*b)).collect()),
            DType::Bf16 => Self::Bf16(bytes.as_chunks().0.iter().map(|b| bf16::from_ne_bytes(*b)).collect()),
            DType::F64 => Self::F64(bytes.as_chunks().0.iter().map(|b| f64::from_ne_bytes(*b)).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_there_and_back() {
        for dtype in DType::ALL {
            let tensor = HostTensor::from_f64(dtype, &[0.0, -0.0, 1.5, -2.25, f64::INFINITY]);
            let bytes = tensor.bytes();
            assert_eq!(bytes.len() as u64, tensor.len() as u64 * dtype.size());
            assert_eq!(HostTensor::from_bytes(dtype, &bytes).bytes(), bytes);
        }
    }
}
