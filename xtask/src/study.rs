//! `cargo xtask study`: how layers behave rather than how fast kernels are, as results.json and its report.
//!
//! A study is an example of ssm-burn, built optimised here, so that xtask needs no burn.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::report;

/// Arguments of `cargo xtask study`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to look at.
    study: Study,
    /// A small run, of under two minutes on two cores once it is built.
    #[arg(long)]
    quick: bool,
    /// The folder for results.json and the report; bench-results/STUDY when not given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Passed on to the study.
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Study {
    /// Training curves of the copy task with the scan in f32, f16 and bf16.
    Precision,
    /// The error of a stack of layers against float64, by depth and length.
    Drift,
    /// What a training step holds at its peak, by what the scan keeps for backward.
    Memory,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let example = match args.study {
        Study::Precision => "precision",
        Study::Drift => "drift",
        Study::Memory => "memory",
    };
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("bench-results").join(example));
    let mut command = crate::cargo();
    command.args(["run", "--release", "--package", "ssm-burn", "--example", example, "--"]);
    command.arg("--out").arg(std::path::absolute(&out)?).args(&args.rest);
    if args.quick {
        command.arg("--quick");
    }
    let status = command.status().context("cargo")?;
    ensure!(status.success(), "the study ended with {status}");
    report::run(&report::Args { files: vec![out.join("results.json")], out })
}
