#![doc = include_str!("../README.md")]

mod harness;
mod host;

pub use harness::{Failure, Harness};
pub use host::HostTensor;
