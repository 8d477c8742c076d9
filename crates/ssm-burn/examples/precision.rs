//! How training goes when the scan computes in f32, f16 or bf16: loss and accuracy on the copy task by step.
//!
//!     cargo run --release -p ssm-burn --example precision -- --out target/studies/precision
//!
//! Parameters are f32 in every run, and all runs begin with the same and see the same data. On a GPU, through burn's wgpu
//! backend, which has no bf16:
//!
//!     cargo run --release -p ssm-burn --features wgpu --example precision -- --wgpu --layers 12

use std::path::PathBuf;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use clap::Parser;
use ssm_benches::results::{Curve, CurvePoint};

#[path = "common/mod.rs"]
mod common;

use common::model::{TokenModel, TokenModelConfig};
use common::study::{self, Failure, Place};
use common::tasks::{Copying, Task, UNSEEN};

/// Trains one model in each type.
#[derive(Parser)]
struct Args {
    /// A run of under two minutes on two cores.
    #[arg(long)]
    quick: bool,
    /// On the best adapter of burn's wgpu backend.
    #[arg(long)]
    wgpu: bool,
    #[arg(long, default_value_t = 4)]
    layers: usize,
    #[arg(long, default_value_t = 1000)]
    steps: u64,
    /// Symbols to say again.
    #[arg(long, default_value_t = 8)]
    length: usize,
    /// Steps between the last symbol and the first question.
    #[arg(long, default_value_t = 8)]
    delay: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder for results.json.
    #[arg(long, default_value = "target/studies/precision")]
    out: PathBuf,
}

const BATCH: u64 = 64;
/// Steps between evaluations.
const EVERY: u64 = 25;

/// Loss, and the share of right answers, over one batch.
fn answers(model: &TokenModel, task: &Copying, first: u64, device: &Device) -> (Tensor<1>, Tensor<1>) {
    let examples: Vec<_> = (first..first + BATCH).map(|index| task.example(index)).collect();
    let tokens: Vec<i64> = examples.iter().flat_map(|e| e.tokens.clone()).collect();
    let labels: Vec<i64> = examples.iter().flat_map(|e| e.labels.clone()).collect();
    let (rows, asked) = (examples.len(), labels.len());
    let len = tokens.len() / rows;
    let tokens = Tensor::from_data(TensorData::new(tokens, [rows, len]), device);
    let logits = model.last(tokens, task.length).expect("a batch of the model's own making");
    let logits = logits.reshape([asked, task.symbols]);
    let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [asked]), device);
    let right = logits.clone().argmax(1).reshape([-1]).equal(labels.clone()).float().mean();
    (CrossEntropyLossConfig::new().init(device).forward(logits, labels), right)
}

fn evaluate(model: &TokenModel, task: &Copying, step: u64, device: &Device) -> CurvePoint {
    let (loss, right) = answers(&model.valid(), task, UNSEEN, &device.clone().without_autodiff());
    let loss = loss.into_scalar::<f64>();
    CurvePoint { step, loss: loss.is_finite().then_some(loss), accuracy: Some(right.into_scalar::<f64>()) }
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let quick = |small, usual| if args.quick { small } else { usual };
    let task =
        Copying { symbols: 8, length: quick(5, args.length), delay: quick(2, args.delay), seed: args.seed };
    let (layers, steps) = (quick(2, args.layers), if args.quick { 400 } else { args.steps });
    let place = if args.wgpu { Place::wgpu()? } else { Place::cpu() };
    let device = place.device.clone().autodiff();
    let mut curves = Vec::new();
    let types = [None, Some(FloatDType::F16), Some(FloatDType::BF16)];
    for &compute in if args.wgpu { &types[..2] } else { &types[..] } {
        device.seed(args.seed);
        let config = TokenModelConfig::new(task.vocabulary(), task.classes()).with_layers(layers);
        let mut model = config.with_compute(compute).init(&device);
        let mut optimizer = AdamWConfig::new().init();
        let mut points = vec![evaluate(&model, &task, 0, &device)];
        for step in 0..steps {
            let (loss, _) = answers(&model, &task, step * BATCH, &device);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(3e-3, model, gradients);
            if (step + 1) % EVERY == 0 {
                points.push(evaluate(&model, &task, step + 1, &device));
            }
        }
        let dtype = study::type_name(compute);
        if let Some(CurvePoint { step, loss: Some(loss), accuracy: Some(right) }) = points.last() {
            println!("{dtype:5} after {step} steps: loss {loss:.4}, {:.1}% right", 100.0 * right);
        }
        curves.push(Curve {
            task: format!("copy {} symbols over {} steps", task.length, task.length + task.delay),
            model: format!("{layers} gated SSM layers"),
            backend: place.backend.to_owned(),
            device: place.name.clone(),
            dtype,
            seed: args.seed,
            points,
        });
    }
    study::write(&args.out, args.quick, args.seed, |results| results.curves = curves)
}
