//! What the driver and the device can say, one variant for each thing that a caller can do about it.

use cudarc::driver::{DriverError, sys::CUresult};

/// Why a device cannot be used, or why work on it failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no libcuda on this machine: no NVIDIA driver is installed.
    #[error("no NVIDIA driver: libcuda cannot be loaded")]
    NoDriver(#[source] LoadError),
    /// The driver is there, the device is not.
    #[error("no CUDA device {ordinal}: the driver sees {count}")]
    NoDevice {
        /// The device asked for.
        ordinal: usize,
        /// How many the driver sees.
        count: usize,
    },
    /// The driver cannot load the kernels' PTX.
    #[error("the driver speaks CUDA {}, the kernels need {}", version(*.found), version(*.needed))]
    DriverTooOld {
        /// What the driver reports: 1000 × major + 10 × minor.
        found: i32,
        /// The least that loads the kernels for this device.
        needed: i32,
    },
    /// The device is older than every kernel.
    #[error("the device has compute capability {}.{}, the kernels need 7.5", .capability.0, .capability.1)]
    DeviceTooOld {
        /// The device's compute capability.
        capability: (u32, u32),
    },
    /// Device memory, or what the driver keeps there, ran out.
    #[error("out of device memory")]
    OutOfMemory,
    /// The context can do no more work: it was destroyed, or an earlier kernel of the process failed. A new process
    /// can use the device again.
    #[error("the CUDA context is lost: {status:?} ({})", *.status as u32)]
    ContextLost {
        /// The driver's status.
        status: CUresult,
    },
    /// The stream, or the stream that a view was made for, is not the one this launch goes to or this backend drives.
    #[error("the launch goes to another stream or context than its {0}")]
    ForeignStream(
        /// What belongs elsewhere.
        ForeignStream,
    ),
    /// Anything else that the driver says.
    #[error("the CUDA driver says {status:?} ({})", *.status as u32)]
    Driver {
        /// The driver's status.
        status: CUresult,
    },
}

/// Why the system's loader did not load a library, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(String);

impl From<libloading::Error> for LoadError {
    fn from(error: libloading::Error) -> Self {
        Self(error.to_string())
    }
}

/// What belongs to another stream or context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignStream {
    /// The queue was made from a stream of another context.
    Queue,
    /// An operand's view orders its memory on another stream.
    Operand(ssm_core::Operand),
}

impl std::fmt::Display for ForeignStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue => f.pad("backend"),
            Self::Operand(operand) => operand.fmt(f),
        }
    }
}

fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

impl From<DriverError> for CudaError {
    fn from(error: DriverError) -> Self {
        use CUresult as R;
        let status = error.0;
        match status {
            R::CUDA_ERROR_OUT_OF_MEMORY => Self::OutOfMemory,
            R::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | R::CUDA_ERROR_INVALID_CONTEXT
            | R::CUDA_ERROR_DEINITIALIZED
            | R::CUDA_ERROR_ECC_UNCORRECTABLE
            | R::CUDA_ERROR_ILLEGAL_ADDRESS
            | R::CUDA_ERROR_LAUNCH_TIMEOUT
            | R::CUDA_ERROR_ASSERT
            | R::CUDA_ERROR_HARDWARE_STACK_ERROR
            | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | R::CUDA_ERROR_MISALIGNED_ADDRESS
            | R::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | R::CUDA_ERROR_INVALID_PC
            | R::CUDA_ERROR_LAUNCH_FAILED => Self::ContextLost { status },
            status => Self::Driver { status },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_both_sides() {
        let old = CudaError::DriverTooOld { found: 10020, needed: 11080 };
        assert_eq!(old.to_string(), "the driver speaks CUDA 10.2, the kernels need 11.8");
        let lost = CudaError::from(DriverError(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        assert_eq!(lost.to_string(), "the CUDA context is lost: CUDA_ERROR_ILLEGAL_ADDRESS (700)");
        let full = CudaError::from(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert!(matches!(full, CudaError::OutOfMemory));
    }
}
