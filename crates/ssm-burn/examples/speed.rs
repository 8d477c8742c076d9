//! A training step of the gated SSM layer beside the same layer whose scan is burn's own ops in a loop over time.
//!
//!     cargo run --release -p ssm-burn --example speed -- --torch
//!
//! Prints medians, their ratio, and the share of the step that the scan and the matrix products take. `--torch` times the
//! layer in PyTorch too, by benches/peers/layer.py, which installs PyTorch under target first. `--shape B,L,D` picks another
//! shape.

use std::process::Command;
use std::time::Instant;

use burn::tensor::activation::{sigmoid, silu};
use burn::tensor::{Device, Distribution, Tensor};
use clap::Parser;
use ssm_burn::{GatedSsm, GatedSsmConfig, Recurrent, ScanOptions, gated_scan};

/// Tensors of a step are tens of MiB, which the system's allocator may map and clear anew each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times training steps.
#[derive(Parser)]
struct Args {
    /// B, L and D of the layer's input.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 1024, 256])]
    shape: Vec<usize>,
    /// Channels of the scan are D times this.
    #[arg(long, default_value_t = 4)]
    multiplier: usize,
    /// Runs of our step; burn's loop runs a third as often, at least once.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The same layer in PyTorch too.
    #[arg(long)]
    torch: bool,
}

/// The layer's forward with a scan of burn's own ops, one step of time after the other.
fn with_loop(layer: &GatedSsm, x: Tensor<3>) -> Tensor<3> {
    let n = layer.norm.as_ref().map_or_else(|| x.clone(), |norm| norm.forward(x.clone()));
    let a = sigmoid(layer.a.forward(n.clone()) + layer.a_bias.val().unsqueeze());
    let u = layer.b.forward(n.clone()) * sigmoid(layer.d.forward(n.clone()));
    let c = silu(layer.c_a.forward(n.clone())) * layer.c_b.forward(n);
    let [batch, len, channels] = a.dims();
    let mut h = Tensor::<3>::zeros([batch, 1, channels], &x.device());
    let mut states = Vec::with_capacity(len);
    for t in 0..len {
        h = a.clone().narrow(1, t, 1) * h + u.clone().narrow(1, t, 1);
        states.push(h.clone());
    }
    layer.out.forward(c * Tensor::cat(states, 1)) + x
}

/// The matrix products of a step and nothing else: six forward, two for each of them backward.
fn products(rows: usize, hidden: usize, channels: usize) -> impl Fn() {
    let random = |shape| Tensor::<2>::random(shape, Distribution::Default, &Device::flex());
    let (narrow, wide, weight) =
        (random([rows, hidden]), random([rows, channels]), random([hidden, channels]));
    move || {
        for _ in 0..6 {
            let _ = narrow.clone().matmul(weight.clone());
            let _ = wide.clone().matmul(weight.clone().transpose());
            let _ = narrow.clone().transpose().matmul(wide.clone());
        }
    }
}

/// Median seconds.
fn time(runs: usize, mut run: impl FnMut()) -> f64 {
    let once = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    median((0..runs.max(1)).map(once).collect())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// What the script prints.
#[derive(serde::Deserialize)]
struct Torch {
    seconds: Vec<f64>,
    products: Vec<f64>,
    threads: usize,
    torch: String,
}

/// The layer in PyTorch, as often as burn's loop.
fn torch(args: &Args) -> Result<Torch, Box<dyn std::error::Error>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/peers/layer.py");
    let shape = args.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut python = Command::new(if cfg!(windows) { "python" } else { "python3" });
    python.args([script, "--shape", &shape, "--multiplier", &args.multiplier.to_string()]);
    python.args(["--runs", &args.runs.div_ceil(3).to_string()]).stderr(std::process::Stdio::inherit());
    let out = python.output()?;
    if !out.status.success() {
        return Err(format!("{script} ended with {}", out.status).into());
    }
    Ok(serde_json::from_slice(&out.stdout)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let [batch, len, hidden] = args.shape[..] else { return Err("--shape takes B,L,D".into()) };
    let device = Device::flex().autodiff();
    let layer = GatedSsmConfig::new(hidden).with_state_multiplier(args.multiplier).init(&device);
    let channels = hidden * args.multiplier;
    println!("({batch}, {len}, {hidden}), {channels} channels, f32, on {}", ssm_cpu::CpuBackend::new().isa());
    let draw = |low, high, channels: usize| {
        let range = Distribution::Uniform(low, high);
        Tensor::<3>::random([batch, len, channels], range, &device).require_grad()
    };
    let x = draw(-1.0, 1.0, hidden);
    let ours = || {
        layer.forward(x.clone()).expect("a forward").square().mean().backward();
    };
    ours();
    let step = time(args.runs, ours);
    println!("training step            {:9.1} ms", 1e3 * step);

    let operands: Vec<_> =
        [(-1.0, 1.0), (0.5, 1.0), (-1.0, 1.0), (-1.0, 1.0)].map(|(l, h)| draw(l, h, channels)).into();
    let [u, a, b, c] = &operands[..] else { return Ok(()) };
    let scan = time(args.runs, || {
        let (b, c) = (Some(b.clone()), Some(c.clone()));
        let out = gated_scan(u.clone(), a.clone(), b, c, ScanOptions::default()).expect("a scan");
        out.y.sum().backward();
    });
    println!("of which the scan        {:9.1} ms, {:.0}%", 1e3 * scan, 100.0 * scan / step);

    let products = time(args.runs, products(batch * len, hidden, channels));
    println!("and the matrix products  {:9.1} ms, {:.0}%", 1e3 * products, 100.0 * products / step);

    let theirs = time(args.runs.div_ceil(3), || {
        with_loop(&layer, x.clone()).square().mean().backward();
    });
    println!("burn's own ops in a loop {:9.1} ms, {:.1} times as long", 1e3 * theirs, theirs / step);
    if args.torch {
        let Torch { seconds, products, threads, torch } = torch(&args)?;
        let theirs = median(seconds);
        println!("PyTorch's loop over time {:9.1} ms, {:.1} times as long", 1e3 * theirs, theirs / step);
        let (products, torch) = (median(products), format!("PyTorch {torch} on {threads} threads"));
        println!(
            "and its matrix products  {:9.1} ms, {:.0}%, {torch}",
            1e3 * products,
            100.0 * products / theirs
        );
    }
    Ok(())
}
