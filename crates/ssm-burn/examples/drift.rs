//! How far a stack of gated SSM layers drifts from the same stack in float64, by depth, length and what the scan computes in.
//!
//!     cargo run --release -p ssm-burn --example drift -- --out target/studies/drift
//!
//! Prints type, length, depth and the relative error of the output, and writes results.json. The reference has the same
//! parameters, and everything in it is float64.

use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Distribution, FloatDType, Tensor};
use clap::Parser;
use ssm_benches::results::ErrorRow;
use ssm_burn::{GatedSsm, GatedSsmConfig, Recurrent};

#[path = "common/mod.rs"]
mod common;

use common::study::{self, Failure, Place};

/// Measures drift.
#[derive(Parser)]
struct Args {
    /// Up to 65,536 steps, not 1,048,576.
    #[arg(long)]
    quick: bool,
    /// Layers.
    #[arg(long, default_value_t = 12)]
    depth: usize,
    /// D.
    #[arg(long, default_value_t = 16)]
    hidden: usize,
    /// The folder for results.json.
    #[arg(long, default_value = "target/studies/drift")]
    out: PathBuf,
}

const SEED: u64 = 1;

/// The same parameters in float64.
struct Exact;

impl ModuleMapper for Exact {
    fn map_float<const R: usize>(&mut self, param: Param<Tensor<R>>) -> Param<Tensor<R>> {
        param.map(|tensor| tensor.cast(DType::F64))
    }
}

fn relative(got: Tensor<3>, expected: &Tensor<3>) -> f64 {
    let error = (got.cast(DType::F64) - expected.clone()).square().sum().into_scalar::<f64>();
    (error / expected.clone().square().sum().into_scalar::<f64>()).sqrt()
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let place = Place::cpu();
    let device = &place.device;
    device.seed(SEED);
    let config = GatedSsmConfig::new(args.hidden);
    let layers: Vec<GatedSsm> = (0..args.depth).map(|_| config.init(device)).collect();
    let exact: Vec<GatedSsm> = layers.iter().map(|layer| layer.clone().map(&mut Exact)).collect();
    let mut errors = Vec::new();
    for len in (10..=if args.quick { 16 } else { 20 }).step_by(2).map(|power| 1 << power) {
        let x = Tensor::<3>::random([1, len, args.hidden], Distribution::Normal(0.0, 1.0), device);
        let mut reference = x.clone().cast(DType::F64);
        let types = [None, Some(FloatDType::F16), Some(FloatDType::BF16)];
        let mut rows: Vec<_> = types.map(|compute| (compute, x.clone())).into();
        for (depth, (layer, exact)) in layers.iter().zip(&exact).enumerate() {
            reference = exact.forward(reference)?;
            for (compute, x) in &mut rows {
                // Another type for the scan, the same parameters.
                let layer = layer.clone().with_compute(*compute);
                *x = layer.forward(x.clone())?;
                let (depth, error) = (depth + 1, relative(x.clone(), &reference));
                println!("{:5} L = {len:8} {depth:2} layers {error:.1e}", study::type_name(*compute));
                if [1, 2, 4, 8, 12].contains(&depth) || depth == args.depth {
                    errors.push(row(&place, len, depth, *compute, error));
                }
            }
        }
    }
    // The report draws neighbours as one line.
    errors.sort_by_key(|row| (row.gates.len(), row.gates.clone(), row.dtype.clone(), row.len));
    study::write(&args.out, args.quick, SEED, |results| results.errors = errors)
}

fn row(place: &Place, len: usize, depth: usize, compute: Option<FloatDType>, error: f64) -> ErrorRow {
    ErrorRow {
        backend: place.backend.to_owned(),
        device: place.name.clone(),
        op: "gated_ssm".to_owned(),
        gates: format!("depth-{depth}"),
        dtype: study::type_name(compute),
        algorithm: "layers".to_owned(),
        len,
        output: "y".to_owned(),
        error: error.is_finite().then_some(error),
    }
}
