//! `cargo xtask ci`: everything that a change must pass, in one build folder and one profile.
//!
//! Warnings are refused by clippy, which compiles every target, and not through RUSTFLAGS, which would build every
//! dependency a second time. What needs a tool or a target that is not installed says so and is counted as absent.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{root, table};

/// Arguments of `cargo xtask ci`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// These steps only, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    only: Vec<String>,
    /// Name the steps and do nothing.
    #[arg(long)]
    list: bool,
    /// Where there is no nvcc, first fetch the pinned one from PyPI for the step ptx.
    #[arg(long)]
    install: bool,
}

/// What a step came to, when it did not fail.
enum Outcome {
    Passed,
    /// Not run, and why.
    Absent(String),
}

type Step = (&'static str, &'static str, fn() -> Result<Outcome>);

const STEPS: [Step; 15] = [
    ("fmt", "rustfmt has nothing to change", fmt),
    ("lines", "no source file is longer than 500 lines", lines),
    ("clippy", "no warning in any target", clippy),
    ("test", "the README's test command", test),
    ("portable", "the CPU backend without SIMD", portable),
    ("emulate", "the CUDA kernels on this host, without a GPU", emulate),
    ("cust", "the feature cust builds and links", cust),
    ("doc", "no warning in the documentation", doc),
    ("copy", "a model learns the copy task", copy),
    ("features", "every feature of every published crate compiles alone", features),
    ("package", "every published crate can be packaged", package),
    ("ptx", "kernels/ptx was made from kernels/cuda", ptx),
    ("targets", "core, CPU and wgpu compile for AArch64 and WebAssembly", targets),
    ("deny", "licences, sources and duplicate versions", deny),
    ("typos", "spelling", typos),
];

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(unknown) = args.only.iter().find(|name| STEPS.iter().all(|(step, ..)| step != name)) {
        bail!("no step {unknown}; --list names them");
    }
    if args.install
        && let Err(why) = crate::ptx::install_missing()
    {
        println!("no nvcc could be installed: {why:#}");
    }
    let mut rows = Vec::new();
    let mut failed = 0;
    for (name, what, step) in STEPS {
        if args.list {
            println!("{name:10} {what}");
            continue;
        }
        if !args.only.is_empty() && !args.only.iter().any(|n| n == name) {
            continue;
        }
        println!("── {name}: {what}");
        let start = Instant::now();
        let outcome = match step() {
            Ok(Outcome::Passed) => "passed".to_owned(),
            Ok(Outcome::Absent(why)) => format!("absent: {why}"),
            Err(why) => {
                failed += 1;
                println!("{why:#}");
                format!("FAILED: {why:#}").lines().next().unwrap_or_default().to_owned()
            }
        };
        rows.push(vec![name.to_owned(), outcome, format!("{:.0} s", start.elapsed().as_secs_f64())]);
    }
    if !args.list {
        println!("\n{}", table::columns(&["step", "outcome", "time"], &rows, 2));
    }
    ensure!(failed == 0, "{failed} of {} steps failed", rows.len());
    Ok(())
}

fn cargo(args: &[&str]) -> Command {
    let mut command = crate::cargo();
    command.args(args);
    command
}

fn passes(command: &mut Command) -> Result<Outcome> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| shown.clone())?;
    ensure!(status.success(), "{shown} ended with {status}");
    Ok(Outcome::Passed)
}

