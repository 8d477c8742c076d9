//! How far a stack of gated SSM layers drifts from the same stack in float64, by depth, length and what the scan computes in.
//!
//!     cargo run --release -p ssm-burn --example drift
//!
//! Prints comma-separated rows: type, length, depth, relative error of the output. The reference has the same parameters,
//! and everything in it is float64.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor};
use clap::Parser;
use ssm_burn::{GatedSsm, GatedSsmConfig, Recurrent};

/// Measures drift.
#[derive(Parser)]
struct Args {
    /// Lengths of the sequence.
    #[arg(long, value_delimiter = ',', default_values_t = [1024, 16_384, 262_144])]
    lengths: Vec<usize>,
    /// Layers.
    #[arg(long, default_value_t = 12)]
    depth: usize,
    /// D.
    #[arg(long, default_value_t = 16)]
    hidden: usize,
}

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

fn main() {
    let args = Args::parse();
    let device = Device::flex();
    device.seed(1);
    let config = GatedSsmConfig::new(args.hidden);
    let layers: Vec<GatedSsm> = (0..args.depth).map(|_| config.init(&device)).collect();
    let exact: Vec<GatedSsm> = layers.iter().map(|layer| layer.clone().map(&mut Exact)).collect();
    println!("type,length,depth,relative_error");
    for len in args.lengths {
        let x = Tensor::<3>::random([1, len, args.hidden], Distribution::Normal(0.0, 1.0), &device);
        let mut reference = x.clone().cast(DType::F64);
        let types = [None, Some(FloatDType::F16), Some(FloatDType::BF16)];
        let mut rows: Vec<_> = types.map(|compute| (compute, x.clone())).into();
        for (depth, (layer, exact)) in layers.iter().zip(&exact).enumerate() {
            reference = exact.forward(reference).expect("a forward");
            for (compute, x) in &mut rows {
                // Another type for the scan, the same parameters.
                let layer = layer.clone().with_compute(*compute);
                *x = layer.forward(x.clone()).expect("a forward");
                let name = compute.map_or("f32".to_owned(), |dtype| format!("{dtype:?}").to_lowercase());
                println!("{name},{len},{},{:e}", depth + 1, relative(x.clone(), &reference));
            }
        }
    }
}
