//! The project's own tasks, one module a command.

mod bench_all;
mod bundle;
mod ci;
mod compare;
mod cust;
mod emulate;
mod numerics;
mod ptx;
mod report;
mod study;
mod table;
mod turns;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The project's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the tests and benchmarks for a machine without Rust, in target/bundle.
    Bundle,
    /// Run the tests of ssm-cuda's feature `cust`, against a stub libcuda.
    Cust,
    /// Run the CUDA tests on this host, through emulated kernels behind an emulated driver.
    Emulate(emulate::Args),
    /// Compile kernels/cuda to kernels/ptx.
    Ptx(ptx::Args),
    /// Measure every backend that is present beside its memory's bandwidth.
    BenchAll(bench_all::Args),
    /// Measure the error against float64 by length, type and output: docs/numerics.csv and docs/numerics.svg.
    Numerics(numerics::Args),
    /// What got slower or faster between two results files; fails past a threshold.
    Compare(compare::Args),
    /// Show results files side by side: a page, Markdown and CSV.
    Report(report::Args),
    /// Train or run layers to see how they behave, and report it: precision, drift, memory.
    Study(study::Args),
    /// Everything that a change must pass.
    Ci(ci::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Bundle => bundle::run(),
        Command::Cust => cust::run(),
        Command::Emulate(args) => emulate::run(&args),
        Command::Ptx(args) => ptx::run(&args),
        Command::BenchAll(args) => bench_all::run(&args),
        Command::Numerics(args) => numerics::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Study(args) => study::run(&args),
        Command::Ci(args) => ci::run(&args),
    }
}

/// The cargo that runs this, at the repository root.
fn cargo() -> std::process::Command {
    let mut command = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The repository root.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