/// What a command prints; the error has what it said.
fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let out = command.output().with_context(|| shown.clone())?;
    ensure!(out.status.success(), "{shown}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}

/// Whether a program is installed: it answers to `--version`.
fn installed(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn fmt() -> Result<Outcome> {
    passes(&mut cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<Outcome> {
    passes(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

fn test() -> Result<Outcome> {
    passes(&mut cargo(&["test", "--workspace", "--locked"]))
}

// Of the whole workspace, so that nothing is built again: a package by itself has its dependencies with other features.
fn portable() -> Result<Outcome> {
    let run = |args: &[&str]| {
        let mut command = cargo(&["test", "--workspace", "--locked"]);
        passes(command.args(args).env("SSM_CPU_ISA", "portable"))
    };
    let mut of_cpu = Vec::new();
    for file in std::fs::read_dir(root().join("crates/ssm-cpu/tests"))? {
        of_cpu.push(file?.path().file_stem().unwrap_or_default().to_string_lossy().into_owned());
    }
    let mut args = vec!["--lib"];
    args.extend(of_cpu.iter().flat_map(|name| ["--test", name]));
    run(&args)?;
    run(&["--doc"])?;
    run(&["--test", "conformance", "--", "cpu"])
}

// Called, not run as a command: the tests build xtask anew, with other features, over the executable that runs.
fn emulate() -> Result<Outcome> {
    crate::emulate::all().map(|()| Outcome::Passed)
}

fn cust() -> Result<Outcome> {
    crate::cust::run().map(|()| Outcome::Passed)
}

fn doc() -> Result<Outcome> {
    passes(cargo(&["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"))
}

fn copy() -> Result<Outcome> {
    let run = ["run", "--locked", "--package", "ssm-burn", "--features", "train", "--example", "copy_task"];
    passes(cargo(&run).args(["--", "--quick"]))
}

const MOST_LINES: usize = 500;
const SOURCES: [&str; 6] = ["rs", "cu", "cuh", "wgsl", "py", "md"];

fn lines() -> Result<Outcome> {
    let mut long = String::new();
    let tracked = output(Command::new("git").current_dir(root()).args(["ls-files", "-z"]))?;
    for name in tracked.split('\0').filter(|name| !name.is_empty()) {
        let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
        if !SOURCES.contains(&extension) {
            continue;
        }
        // A tracked file may be deleted in the working tree.
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        let count = text.lines().count();
        if count > MOST_LINES {
            let _ = write!(long, "\n{name}: {count} lines");
        }
    }
    ensure!(long.is_empty(), "longer than {MOST_LINES} lines:{long}");
    Ok(Outcome::Passed)
}

/// The workspace's packages that are published, as `cargo metadata` describes them.
fn published() -> Result<Vec<Value>> {
    let text = output(&mut cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    // `publish = false` is an empty list of registries.
    Ok(packages.iter().filter(|p| p["publish"].is_null()).cloned().collect())
}

/// Each feature alone. A crate names those that cannot be built everywhere in
/// `[package.metadata.ci] skip-features = [...]`.
fn features() -> Result<Outcome> {
    for package in published()? {
        let name = package["name"].as_str().context("a package without a name")?;
        let skipped: Vec<&str> = package["metadata"]["ci"]["skip-features"]
            .as_array()
            .map(|list| list.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let check = ["check", "--package", name, "--locked", "--no-default-features"];
        passes(&mut cargo(&check))?;
        let Some(features) = package["features"].as_object() else { continue };
        for feature in features.keys().filter(|f| !skipped.contains(&f.as_str())) {
            passes(cargo(&check).args(["--features", feature]))?;
        }
        for feature in skipped {
            println!("{name}: feature {feature} not checked here");
        }
    }
    Ok(Outcome::Passed)
}

fn package() -> Result<Outcome> {
    let mut command = cargo(&["package", "--locked", "--no-verify", "--allow-dirty"]);
    for package in published()? {
        command.args(["--package", package["name"].as_str().context("a package without a name")?]);
    }
    passes(&mut command)
}

fn ptx() -> Result<Outcome> {
    crate::ptx::check().map(|()| Outcome::Passed)
}

fn targets() -> Result<Outcome> {
    let mut absent = Vec::new();
    for target in ["aarch64-unknown-linux-gnu", "wasm32-unknown-unknown"] {
        let folder = output(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))?;
        if !Path::new(folder.trim()).exists() {
            absent.push(target);
            continue;
        }
        let check = ["check", "--locked", "--target", target];
        passes(cargo(&check).args(["--package", "ssm-core", "--package", "ssm-cpu"]))?;
        // On the web wgpu is the browser's.
        let features: &[&str] = if target.starts_with("wasm32") { &["--features", "webgpu"] } else { &[] };
        passes(cargo(&check).args(["--package", "ssm-wgpu"]).args(features))?;
    }
    match absent.is_empty() {
        true => Ok(Outcome::Passed),
        false => Ok(Outcome::Absent(format!("{} not installed", absent.join(" and ")))),
    }
}

fn deny() -> Result<Outcome> {
    if !installed("cargo", &["deny"]) {
        return Ok(Outcome::Absent("cargo-deny is not installed".to_owned()));
    }
    // Advisories need a database from the network; a scheduled job is the place for them.
    passes(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]))
}

fn typos() -> Result<Outcome> {
    if !installed("typos", &[]) {
        return Ok(Outcome::Absent("typos is not installed".to_owned()));
    }
    passes(Command::new("typos").current_dir(root()))
}
