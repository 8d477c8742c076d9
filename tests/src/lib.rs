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

/// Whether a backend of the table is put through a trial, by the names of both.
///
/// `wgpu-least` is wgpu again, on a device that binds less: what differs is which gradients share a kernel and how the
/// operands are cut. It runs the kernels that GPUs run, which take a software adapter half a second each to compile, so
/// it meets every type and algorithm under every option, each gradient and each policy, and not every size and value.
pub fn is_put_through(backend: &str, trial: &str) -> bool {
    const LEAST: [&str; 9] = [
        "::bitwise::",
        "::errors::",
        "::scan::contaminated_packed",
        "::scan::grads_",
        "::scan::million_steps",
        "::scan::options_b_c",
        "::scan::out_",
        "::scan::policy_",
        "::scan::tile_",
    ];
    backend != "wgpu-least" || LEAST.iter().any(|part| trial.contains(part))
}

/// The README's examples, run as they stand.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
