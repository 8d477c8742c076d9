#![doc = include_str!("../README.md")]

mod dtype;
mod error;
mod problem;

pub use dtype::{DType, Element};
pub use error::{BindError, Operand, PlanError, ProblemError, RunError};
pub use problem::{Algorithm, Checkpoint, GatedScan, GatedScanBuilder, MemoryTile};
