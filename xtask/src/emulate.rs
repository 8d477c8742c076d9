//! `cargo xtask emulate`: the CUDA backend on a machine without a GPU.
//!
//! kernels/cuda/host compiles the kernels for the host behind a libcuda of its own, and the tests run on that as they
//! would on a device, unchanged. Slow, and blind to races and speed; it sees arithmetic, carries, tails and launches.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::root;

const ARCH: u32 = 90;

/// Arguments of `cargo xtask emulate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The architecture whose tile sizes the emulated device takes: 75, 80 or 90.
    #[arg(long, default_value_t = ARCH)]
    arch: u32,
    /// What cargo test runs; without it, the tests of ssm-cuda and the conformance suite over CUDA.
    #[arg(last = true)]
    test: Vec<String>,
}

/// Every test, on the default architecture.
pub(crate) fn all() -> Result<()> {
    run(&Args { arch: ARCH, test: Vec::new() })
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = build(args.arch)?;
    // 70,000 rows are as many blocks of fibers: minutes each. The suite is that of the whole workspace, built already where
    // its tests were run: a package by itself has its dependencies with other features.
    let all = [
        vec!["--package", "ssm-cuda", "--test", "device"],
        vec!["--workspace", "--test", "conformance", "--", "cuda::", "--skip", "rows_70000"],
    ];
    if args.test.is_empty() {
        return all.iter().try_for_each(|arguments| test(&dir, arguments));
    }
    test(&dir, &args.test)
}

fn test(dir: &PathBuf, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Result<()> {
    let status = crate::cargo()
        .arg("test")
        .args(arguments)
        .env("LD_LIBRARY_PATH", dir)
        .env("SSM_REQUIRE", "cuda")
        .status()?;
    ensure!(status.success(), "the tests on the emulated device failed: {status}");
    Ok(())
}

/// The folder that holds the emulated libcuda.
fn build(arch: u32) -> Result<PathBuf> {
    let root = root().canonicalize()?;
    let dir = root.join(format!("target/emulator/sm_{arch}"));
    fs::create_dir_all(&dir)?;
    // Under another name first: a test that still runs has the old one mapped.
    let (fresh, library) = (dir.join("fresh.so"), dir.join("libcuda.so.1"));
    let status = Command::new(env::var_os("CXX").unwrap_or_else(|| "c++".into()))
        .current_dir(root.join("kernels/cuda/host"))
        .args(["-std=c++20", "-O2", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"])
        .arg(format!("-DSCAN_ARCH={arch}"))
        .args(["emulator.cpp", "driver.cpp", "-o"])
        .arg(&fresh)
        .status()
        .context("a C++ compiler is needed to emulate the kernels")?;
    ensure!(status.success(), "the emulator does not compile: {status}");
    fs::rename(&fresh, &library)?;
    // cudarc looks for this name first.
    fs::copy(&library, &fresh)?;
    fs::rename(&fresh, dir.join("libcuda.so"))?;
    Ok(dir)
}
