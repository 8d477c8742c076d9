#![doc = include_str!("../README.md")]

mod backend;
mod bind;
mod dtype;
mod error;
mod op;
mod plan;
mod problem;

pub use backend::{Backend, Kernel, Span, View};
pub use bind::{Bound, BoundParts, Checker, Extent};
pub use dtype::{DType, Element};
pub use error::{BindError, Operand, PlanError, ProblemError, RunError};
pub use op::{BackwardArgs, ForwardArgs, Grads, Op, ScanBackward, ScanForward, ScanStep, StepArgs};
pub use plan::{Plan, PlanOptions, Report, TrainPlan, plan_within};
pub use problem::{Algorithm, Checkpoint, GatedScan, GatedScanBuilder, MemoryTile};
