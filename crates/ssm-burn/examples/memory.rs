//! What a training step of the gated SSM layer holds at its peak, by what its scan keeps for backward.
//!
//!     cargo run --release -p ssm-burn --example memory -- --out target/studies/memory
//!
//! The peak is counted in the allocator, over all threads, beyond what is there before the step. Times are beside it, as
//! memory is only one side.

use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::{Distribution, Tensor};
use clap::Parser;
use ssm_benches::results::{NOISY, Row};
use ssm_benches::stats::Summary;
use ssm_burn::{Checkpoint, GatedSsmConfig, Recurrent};
use ssm_core::{DType, GatedScan, Grads, TrainPlan};
use ssm_cpu::CpuBackend;
use ssm_testkit::memory::{self, Counting};

#[path = "common/mod.rs"]
mod common;

use common::study::{self, Failure, Place};

/// Measures memory.
#[derive(Parser)]
struct Args {
    /// One length, few runs.
    #[arg(long)]
    quick: bool,
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// D.
    #[arg(long, default_value_t = 64)]
    hidden: usize,
    /// Channels of the scan are D times this.
    #[arg(long, default_value_t = 4)]
    multiplier: usize,
    /// The folder for results.json.
    #[arg(long, default_value = "target/studies/memory")]
    out: PathBuf,
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SEED: u64 = 1;

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let place = Place::cpu();
    let device = place.device.clone().autodiff();
    let mut rows = Vec::new();
    for len in if args.quick { vec![1024] } else { vec![1024, 4096, 16_384] } {
        for policy in Checkpoint::ALL {
            device.seed(SEED);
            let config = GatedSsmConfig::new(args.hidden).with_state_multiplier(args.multiplier);
            let layer = config.init(&device).with_checkpoint(policy);
            let range = Distribution::Uniform(-1.0, 1.0);
            let x = Tensor::<3>::random([args.batch, len, args.hidden], range, &device).require_grad();
            let mut peak = 0;
            let mut times = Vec::new();
            // The first run warms up: what it allocates and leaves to the next ones is no part of a step.
            for run in 0..if args.quick { 4 } else { 8 } {
                let start = Instant::now();
                let mut outcome = Ok(());
                let held = memory::peak(|| {
                    outcome = layer.forward(x.clone()).map(|y| drop(y.square().mean().backward()));
                });
                outcome?;
                if run > 0 {
                    times.push(start.elapsed().as_nanos() as f64);
                    peak = peak.max(held as u64);
                }
            }
            rows.push(row(&place, &args, len, policy, peak, &times)?);
        }
    }
    for row in &rows {
        let mib = |bytes: Option<u64>| bytes.unwrap_or(0) as f64 / f64::from(1 << 20);
        println!(
            "{:?} {:18} saved {:8.1} MiB, step's peak {:8.1} MiB, {:8.1} ms",
            row.shape,
            row.variant,
            mib(row.saved_bytes),
            mib(row.peak_bytes),
            row.median_ns / 1e6
        );
    }
    study::write(&args.out, args.quick, SEED, |results| results.results = rows)
}

fn row(
    place: &Place,
    args: &Args,
    len: usize,
    policy: Checkpoint,
    peak: u64,
    times: &[f64],
) -> Result<Row, Failure> {
    let shape = [args.batch, len, args.hidden * args.multiplier];
    let scan =
        GatedScan::builder(shape[0], shape[1], shape[2]).final_state(true).checkpoint(policy).build()?;
    let plan = TrainPlan::new(&CpuBackend::new(), &scan.backward(Grads::all(&scan))?)?;
    let (forward, backward) = (plan.forward.report(), plan.backward.report());
    let time = Summary::of(times);
    // 5 tensors forward and 9 backward.
    let bytes = 14 * scan.elements() * DType::F32.size();
    Ok(Row {
        backend: place.backend.to_owned(),
        device: place.name.clone(),
        op: "gated_ssm".to_owned(),
        direction: "train".to_owned(),
        dtype: "f32".to_owned(),
        shape,
        variant: format!("keep-{policy}"),
        algorithm: forward.algorithm.name().to_owned(),
        median_ns: time.median,
        p10_ns: time.p10,
        p90_ns: time.p90,
        bytes,
        gb_per_s: bytes as f64 / time.median,
        reference_gb_per_s: None,
        fraction: None,
        fraction_p10: None,
        fraction_p90: None,
        reference: None,
        checkpoint: Some(policy.name().to_owned()),
        saved_bytes: Some(forward.saved_bytes()),
        workspace_bytes: Some(forward.workspace_bytes.max(backward.workspace_bytes)),
        peak_bytes: Some(peak),
        samples: times.len(),
        launches: 1,
        noisy: time.spread() > NOISY,
    })
}
