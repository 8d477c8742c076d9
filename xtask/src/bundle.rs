//! `cargo xtask bundle`: what a machine without Rust needs to test and measure its devices, in target/bundle.
//!
//! The binaries find the golden vectors beside them and libcuda, Vulkan and the like when they run. They need the C
//! library of this machine or a later one.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::root;

const MOST_BYTES: u64 = 50 << 20;

/// Package and target of each test binary.
const TESTS: [(&str, &str); 3] =
    [("ssm-tests", "conformance"), ("ssm-tests", "properties"), ("ssm-cuda", "device")];

const RUN_TESTS: &str = r#"#!/bin/sh
# Every suite over every backend that is here; arguments go to all of them, as a name to filter by.
# SSM_REQUIRE=cuda (a list, by comma) fails where a backend has no device instead of ignoring its trials.
cd "$(dirname "$0")" || exit
export SSM_GOLDEN_DIR="${SSM_GOLDEN_DIR:-$PWD/golden}"
status=0
for suite in conformance properties device; do
    echo "== $suite"
    "./$suite" "$@" || status=1
done
exit $status
"#;

const RUN_BENCHES: &str = r#"#!/bin/sh
# Measures every backend that is here and writes results.json, as cargo xtask bench-all does.
# Arguments: --quick, --backend LIST, --filter TEXT, --out FILE.
cd "$(dirname "$0")" || exit
case " $* " in
    *" --out "*) exec ./ssm-benches "$@" ;;
    *) exec ./ssm-benches --out results.json "$@" ;;
esac
"#;

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
    let what = ["build", "--profile", "ship", "--package", "ssm-benches", "--bin", "ssm-benches"];
    let benches = build(&root(), &what, "ssm-benches")?;
    fs::copy(benches, dir.join("ssm-benches"))?;
    for entry in fs::read_dir(root().join("crates/ssm-testkit/golden"))? {
        let entry = entry?;
        fs::copy(entry.path(), dir.join("golden").join(entry.file_name()))?;
    }
    script(&dir.join("run-tests"), RUN_TESTS)?;
    script(&dir.join("run-benches"), RUN_BENCHES)?;
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
    // The machine that runs it may have no repository, or another commit of it.
    let commit = git(workspace, &["rev-parse", "HEAD"]);
    let changes = git(workspace, &["status", "--porcelain", "--untracked-files=no"]);
    let output = crate::cargo()
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
