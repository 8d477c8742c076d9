//! Memory over 16,384 steps: values are written to a few places at random times, with silence between; at the end the value
//! of each place is asked for.
//!
//! What is learned over short stretches holds over long ones: training sees at most 2,048 steps, the question comes after
//! eight times as many.
//!
//!     cargo run --release -p ssm-burn --features train --example long_memory -- --quick

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use clap::Parser;

#[path = "common/mod.rs"]
mod common;

use common::model::TokenModelConfig;
use common::tasks::{Recall, Task};
use common::training::{Plan, accuracy, train};

/// Learns to remember for a long time.
#[derive(Parser)]
struct Args {
    /// A run of under two minutes on two cores that has to reach 90% at the full length.
    #[arg(long)]
    quick: bool,
    /// L of the question.
    #[arg(long, default_value_t = 16_384)]
    steps: usize,
    /// Places to write to.
    #[arg(long, default_value_t = 4)]
    places: usize,
    /// Writes to each place. More than one has to cut what was there before, and takes longer to learn.
    #[arg(long, default_value_t = 1)]
    writes: usize,
    /// Epochs at each length of training.
    #[arg(long, default_value_t = 6)]
    epochs: usize,
    /// Where checkpoints and metrics go.
    #[arg(long, default_value = "target/long_memory")]
    folder: PathBuf,
}

const QUICK_ACCURACY: f64 = 0.9;

fn main() -> ExitCode {
    let args = Args::parse();
    let Args { places, writes, steps, .. } = args;
    if places == 0 || writes == 0 || places * (writes + 1) > 32.min(steps) {
        eprintln!("the writes and questions have to fit into the shortest training, 32 steps");
        return ExitCode::FAILURE;
    }
    let task = |steps| Arc::new(Recall { places, values: 8, writes, steps, seed: 3 });
    let device = Device::flex().autodiff();
    device.seed(2);
    let asked = task(steps);
    // One layer, whose gates begin with memories around and above the length of the question.
    let mut model = TokenModelConfig::new(asked.vocabulary(), asked.classes())
        .with_layers(1)
        .with_memory((500.0, 200_000.0))
        .with_silence(Some(0))
        .init(&device);
    let epochs = if args.quick { 3 } else { args.epochs };
    let start = Instant::now();
    // As many tokens a batch at every length.
    for (steps, batch) in [(32, 64), (256, 8), (2048, 1)] {
        let folder = args.folder.join(steps.to_string());
        let plan = Plan { epochs, batches: 100, batch, learning_rate: 3e-3, resume: None };
        model = train(model, task(steps), plan, &folder).train();
    }
    let reached = accuracy(&model.valid(), &*asked, 32, 1);
    println!(
        "accuracy over {steps} steps: {:.1}% (chance {:.1}%), after {:.0} s",
        100.0 * reached,
        100.0 / asked.classes() as f64,
        start.elapsed().as_secs_f64()
    );
    if args.quick && reached < QUICK_ACCURACY {
        eprintln!("below {}%", 100.0 * QUICK_ACCURACY);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
