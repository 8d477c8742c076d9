//! Tensors in host memory, tagged with their type at run time.

use std::ops::Range;

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

    /// Whether type, length and every bit are equal: a NaN equals itself, 0 and -0 differ.
    pub fn same_bits(&self, other: &Self) -> bool {
        self.dtype() == other.dtype() && self.bytes() == other.bytes()
    }

    /// Some of the elements.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        match self {
            Self::F32(v) => Self::F32(v[range].to_vec()),
            Self::F16(v) => Self::F16(v[range].to_vec()),
            Self::Bf16(v) => Self::Bf16(v[range].to_vec()),
            Self::F64(v) => Self::F64(v[range].to_vec()),
        }
    }

    /// The elements of some rows and channels of a tensor with `d` channels, in the order given.
    #[must_use]
    pub fn gather(&self, d: usize, rows: &[usize], channels: &[usize]) -> Self {
        match self {
            Self::F32(v) => Self::F32(gather(v, d, rows, channels)),
            Self::F16(v) => Self::F16(gather(v, d, rows, channels)),
            Self::Bf16(v) => Self::Bf16(gather(v, d, rows, channels)),
            Self::F64(v) => Self::F64(gather(v, d, rows, channels)),
        }
    }

    /// Between `guard` elements of one value on each side.
    #[must_use]
    pub fn padded(&self, guard: usize, value: f64) -> Self {
        fn pad<E: Element>(v: &[E], guard: usize, value: f64) -> Vec<E> {
            let guard = vec![E::from_f64(value); guard];
            [&guard, v, &guard].concat()
        }
        match self {
            Self::F32(v) => Self::F32(pad(v, guard, value)),
            Self::F16(v) => Self::F16(pad(v, guard, value)),
            Self::Bf16(v) => Self::Bf16(pad(v, guard, value)),
            Self::F64(v) => Self::F64(pad(v, guard, value)),
        }
    }

    /// With this many more elements, all 0.
    #[must_use]
    pub fn padded_after(&self, more: usize) -> Self {
        let padded = self.padded(more, 0.0);
        padded.slice(more..padded.len())
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

/// The elements of some rows and channels of a tensor with `d` channels, in the order given.
pub(crate) fn gather<E: Copy>(v: &[E], d: usize, rows: &[usize], channels: &[usize]) -> Vec<E> {
    rows.iter().flat_map(|row| channels.iter().map(move |channel| v[row * d + channel])).collect()
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
