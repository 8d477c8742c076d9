//! Selective copying over 16,384 steps: some symbols at random places in noise, to be said again at the end.
//!
//! What to remember is told by the symbols alone, so what is learned over short stretches holds over long ones: training
//! begins short, grows, and is asked over sequences longer than any it has seen.
//!
//!     cargo run --release -p ssm-burn --features train --example selective_copy -- --quick

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use clap::Parser;

#[path = "common/mod.rs"]
mod common;

use common::model::TokenModelConfig;
use common::tasks::{SelectiveCopying, Task};
use common::training::{Plan, accuracy, train};

/// Learns to remember a few symbols for a long time.
#[derive(Parser)]
struct Args {
    /// A run of under two minutes on two cores that has to reach 90% at the full length.
    #[arg(long)]
    quick: bool,
    /// L.
    #[arg(long, default_value_t = 16_384)]
    steps: usize,
    /// Symbols to remember.
    #[arg(long, default_value_t = 3)]
    symbols: usize,
    /// Epochs at each length of training.
    #[arg(long, default_value_t = 4)]
    epochs: usize,
    /// Where checkpoints and metrics go.
    #[arg(long, default_value = "target/selective_copy")]
    folder: PathBuf,
}

const QUICK_ACCURACY: f64 = 0.9;

fn main() -> ExitCode {
    let args = Args::parse();
    let task = |steps| Arc::new(SelectiveCopying { symbols: 8, length: args.symbols, steps, seed: 3 });
    let device = Device::flex().autodiff();
    device.seed(2);
    let any = task(args.steps);
    let mut model = TokenModelConfig::new(any.vocabulary(), any.classes())
        .with_memory((2.0, args.steps as f64))
        .init(&device);
    let epochs = if args.quick { 2 } else { args.epochs };
    let start = Instant::now();
    // As many tokens a batch at every length.
    for (steps, batch) in [(16, 64), (64, 16), (256, 4), (1024, 1)] {
        let folder = args.folder.join(steps.to_string());
        let plan = Plan { epochs, batches: 150, batch, learning_rate: 3e-3, resume: None };
        model = burn::module::Module::train(train(model, task(steps), plan, &folder));
    }
    let model = burn::module::Module::valid(&model);
    let reached = accuracy(&model, &*task(args.steps), 32, 1);
    println!(
        "accuracy over {} steps: {:.1}% (chance {:.1}%), after {:.0} s",
        args.steps,
        100.0 * reached,
        100.0 / any.classes() as f64,
        start.elapsed().as_secs_f64()
    );
    if args.quick && reached < QUICK_ACCURACY {
        eprintln!("below {}%", 100.0 * QUICK_ACCURACY);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
