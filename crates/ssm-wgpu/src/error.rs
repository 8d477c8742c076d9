//! What the device can say.

use ssm_core::{BindError, DType, PlanError, ProblemError, RunError};

/// A failure of the adapter, the device or the driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WgpuError {
    /// No adapter offers what was asked for.
    #[error("no adapter: {reason}")]
    NoAdapter {
        /// wgpu's words.
        reason: String,
    },
    /// The adapter gave no device.
    #[error("the adapter gave no device: {reason}")]
    NoDevice {
        /// wgpu's words.
        reason: String,
    },
    /// The device is gone; everything on it with it.
    #[error("the device was lost: {reason}")]
    DeviceLost {
        /// wgpu's words.
        reason: String,
    },
    /// No memory left on the device.
    #[error("the device is out of memory")]
    OutOfMemory,
    /// A buffer larger than the device makes.
    #[error("a buffer of {bytes} bytes: the device makes {limit} at most")]
    BufferTooLarge {
        /// Bytes asked for.
        bytes: u64,
        /// The device's limit.
        limit: u64,
    },
    /// wgpu refused a call: a buffer of another device, one that was destroyed, or a bug here.
    #[error("wgpu refused a call: {description}")]
    Validation {
        /// wgpu's words.
        description: String,
    },
    /// The driver failed in some way of its own.
    #[error("the driver failed: {description}")]
    Internal {
        /// wgpu's words.
        description: String,
    },
    /// A buffer could not be read back.
    #[error("a buffer could not be read back: {reason}")]
    ReadBack {
        /// wgpu's words.
        reason: String,
    },
}

impl From<wgpu::Error> for WgpuError {
    fn from(error: wgpu::Error) -> Self {
        match error {
            wgpu::Error::OutOfMemory { .. } => Self::OutOfMemory,
            wgpu::Error::Validation { description, .. } => Self::Validation { description },
            wgpu::Error::Internal { description, .. } => Self::Internal { description },
        }
    }
}

/// What the calls on slices can say: any stage's error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The problem makes no sense under the policy that the call needs.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// The device cannot serve the problem.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A slice does not fit the problem.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The call asks for outputs in a type that the problem does not write.
    #[error("outputs asked for in {got}, the problem writes {expected}")]
    OutputType {
        /// The problem's output type.
        expected: DType,
        /// The type asked for.
        got: DType,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] WgpuError),
}

impl From<RunError<WgpuError>> for CallError {
    fn from(error: RunError<WgpuError>) -> Self {
        match error {
            RunError::Bind(error) => Self::Bind(error),
            RunError::Device(error) => Self::Device(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No test fills a device's memory: the driver's answer stands in for it.
    #[test]
    fn each_of_the_drivers_answers_has_an_error_of_its_own() {
        let source = || -> wgpu::ErrorSource { "full".into() };
        let description = || "why".to_owned();
        let memory = wgpu::Error::OutOfMemory { source: source() };
        assert_eq!(WgpuError::from(memory), WgpuError::OutOfMemory);
        let invalid = wgpu::Error::Validation { source: source(), description: description() };
        assert_eq!(WgpuError::from(invalid), WgpuError::Validation { description: description() });
        let internal = wgpu::Error::Internal { source: source(), description: description() };
        assert_eq!(WgpuError::from(internal), WgpuError::Internal { description: description() });
    }
}
