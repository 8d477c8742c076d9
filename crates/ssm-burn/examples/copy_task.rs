//! The copy task with burn's training loop.
//!
//! Symbols come first, the labels after them: no connection past the recurrence can answer, and with a forget gate of 0
//! accuracy stays at chance (a test holds that).
//!
//!     cargo run --release -p ssm-burn --features train --example copy_task -- --quick

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Device, FloatDType};
use clap::{Parser, ValueEnum};

#[path = "common/mod.rs"]
mod common;

use common::model::TokenModelConfig;
use common::tasks::{Copying, Task};
use common::training::{Plan, accuracy, train};

/// Learns to say symbols again.
#[derive(Parser)]
struct Args {
    /// A run of under two minutes on two cores that has to reach 95%.
    #[arg(long)]
    quick: bool,
    /// What the scan computes in.
    #[arg(long, default_value = "f32")]
    compute: Compute,
    /// Symbols to say again.
    #[arg(long, default_value_t = 8)]
    length: usize,
    /// Steps between the last symbol and the first question.
    #[arg(long, default_value_t = 8)]
    delay: usize,
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// Go on after this epoch's checkpoint.
    #[arg(long)]
    resume: Option<usize>,
    /// Where checkpoints and metrics go.
    #[arg(long, default_value = "target/copy_task")]
    folder: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Compute {
    F32,
    F16,
    Bf16,
}

const QUICK_ACCURACY: f64 = 0.95;

fn main() {
    let args = Args::parse();
    let device = Device::flex().autodiff();
    device.seed(1);
    let (length, delay, epochs) = if args.quick { (5, 2, 4) } else { (args.length, args.delay, args.epochs) };
    let task = Arc::new(Copying { symbols: 8, length, delay, seed: 1 });
    let compute = match args.compute {
        Compute::F32 => None,
        Compute::F16 => Some(FloatDType::F16),
        Compute::Bf16 => Some(FloatDType::BF16),
    };
    let model = TokenModelConfig::new(task.vocabulary(), task.classes()).with_compute(compute).init(&device);
    let plan = Plan { epochs, batches: 150, batch: 64, learning_rate: 3e-3, resume: args.resume };
    let start = Instant::now();
    let model = train(model, task.clone(), plan, &args.folder);
    let accuracy = accuracy(&model, &*task, 8, 64);
    println!(
        "accuracy on unseen sequences: {:.1}% (chance {:.1}%), after {:.0} s",
        100.0 * accuracy,
        100.0 / task.classes() as f64,
        start.elapsed().as_secs_f64()
    );
    if args.quick && accuracy < QUICK_ACCURACY {
        eprintln!("below {}%", 100.0 * QUICK_ACCURACY);
        std::process::exit(1);
    }
}
