//! The project's own tasks, one module a command.

mod cust;
mod emulate;
mod ptx;

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
    /// Run the tests of ssm-cuda's feature `cust`, against a stub libcuda.
    Cust,
    /// Run the CUDA tests on this host, through emulated kernels behind an emulated driver.
    Emulate(emulate::Args),
    /// Compile kernels/cuda to kernels/ptx.
    Ptx(ptx::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Cust => cust::run(),
        Command::Emulate(args) => emulate::run(&args),
        Command::Ptx(args) => ptx::run(&args),
    }
}

/// The repository root.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
