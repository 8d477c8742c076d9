//! `cargo xtask bundle`: what a machine without Rust needs to test and measure its devices, in target/bundle.
//!
//! The binaries find the golden vectors beside them and libcuda, Vulkan and the like when they run. They need the C
//! library of this machine or a later one. `cust` alone links libcuda, a stub here, and starts only where there is one.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{cust, root};

const MOST_BYTES: u64 = 50 << 20;

/// Package and target of each test binary.
const TESTS: [(&str, &str); 3] =
    [("ssm-tests", "conformance"), ("ssm-tests", "properties"), ("ssm-cuda", "device")];

/// xtask/bundle: each says at its top what it does.
const SCRIPTS: [(&str, &str); 4] = [
    ("run-tests", include_str!("../bundle/run-tests")),
    ("run-benches", include_str!("../bundle/run-benches")),
    ("run-peers", include_str!("../bundle/run-peers")),
    ("prove-cuda", include_str!("../bundle/prove-cuda")),
];

/// What the peers' script loads, where it finds it in the repository.
const PEERS: [&str; 8] = [
    "benches/peers/gpu_peers.py",
    "benches/peers/gpu_contestants.py",
    "benches/peers/launches.json",
    "kernels/cuda/host/launch.py",
    "kernels/cuda/scan_tuning.h",
    "kernels/ptx/scan.sm_75.ptx",
    "kernels/ptx/scan.sm_80.ptx",
    "kernels/ptx/scan.sm_90.ptx",
];

pub(crate) fn run() -> Result<()> {
    let dir = root().canonicalize()?.join("target/bundle");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(dir.join("golden"))?;
    for (package, target) in TESTS {
        let what = ["test", "--no-run", "--profile", "ship", "--package", package, "--test", target];
        let built = build(&root(), &what, target)?;
        fs::copy(built, dir.join(target))?;
    }
    fs::copy(cust::build_tests()?, dir.join("cust"))?;
    let what = ["build", "--profile", "ship", "--package", "ssm-benches", "--bin", "ssm-benches"];
    let benches = build(&root(), &what, "ssm-benches")?;
    fs::copy(benches, dir.join("ssm-benches"))?;
    for entry in fs::read_dir(root().join("crates/ssm-testkit/golden"))? {
        let entry = entry?;
        fs::copy(entry.path(), dir.join("golden").join(entry.file_name()))?;
    }
    for file in PEERS {
        let to = dir.join(file);
        fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        fs::copy(root().join(file), to)?;
    }
    for (name, text) in SCRIPTS {
        script(&dir.join(name), text)?;
    }
    let bytes = size(&dir)?;
    ensure!(bytes <= MOST_BYTES, "the bundle has {bytes} bytes, more than {MOST_BYTES}");
    println!("{} ({:.1} MB)", dir.display(), bytes as f64 / 1e6);
    Ok(())
}

/// What git says of a workspace; none where there is no git or no repository.
fn git(workspace: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(workspace).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Builds one target of a workspace, and says where its executable is.
pub(crate) fn build(workspace: &Path, arguments: &[&str], target: &str) -> Result<PathBuf> {
    build_with(&mut crate::cargo(), workspace, arguments, target)
}

/// The same, by a cargo with an environment of its own.
pub(crate) fn build_with(
    cargo: &mut Command,
    workspace: &Path,
    arguments: &[&str],
    target: &str,
) -> Result<PathBuf> {
    // The machine that runs it may have no repository, or another commit of it.
    let commit = git(workspace, &["rev-parse", "HEAD"]);
    let changes = git(workspace, &["status", "--porcelain", "--untracked-files=no"]);
    let output = cargo
        .current_dir(workspace)
        .envs(commit.map(|commit| ("BENCH_COMMIT", commit)))
        .envs(changes.map(|changes| ("BENCH_DIRTY", (!changes.is_empty()).to_string())))
        .args(arguments)
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "{target} does not build: {}", output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == target)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo named no executable for {target}"))
}

fn script(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o755);
    options.open(path)?.write_all(text.as_bytes())?;
    Ok(())
}

fn size(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
