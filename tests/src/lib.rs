//! The table of backends under test: one file a backend, one line here.

mod cpu;
mod cuda;
mod reference;
mod wgpu;

use std::sync::Arc;

use ssm_testkit::Harness;

/// What is done with every backend of the table.
pub trait Visitor {
    /// One backend: its harness, or why its device is missing.
    fn visit<H: Harness + 'static>(&mut self, name: &'static str, harness: Result<Arc<H>, String>);
}

/// Visits every backend.
pub fn each_backend(visitor: &mut impl Visitor) {
    visitor.visit("cpu", cpu::open());
    visitor.visit("cuda", cuda::open());
    visitor.visit("reference", reference::open());
    visitor.visit("wgpu", wgpu::open());
    visitor.visit("wgpu-least", wgpu::open_least());
}

/// The README's examples, run as they stand.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
