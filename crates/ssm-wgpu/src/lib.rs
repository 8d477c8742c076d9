#![doc = include_str!("../README.md")]

mod accessors;
mod asked;
mod device;
mod dispatch;
mod error;
mod grid;
mod host;
mod kernel;
mod launch;
mod passes;
mod pipeline;
mod schedule;
mod shader;
#[cfg(test)]
mod shader_tests;
mod view;
mod wait;

pub use device::WgpuBackend;
pub use error::{CallError, WgpuError};
pub use host::{ScanGradients, ScanInputs, ScanOutputs};
pub use kernel::ScanDetail;
pub use view::{WgpuMut, WgpuRef};
pub use wgpu;
