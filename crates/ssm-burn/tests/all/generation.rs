//! Whole, split and step by step, and packed or one a row, are the same; for every layer.

use burn::tensor::{DType, Device, Distribution, Tensor};
use ssm_burn::{
    Conv1dCausalConfig, Error, GatedSsmConfig, HawkBlockConfig, HawkConfig, Recurrent, RgLruConfig,
    Sequences, State,
};
use ssm_core::ProblemError;
use ssm_testkit::HostTensor;

use crate::host::{devices, download};
use crate::layers::relative;

const WIDTH: usize = 6;

/// Runs a check on every layer, on every device.
macro_rules! every_layer {
    ($check:ident) => {
        for device in &devices() {
            $check("conv", &Conv1dCausalConfig::new(WIDTH).init(device).expect("a layer"), device);
            $check("gated_ssm", &GatedSsmConfig::new(WIDTH).with_state_multiplier(2).init(device), device);
            $check("rg_lru", &RgLruConfig::new(WIDTH).with_heads(2).init(device).expect("a layer"), device);
            $check("block", &HawkBlockConfig::new(WIDTH, 8).init(device).expect("a layer"), device);
            $check("hawk", &HawkConfig::new(WIDTH, 2).with_heads(3).init(device).expect("a stack"), device);
        }
    };
}

fn draw(device: &Device, batch: usize, len: usize) -> Tensor<3> {
    Tensor::random([batch, len, WIDTH], Distribution::Uniform(-1.0, 1.0), device)
}

fn same(name: &str, what: &str, got: Tensor<3>, expected: Tensor<3>) {
    assert_eq!(got.dims(), expected.dims());
    let off = relative(&download(got).to_f64(), &download(expected).to_f64());
    assert!(off <= 1e-6, "{name}, {what}: off by {off:e}");
}

fn split_anywhere<L: Recurrent>(name: &str, layer: &L, device: &Device) {
    let len = 90;
    let x = draw(device, 3, len);
    let whole = layer.forward(x.clone()).expect("a forward");
    for cut in [1, 2, 3, 4, 31, 64, 88, 89] {
        let mut state = layer.fresh(3);
        let parts = [(0, cut), (cut, len - cut)].map(|(from, count)| {
            let part = x.clone().narrow(1, from, count);
            layer.prefill(part, &Sequences::Rows, &mut state).expect("a prefill")
        });
        same(name, &format!("split at {cut}"), Tensor::cat(parts.to_vec(), 1), whole.clone());
    }
}

#[test]
fn split_anywhere_is_whole() {
    every_layer!(split_anywhere);
}

fn step_by_step<L: Recurrent>(name: &str, layer: &L, device: &Device) {
    let (batch, len) = (2, 70);
    let x = draw(device, batch, len);
    let whole = layer.forward(x.clone()).expect("a forward");
    let mut state = layer.fresh(batch);
    let step = |t| {
        let x = x.clone().narrow(1, t, 1).reshape([batch, WIDTH]);
        layer.step(x, &mut state).expect("a step").reshape([batch, 1, WIDTH])
    };
    same(name, "steps", Tensor::cat((0..len).map(step).collect(), 1), whole);
}

#[test]
fn step_by_step_is_whole() {
    every_layer!(step_by_step);
}

fn packed<L: Recurrent>(name: &str, layer: &L, device: &Device) {
    // Empty ones among them, shorter ones than the convolution, and slack behind.
    let lengths = [5, 0, 1, 2, 70, 3, 0];
    let sequences = Sequences::of_lengths(&lengths);
    let (used, slack) = (lengths.iter().sum::<usize>(), 4);
    let x = draw(device, 1, used);
    let garbage = Tensor::full([1, slack, WIDTH], f32::NAN, device);
    let mut state = layer.fresh(lengths.len());
    let y =
        layer.prefill(Tensor::cat(vec![x.clone(), garbage], 1), &sequences, &mut state).expect("a prefill");
    let tail = download(y.clone().narrow(1, used, slack));
    assert!(tail.same_bits(&HostTensor::F32(vec![0.0; slack * WIDTH])), "{name}: slack is 0");
    let next = draw(device, lengths.len(), 1).reshape([lengths.len(), WIDTH]);
    let after = layer.step(next.clone(), &mut state).expect("a step");
    let mut start = 0;
    for (i, len) in lengths.into_iter().enumerate() {
        let mut alone = layer.fresh(1);
        if len > 0 {
            let part = x.clone().narrow(1, start, len);
            let expected = layer.prefill(part, &Sequences::Rows, &mut alone).expect("a prefill");
            same(name, &format!("sequence {i}"), y.clone().narrow(1, start, len), expected);
        }
        let expected = layer.step(next.clone().narrow(0, i, 1), &mut alone).expect("a step");
        let got = after.clone().narrow(0, i, 1).reshape([1, 1, WIDTH]);
        same(name, &format!("the step after sequence {i}"), got, expected.reshape([1, 1, WIDTH]));
        start += len;
    }
}

