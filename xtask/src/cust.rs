//! `cargo xtask cust`: the tests of ssm-cuda's feature `cust`, linked on a machine without CUDA.
//!
//! cust links libcuda when it is built. Where there is none, a stub takes its place: every function that cust's raw
//! bindings declare, answering CUDA_ERROR_STUB_LIBRARY. What the tests then see is a driver that refuses to start.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::{bundle, root};

/// CUDA_ERROR_STUB_LIBRARY.
const STATUS: u32 = 34;

pub(crate) fn run() -> Result<()> {
    let stub = make_stub()?;
    println!("stub libcuda in {}", stub.display());
    let status = crate::cargo()
        .args(["test", "--package", "ssm-cuda", "--features", "cust"])
        .env("CUDA_LIBRARY_PATH", &stub)
        .env("LD_LIBRARY_PATH", stub.join("lib64"))
        .status()?;
    ensure!(status.success(), "the tests with feature cust failed: {status}");
    Ok(())
}

/// The unit tests with the feature, for a machine that has a libcuda.
pub(crate) fn build_tests() -> Result<PathBuf> {
    let what =
        ["test", "--no-run", "--profile", "ship", "--package", "ssm-cuda", "--features", "cust", "--lib"];
    let mut cargo = crate::cargo();
    cargo.env("CUDA_LIBRARY_PATH", make_stub()?);
    bundle::build_with(&mut cargo, &root(), &what, "ssm_cuda")
}

/// A folder that cust's build takes for a CUDA installation.
fn make_stub() -> Result<PathBuf> {
    let bindings = cust_raw()?.join("src/cuda.rs");
    let text =
        fs::read_to_string(&bindings).with_context(|| format!("{} cannot be read", bindings.display()))?;
    let mut code = String::new();
    for name in functions(&text) {
        writeln!(code, "int {name}(void) {{ return {STATUS}; }}")?;
    }
    ensure!(!code.is_empty(), "{} declares no function", bindings.display());
    let dir = root().canonicalize()?.join("target/cuda-stub");
    let lib = dir.join("lib64");
    fs::create_dir_all(&lib)?;
    let source = dir.join("stub.c");
    fs::write(&source, code)?;
    let library = lib.join("libcuda.so.1");
    let status = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .args(["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"])
        .args([&library, &source])
        .status()
        .context("a C compiler is needed to make the stub")?;
    ensure!(status.success(), "the stub does not compile: {status}");
    fs::copy(&library, lib.join("libcuda.so"))?;
    Ok(dir)
}

/// Where cargo keeps the source of cust's raw bindings.
fn cust_raw() -> Result<PathBuf> {
    let out =
        crate::cargo().args(["metadata", "--format-version", "1", "--features", "ssm-cuda/cust"]).output()?;
    ensure!(out.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let manifest = packages
        .iter()
        .find(|package| package["name"] == "cust_raw")
        .and_then(|package| package["manifest_path"].as_str())
        .context("cust_raw is not among the packages")?;
    let dir = PathBuf::from(manifest);
    Ok(dir.parent().context("a manifest lies in a folder")?.to_owned())
}

/// The functions that a file of bindings declares.
fn functions(bindings: &str) -> impl Iterator<Item = &str> {
    bindings.lines().filter_map(|line| {
        let (name, _) = line.trim().strip_prefix("pub fn ")?.split_once('(')?;
        name.starts_with("cu").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_functions_are_found() {
        let bindings =
            "extern \"C\" {\n    pub fn cuInit(flags: u32) -> CUresult;\n    pub fn helper();\n}\n";
        assert_eq!(functions(bindings).collect::<Vec<_>>(), ["cuInit"]);
    }
}
