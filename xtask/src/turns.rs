//! Two commits in turns: what seems slower than a baseline is measured again beside the baseline's own code.
//!
//! A baseline from another day saw another machine, even where the machine is the same one. Its commit is built in
//! target/baseline, and both programs measure the same case one after the other, who goes first alternating.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use ssm_benches::results::Host;

use crate::{bundle, compare, root};

/// Pairs a case.
const PAIRS: usize = 5;

/// The programs of two commits.
pub(crate) struct Turns {
    old: PathBuf,
    new: PathBuf,
    rows: PathBuf,
    quick: bool,
}

const BUILD: [&str; 6] = ["build", "--release", "--package", "ssm-benches", "--bin", "ssm-benches"];

impl Turns {
    /// Builds the commit that the baseline names, and this tree.
    ///
    /// # Errors
    ///
    /// When the baseline does not say which code it measured, or that does not build.
    pub(crate) fn new(baseline: &Host, quick: bool) -> Result<Self> {
        let Some(commit) = &baseline.commit else { bail!("the baseline names no commit to measure again") };
        ensure!(baseline.dirty != Some(true), "the baseline was measured with changes that are in no commit");
        let folder = root().canonicalize()?.join("target/baseline");
        let (tree, archive) = (folder.join("tree"), folder.join("tree.tar"));
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        fs::create_dir_all(&tree)?;
        // No worktree: nothing stays behind in the repository.
        let mut git = Command::new("git");
        done(
            git.current_dir(root())
                .args(["archive", "--format", "tar", "--output"])
                .arg(&archive)
                .arg(commit),
        )?;
        done(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree))?;
        let target = folder.join("build").display().to_string();
        let old = bundle::build(&tree, &[&BUILD[..], &["--target-dir", &target]].concat(), "ssm-benches")?;
        let new = bundle::build(&root(), &BUILD, "ssm-benches")?;
        Ok(Self { old, new, rows: folder.join("rows.json"), quick })
    }

    /// New time over old time, one entry a pair.
    ///
    /// # Errors
    ///
    /// When either program fails or does not have the case.
    pub(crate) fn ratios(&self, key: &str) -> Result<Vec<f64>> {
        let pair = |i: usize| match i % 2 {
            0 => self.time(&self.old, key).and_then(|old| Ok(self.time(&self.new, key)? / old)),
            _ => self.time(&self.new, key).and_then(|new| Ok(new / self.time(&self.old, key)?)),
        };
        (0..PAIRS).map(pair).collect()
    }

    /// The median time of one case in nanoseconds.
    fn time(&self, program: &Path, key: &str) -> Result<f64> {
        let mut command = Command::new(program);
        command.args(["--filter", key, "--out"]).arg(&self.rows);
        if let Some((backend, _)) = key.split_once('/') {
            command.args(["--backend", backend]);
        }
        if self.quick {
            command.arg("--quick");
        }
        done(&mut command)?;
        let results = compare::read(&self.rows)?;
        let row = results.results.iter().find(|row| row.key() == key);
        Ok(row.with_context(|| format!("{}: no case {key}", program.display()))?.median_ns)
    }
}

fn done(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| shown.clone())?;
    ensure!(status.success(), "{shown} ended with {status}");
    Ok(())
}
