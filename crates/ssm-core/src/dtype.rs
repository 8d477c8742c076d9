//! Element types: what a tensor is stored in, and what it is accumulated in.

use half::{bf16, f16};

/// The element type of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
    /// IEEE 754 binary64; the CPU backend only.
    F64,
}

impl DType {
    /// Every element type.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::F64];

    /// Bytes an element.
    pub const fn size(self) -> u64 {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The type that a scan over this storage type accumulates in, and holds its states in.
    pub const fn accumulator(self) -> Self {
        match self {
            Self::F64 => Self::F64,
            _ => Self::F32,
        }
    }

    /// The name as it stands in test names, benchmark rows and error messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A Rust type that a tensor can be stored in. Sealed: the set is [`DType::ALL`].
pub trait Element: sealed::Sealed + Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// The run-time tag of this type.
    const DTYPE: DType;
    /// The type that a scan over this storage accumulates in.
    type Acc: Element;
    /// Rounds to nearest, ties to even, once.
    fn from_f64(value: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! element {
    ($type:ty, $tag:ident, $acc:ty, $from:expr, $to:expr) => {
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$tag;
            type Acc = $acc;
            fn from_f64(value: f64) -> Self {
                $from(value)
            }
            fn to_f64(self) -> f64 {
                $to(self)
            }
        }
    };
}

element!(f32, F32, f32, |v| v as f32, f64::from);
element!(f16, F16, f32, f16::from_f64, f16::to_f64);
element!(bf16, Bf16, f32, bf16::from_f64, bf16::to_f64);
element!(f64, F64, f64, |v| v, |v| v);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_types() {
        assert_eq!(DType::F32.size(), size_of::<f32>() as u64);
        assert_eq!(DType::F16.size(), size_of::<f16>() as u64);
        assert_eq!(DType::Bf16.size(), size_of::<bf16>() as u64);
        assert_eq!(DType::F64.size(), size_of::<f64>() as u64);
    }
}
