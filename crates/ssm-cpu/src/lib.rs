#![doc = include_str!("../README.md")]

mod arena;
mod backend;
mod drive;
mod easy;
mod grid;
mod kernel;
mod ops;
mod output;
mod plan;
mod scan_backward;
mod scan_forward;
mod types;
mod view;

pub use backend::{CpuBackend, DeviceError};
pub use easy::{Error, Forward, Gradients, Inputs, backward, forward, step};
pub use plan::Detail;
pub use view::{CpuMut, CpuRef};

const NAME: &str = <CpuBackend as ssm_core::Backend>::NAME;