#[test]
fn packed_is_separate() {
    every_layer!(packed);
}

fn empty<L: Recurrent>(name: &str, layer: &L, device: &Device) {
    for shape in [[0, 5, WIDTH], [2, 0, WIDTH]] {
        let x = Tensor::zeros(shape, device);
        let mut state = layer.fresh(shape[0]);
        let y = layer.prefill(x, &Sequences::Rows, &mut state).expect("nothing to do");
        assert_eq!(y.dims(), shape, "{name}");
        assert_eq!(state.sequences(), shape[0], "{name}");
    }
    let none = Sequences::Packed([0, 0].into());
    let y = layer.prefill(draw(device, 1, 3), &none, &mut layer.fresh(1)).expect("slack alone");
    assert!(download(y).same_bits(&HostTensor::F32(vec![0.0; 3 * WIDTH])), "{name}: slack is 0");
}

#[test]
fn nothing_to_do_succeeds() {
    every_layer!(empty);
}

fn gradients_cross_calls<L: Recurrent>(name: &str, layer: &L, device: &Device) {
    let _ = name;
    let x = draw(device, 1, 20).autodiff().require_grad();
    let whole = layer.forward(x.clone()).expect("a forward");
    let expected = x.grad(&whole.square().sum().backward()).expect("dx");
    let mut state = layer.fresh(1);
    let mut part = |from, count| {
        layer.prefill(x.clone().narrow(1, from, count), &Sequences::Rows, &mut state).expect("a prefill")
    };
    let parts = Tensor::cat(vec![part(0, 9), part(9, 11)], 1);
    let got = x.grad(&parts.square().sum().backward()).expect("dx");
    same(name, "dx through the state", got, expected);
}

#[test]
fn gradients_flow_through_the_state() {
    every_layer!(gradients_cross_calls);
}

fn mistakes<L: Recurrent>(name: &str, layer: &L, device: &Device) {
    let mut state = layer.fresh(2);
    let mut fails =
        |x: Tensor<3>, sequences: &Sequences| layer.prefill(x, sequences, &mut state).expect_err(name);
    let narrow = draw(device, 2, 5).narrow(2, 0, WIDTH - 1);
    let (expected, got) = (vec![2, 5, WIDTH], vec![2, 5, WIDTH - 1]);
    assert_eq!(fails(narrow, &Sequences::Rows), Error::Shape { tensor: "x", expected, got });
    let half = draw(device, 2, 5).cast(DType::F16);
    let (expected, got) = (DType::F32, DType::F16);
    assert_eq!(fails(half, &Sequences::Rows), Error::Type { tensor: "x", expected, got });
    assert_eq!(fails(draw(device, 3, 5), &Sequences::Rows), Error::Sequences { expected: 3, got: 2 });
    let packed = |cu: &[usize]| Sequences::Packed(cu.into());
    let batch = Error::Problem(ProblemError::PackedBatch { batch: 2 });
    assert_eq!(fails(draw(device, 2, 5), &packed(&[0, 2, 5])), batch);
    let end = Error::Problem(ProblemError::PackedEnd { len: 5, got: 6 });
    assert_eq!(fails(draw(device, 1, 5), &packed(&[0, 2, 6])), end);
    let start = Error::Problem(ProblemError::PackedStart { got: None });
    assert_eq!(fails(draw(device, 1, 5), &packed(&[])), start);
    assert_eq!(fails(draw(device, 1, 5), &packed(&[0, 5])), Error::Sequences { expected: 1, got: 2 });
}

#[test]
fn mistakes_are_typed_errors() {
    every_layer!(mistakes);
    let device = Device::flex();
    let heads = RgLruConfig::new(6).with_heads(4).init(&device).expect_err("4 heads of 6");
    assert_eq!(heads, Error::Heads { width: 6, heads: 4 });
    let heads = HawkConfig::new(6, 1).with_heads(0).init(&device).expect_err("no heads");
    assert_eq!(heads, Error::Heads { width: 6, heads: 0 });
    let kernel = HawkBlockConfig::new(6, 6).with_kernel(0).init(&device).expect_err("no kernel");
    assert_eq!(kernel, Error::EmptyKernel);
}
