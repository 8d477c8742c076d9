//! Conv1dCausal, HawkBlock and Hawk against a plain loop in float64; gradients against its finite differences.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Tensor};
use ssm_burn::{Conv1dCausal, Conv1dCausalConfig, Hawk, HawkBlock, HawkConfig, HawkLayer, Recurrent, RgLru};

use crate::host::download;
use crate::layers::relative;

/// A matrix or a vector in float64, row by row.
fn values<const R: usize>(param: &Param<Tensor<R>>) -> Vec<f64> {
    download(param.val()).to_f64()
}

fn sigmoid(v: f64) -> f64 {
    1.0 / (1.0 + (-v).exp())
}

fn gelu(v: f64) -> f64 {
    0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044_715 * v.powi(3))).tanh())
}

/// (L, in) by (in, out).
fn affine(x: &[f64], linear: &burn::nn::Linear) -> Vec<f64> {
    let [input, output] = linear.weight.val().dims();
    let (w, bias) = (values(&linear.weight), values(linear.bias.as_ref().expect("a bias")));
    let dot = |row: &[f64], o: usize| row.iter().enumerate().map(|(i, v)| v * w[i * output + o]).sum::<f64>();
    x.chunks(input).flat_map(|row| (0..output).map(|o| dot(row, o) + bias[o]).collect::<Vec<_>>()).collect()
}

fn conv(x: &[f64], layer: &Conv1dCausal) -> Vec<f64> {
    let [kernel, d] = layer.weight.val().dims();
    let (w, bias) = (values(&layer.weight), values(&layer.bias));
    let at = |t: usize, c: usize| {
        let tap = |k: usize| (t + k + 1 >= kernel).then(|| w[k * d + c] * x[(t + k + 1 - kernel) * d + c]);
        bias[c] + (0..kernel).filter_map(tap).sum::<f64>()
    };
    (0..x.len()).map(|i| at(i / d, i % d)).collect()
}

/// One sequence from its beginning: the first step has a = 0 and m = 1.
fn rg_lru(x: &[f64], layer: &RgLru) -> Vec<f64> {
    let [heads, block] = layer.a_bias.val().dims();
    let d = heads * block;
    let lambda = values(&layer.lambda);
    let gate = |w: Vec<f64>, bias: Vec<f64>, t: usize, c: usize| {
        let (head, j) = (c / block, c % block);
        let sum: f64 =
            (0..block).map(|i| x[t * d + head * block + i] * w[(head * block + i) * block + j]).sum();
        sigmoid(sum + bias[c])
    };
    let mut h = vec![0.0; d];
    let mut y = Vec::new();
    for t in 0..x.len() / d {
        for c in 0..d {
            let r = gate(values(&layer.a_weight), values(&layer.a_bias), t, c);
            let input = gate(values(&layer.input_weight), values(&layer.input_bias), t, c);
            let log_a = -8.0 * r * lambda[c].exp().ln_1p();
            let (a, m) = if t == 0 { (0.0, 1.0) } else { (log_a.exp(), (-(2.0 * log_a).exp_m1()).sqrt()) };
            h[c] = a * h[c] + m * input * x[t * d + c];
            y.push(h[c]);
        }
    }
    y
}

fn block(x: &[f64], layer: &HawkBlock) -> Vec<f64> {
    let gate = affine(x, &layer.gate).into_iter().map(gelu);
    let h = rg_lru(&conv(&affine(x, &layer.branch), &layer.conv), &layer.rg_lru);
    affine(&gate.zip(h).map(|(g, h)| g * h).collect::<Vec<_>>(), &layer.out)
}

fn norm(x: &[f64], layer: &burn::nn::RmsNorm) -> Vec<f64> {
    let gamma = values(&layer.gamma);
    let scale = |row: &[f64]| (row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64 + 1e-5).sqrt();
    x.chunks(gamma.len())
        .flat_map(|row| row.iter().zip(&gamma).map(|(v, g)| v * g / scale(row)).collect::<Vec<_>>())
        .collect()
}

fn residual(x: &[f64], layer: &HawkLayer) -> Vec<f64> {
    let add = |x: &[f64], y: Vec<f64>| x.iter().zip(y).map(|(x, y)| x + y).collect::<Vec<_>>();
    let x = add(x, block(&norm(x, &layer.block_norm), &layer.block));
    let n = norm(&x, &layer.mlp_norm);
    let gate = affine(&n, &layer.mlp.gate).into_iter().map(gelu);
    let wide: Vec<f64> = gate.zip(affine(&n, &layer.mlp.up)).map(|(g, u)| g * u).collect();
    add(&x, affine(&wide, &layer.mlp.down))
}

fn stack(x: &[f64], layer: &Hawk) -> Vec<f64> {
    layer.layers.iter().fold(x.to_vec(), |x, layer| residual(&x, layer))
}

