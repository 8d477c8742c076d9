#![doc = include_str!("../README.md")]

#[cfg(feature = "cust")]
mod cust_views;
mod device;
mod easy;
mod error;
mod kernels;
mod launch;
mod ops;
mod params;
mod plan;
mod tuning;
mod view;

#[cfg(test)]
mod abi_tests;
#[cfg(test)]
mod plan_tests;

pub use device::{CudaBackend, DeviceLimits};
pub use easy::{CudaElement, Error, Forward, Gradients, Inputs, backward, forward, step};
pub use error::{CudaError, ForeignStream, LoadError};
pub use ops::CudaOp;
pub use view::{CudaMut, CudaQueue, CudaRef};

/// cudarc as this crate uses it, for contexts, streams and slices.
pub use cudarc;
