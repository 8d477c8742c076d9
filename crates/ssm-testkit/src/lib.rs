#![doc = include_str!("../README.md")]

mod cases;
pub mod drift;
pub mod golden;
mod golden_layers;
mod harness;
mod host;
mod host_harness;
pub mod memory;
pub mod oracle;
pub mod order;
mod placed;
mod reference;
mod reference_harness;
pub mod rows;
mod subject;
mod suite;
pub mod tolerance;
mod values;

pub use cases::{Case, cases};
pub use harness::{Failure, Harness};
pub use host::HostTensor;
pub use host_harness::HostHarness;
pub use reference::{HostMut, HostRef, ReferenceBackend, report};
pub use reference_harness::{ReferenceHarness, host_mut, host_ref};
pub use subject::{AnyOp, Call, CallError, Erased, Ran, Subject, Tamper};
pub use suite::{Check, Violation, check_outputs, checks, golden_trials, required, trials};
pub use values::{Values, draw, rng, seed};