fn draw(shape: [usize; 3], device: &Device) -> Tensor<3> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), device)
}

fn hold(what: &str, got: Tensor<3>, expected: &[f64], allowed: f64) {
    let off = relative(&download(got).to_f64(), expected);
    assert!(off <= allowed, "{what} is off by {off:e}");
}

fn hawk(device: &Device) -> Hawk {
    HawkConfig::new(6, 2).with_width(Some(8)).with_heads(2).init(device).expect("a stack")
}

#[test]
fn conv_is_the_plain_loop_at_any_length() {
    let device = Device::flex();
    for kernel in [1, 2, 4, 7] {
        let layer = Conv1dCausalConfig::new(5).with_kernel(kernel).init(&device).expect("a layer");
        for len in [1, 2, 3, 4, 5, 33] {
            let x = draw([1, len, 5], &device);
            let expected = conv(&download(x.clone()).to_f64(), &layer);
            hold("conv", layer.forward(x).expect("a forward"), &expected, 1e-6);
        }
    }
}

#[test]
fn hawk_is_the_plain_loop() {
    let device = Device::flex();
    let layer = hawk(&device);
    let x = draw([1, 40, 6], &device);
    let values = download(x.clone()).to_f64();
    let first = &layer.layers[0].block;
    hold("block", first.forward(x.clone()).expect("a forward"), &block(&values, first), 1e-6);
    hold("stack", layer.forward(x).expect("a forward"), &stack(&values, &layer), 2e-6);
}

#[test]
fn hawks_gradient_of_x_is_the_plain_loops_finite_difference() {
    let device = Device::flex().autodiff();
    let layer = hawk(&device);
    let x = draw([1, 7, 6], &device).require_grad();
    let y = layer.forward(x.clone()).expect("a forward");
    let got = download(x.grad(&y.square().sum().backward()).expect("dx")).to_f64();
    let values = download(x).to_f64();
    let loss = |values: &[f64]| stack(values, &layer).iter().map(|y| y * y).sum::<f64>();
    let difference = |i: usize| {
        let moved = |by: f64| {
            let mut values = values.clone();
            values[i] += by;
            loss(&values)
        };
        (moved(1e-5) - moved(-1e-5)) / 2e-5
    };
    let expected: Vec<f64> = (0..values.len()).map(difference).collect();
    let off = relative(&got, &expected);
    assert!(off < 2e-6, "dx is off by {off:e}");
}

/// Moves every parameter along its own gradient by a step in f64 terms and compares the loss: each gradient tensor
/// against a directional finite difference of the plain loop.
struct Directions<'a> {
    grads: &'a burn::tensor::Gradients,
    squares: f64,
    seen: usize,
}

impl ModuleVisitor for Directions<'_> {
    fn visit_float<const R: usize>(&mut self, param: &Param<Tensor<R>>) {
        let gradient = param.val().grad(self.grads).expect("every parameter has a gradient");
        self.squares += download(gradient).to_f64().iter().map(|g| g * g).sum::<f64>();
        self.seen += 1;
    }
}

struct Moved<'a> {
    grads: &'a burn::tensor::Gradients,
    by: f64,
}

impl burn::module::ModuleMapper for Moved<'_> {
    fn map_float<const R: usize>(&mut self, param: Param<Tensor<R>>) -> Param<Tensor<R>> {
        let gradient = param.val().grad(self.grads).expect("every parameter has a gradient");
        let gradient = Tensor::from_inner(gradient);
        param.map(|tensor| (tensor + gradient * self.by).detach().require_grad())
    }
}

#[test]
fn hawks_parameters_have_the_gradient_of_the_plain_loop() {
    let device = Device::flex().autodiff();
    let layer = hawk(&device);
    let x = draw([1, 9, 6], &device);
    let grads = layer.forward(x.clone()).expect("a forward").square().sum().backward();
    let mut directions = Directions { grads: &grads, squares: 0.0, seen: 0 };
    layer.visit(&mut directions);
    assert_eq!(directions.seen, 2 * (2 + 6 + 2 + 5 + 6), "every parameter of two layers");
    let values = download(x).to_f64();
    let loss = |by: f64| {
        let moved = layer.clone().map(&mut Moved { grads: &grads, by });
        stack(&values, &moved).iter().map(|y| y * y).sum::<f64>()
    };
    // Along the gradient the loss climbs by |gradient|² a unit. Parameters move in f32, so the step is not tiny.
    let step = 2e-3 / directions.squares.sqrt();
    let climb = (loss(step) - loss(-step)) / (2.0 * step);
    let off = (climb / directions.squares - 1.0).abs();
    assert!(off < 1e-3, "{climb} against {}", directions.squares);
}
