//! `cargo xtask bench-all`: builds the benchmarks, runs them, and shows and compares what they wrote.
//!
//! The measuring itself is the program `ssm-benches`, built optimised here, so that xtask stays small to build.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use ssm_benches::results::Row;

use crate::turns::Turns;
use crate::{compare, root, table};

/// Arguments of `cargo xtask bench-all`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The standard shapes with few samples: two minutes on two cores, the build not counted.
    #[arg(long)]
    quick: bool,
    /// These backends only: cpu, wgpu, cuda, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    backend: Vec<String>,
    /// Cases whose backend/op/direction/dtype/shape/variant contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The folder that results.json is written to.
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    out: PathBuf,
    /// Compare with an older results.json, and fail when anything got slower.
    #[arg(long, value_name = "OLD.json")]
    baseline: Option<PathBuf>,
    /// How much slower, beyond the spread of both runs, fails the comparison.
    #[arg(long, value_name = "PCT", default_value_t = 5.0)]
    threshold: f64,
    /// Measure what seems slower again, in turns with the code of the baseline's commit.
    #[arg(long, requires = "baseline")]
    confirm: bool,
    /// Measure PyTorch, JAX and numba in the same run too; installs them under target/peers.
    #[arg(long)]
    peers: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // Read first: a baseline that is not there should not cost a run.
    let baseline = args.baseline.as_deref().map(compare::read).transpose()?;
    let out = std::path::absolute(&args.out)?.join("results.json");
    measure(args, &out)?;
    let mut results = compare::read(&out)?;
    if args.peers {
        let rows = peers(args)?;
        results.results.extend(rows);
        results.write(&out).map_err(|e| anyhow!(e))?;
    }
    println!("{}", table::results(&results));
    if args.peers {
        println!("{}", table::peers(&results));
    }
    println!("{}", args.out.join("results.json").display());
    ensure!(!results.results.is_empty() || !results.errors.is_empty(), "nothing was measured");
    if let Some(mut old) = baseline {
        // What this run was not asked for is not gone.
        old.results.retain(|row| asked_for(args, row));
        let mut changes = compare::changes(&old, &results, args.threshold);
        if args.confirm && changes.failed() {
            println!("{changes}\nmeasuring what seems slower again, in turns with the baseline's commit");
            let turns = Turns::new(&old.host, args.quick)?;
            changes.confirm(|key| turns.ratios(key))?;
        }
        changes.finish()?;
    }
    Ok(())
}

fn asked_for(args: &Args, row: &Row) -> bool {
    let backend = args.backend.is_empty() || args.backend.contains(&row.backend);
    backend && args.filter.as_ref().is_none_or(|text| row.key().contains(text.as_str()))
}

/// Runs the benchmark program. Its progress bar goes to the terminal.
fn measure(args: &Args, out: &Path) -> Result<()> {
    let mut command = crate::cargo();
    command.args(["run", "--release", "--package", "ssm-benches", "--"]);
    command.arg("--out").arg(out);
    if args.quick {
        command.arg("--quick");
    }
    if !args.backend.is_empty() {
        command.arg("--backend").arg(args.backend.join(","));
    }
    if let Some(filter) = &args.filter {
        command.arg("--filter").arg(filter);
    }
    let status = command.status().context("cargo")?;
    ensure!(status.success(), "the benchmarks ended with {status}");
    Ok(())
}

/// Runs the peers' script in its own environment and takes over its rows.
fn peers(args: &Args) -> Result<Vec<Row>> {
    let (script, rows) = (root().join("benches/peers/peers.py"), root().join("target/peers/peers.json"));
    let mut command = Command::new(if cfg!(windows) { "python" } else { "python3" });
    command.arg(&script).arg("--out").arg(&rows);
    if args.quick {
        command.arg("--quick");
    }
    if let Some(filter) = &args.filter {
        command.arg("--filter").arg(filter);
    }
    let status = command.status().with_context(|| script.display().to_string())?;
    ensure!(status.success(), "the peers ended with {status}");
    let text = std::fs::read_to_string(&rows).with_context(|| rows.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}
