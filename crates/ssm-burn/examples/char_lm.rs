//! A character language model on any text, which then writes text of its own, one step at a time.
//!
//!     cargo run --release -p ssm-burn --features train --example char_lm -- --text README.md --quick

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[path = "common/mod.rs"]
mod common;

use common::model::{TokenModel, TokenModelConfig};
use common::tasks::Task;
use common::text::Text;
use common::training::{Plan, loss, train};

/// Learns to write like a text.
#[derive(Parser)]
struct Args {
    /// The text, UTF-8.
    #[arg(long)]
    text: PathBuf,
    /// A run of under two minutes on two cores that has to do better on unseen text than a guess from the character
    /// before alone.
    #[arg(long)]
    quick: bool,
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// Go on after this epoch's checkpoint.
    #[arg(long)]
    resume: Option<usize>,
    /// What the written text begins with.
    #[arg(long, default_value = "The ")]
    prompt: String,
    /// Characters to write.
    #[arg(long, default_value_t = 400)]
    write: usize,
    /// Below 1 the likely characters are written more often, above 1 less.
    #[arg(long, default_value_t = 0.7)]
    temperature: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where checkpoints and metrics go.
    #[arg(long, default_value = "target/char_lm")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let text = match std::fs::read_to_string(&args.text) {
        Ok(text) => text,
        Err(error) => return fail(&format!("{}: {error}", args.text.display())),
    };
    let window = 64;
    let Some(task) = Text::new(&text, window) else {
        return fail("the text is too short: ten windows of 64 characters are the least");
    };
    let task = Arc::new(task);
    let device = Device::flex().autodiff();
    device.seed(args.seed);
    let model = TokenModelConfig::new(task.vocabulary(), task.classes()).with_hidden(96).init(&device);
    let epochs = if args.quick { 3 } else { args.epochs };
    let plan = Plan { epochs, batches: 150, batch: 16, learning_rate: 4e-3, resume: args.resume };
    let start = Instant::now();
    let model = train(model, task.clone(), plan, &args.folder);
    let (model_nats, pair_nats) = (loss(&model, &*task, 16, 16), task.pair_entropy());
    println!(
        "{model_nats:.3} nats a character on unseen text, {pair_nats:.3} from the character before alone, after {:.0} s",
        start.elapsed().as_secs_f64()
    );
    write(&model, &task, &args);
    match args.quick && model_nats >= pair_nats {
        true => fail("no better than a guess from the character before"),
        false => ExitCode::SUCCESS,
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

/// Reads the prompt in one call and then writes a character a step. The states are all that is kept of the past.
fn write(model: &TokenModel, task: &Text, args: &Args) {
    let device = model.head.weight.device();
    let mut rng = StdRng::seed_from_u64(args.seed);
    let mut states = model.fresh(1);
    let mut tokens = task.encode(&args.prompt);
    if tokens.is_empty() {
        tokens.push(0);
    }
    print!("{}", args.prompt);
    let mut memory = Vec::new();
    let start = Instant::now();
    for written in 0..args.write {
        let row = TensorData::new(tokens.clone(), [1, tokens.len()]);
        let input = Tensor::<2, Int>::from_data(row, &device);
        let logits = model.advance(input, 1, &mut states).expect("tokens of the model's own alphabet");
        let next = sample(&logits.into_data().iter::<f64>().collect::<Vec<_>>(), args.temperature, &mut rng);
        print!("{}", task.alphabet[next]);
        tokens = vec![next as i64];
        if written == args.write / 10 || written + 1 == args.write {
            memory.extend(resident_bytes());
        }
    }
    println!();
    println!("{:.0} characters a second", args.write as f64 / start.elapsed().as_secs_f64());
    if let [early, late] = memory[..] {
        println!("{:.1} MiB resident after a tenth of them, {:.1} after all", mib(early), mib(late));
    }
}

/// An index, drawn by softmax(logits / temperature).
fn sample(logits: &[f64], temperature: f64, rng: &mut StdRng) -> usize {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|l| ((l - most) / temperature.max(1e-6)).exp()).collect();
    let mut left = rng.random_range(0.0..weights.iter().sum());
    for (i, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return i;
        }
    }
    weights.len() - 1
}

/// This process's memory, where Linux tells it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(1024 * line.trim().trim_end_matches(" kB").parse::<u64>().ok()?)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
