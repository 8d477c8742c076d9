//! One binary for every test, since each one would link burn again.

#[path = "../../examples/common/mod.rs"]
mod common;
mod generation;
mod hawk;
mod host;
mod layers;
mod scan;
mod scan_laws;
mod slots;
mod training;
mod weights;
#[cfg(feature = "wgpu")]
mod wgpu;
