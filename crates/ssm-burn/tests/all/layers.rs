//! The layers against the golden vectors, forward and every gradient.

use burn::module::{Module, Param};
use burn::store::ModuleRecord;
use burn::tensor::{Bool, Device, FloatDType, Tensor, TensorData};
use ssm_burn::{Checkpoint, GatedSsm, GatedSsmConfig, Recurrent, RgLru, RgLruConfig, RgLruState, State};
use ssm_core::DType;
use ssm_testkit::golden::{self, Golden};

use crate::host::{devices, download, types, upload};

fn file(name: &str) -> Golden {
    golden::load().expect("golden vectors").into_iter().find(|f| f.name == name).expect("the vector")
}

fn tensor<const R: usize>(file: &Golden, name: &str, device: &Device) -> Tensor<R> {
    let found = file.tensor(name).expect("a tensor");
    let shape: [usize; R] = found.shape.clone().try_into().expect("the rank");
    upload(&found.values, shape, DType::F32, device)
}

fn param<const R: usize>(file: &Golden, name: &str, device: &Device) -> Param<Tensor<R>> {
    Param::from_tensor(tensor(file, name, device))
}

/// ‖got − expected‖ / ‖expected‖.
pub(crate) fn relative(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(expected).map(|(g, e)| g - e));
    if error == 0.0 { 0.0 } else { error / norm(&mut expected.iter().copied()) }
}

fn near<const R: usize>(file: &Golden, name: &str, got: Tensor<R>, allowed: f64) {
    let off = relative(&download(got).to_f64(), &file.tensor(name).expect("a result").values);
    // NaN is not below anything.
    assert!(off <= allowed, "{}: {name} is off by {off:e}, {allowed:e} allowed", file.name);
}

fn near_grad<const R: usize>(
    file: &Golden,
    name: &str,
    of: &Tensor<R>,
    grads: &burn::tensor::Gradients,
    allowed: f64,
) {
    near(file, name, of.grad(grads).unwrap_or_else(|| panic!("no {name}")), allowed);
}

/// A matrix of the file is (out, in), burn's is (in, out).
fn transposed(file: &Golden, name: &str, device: &Device) -> Param<Tensor<2>> {
    Param::from_tensor(tensor::<2>(file, name, device).transpose().detach())
}

fn golden_gated_ssm(file: &Golden, compute: Option<FloatDType>, device: &Device) -> GatedSsm {
    let state = file.tensor("a_bias").expect("a_bias").values.len();
    let hidden = file.tensor("norm_weight").expect("norm_weight").values.len();
    let mut layer = GatedSsmConfig::new(hidden).with_compute(compute).init(device);
    assert_ne!(state, hidden, "a transposed matrix would not be seen");
    if let Some(norm) = &mut layer.norm {
        norm.gamma = param(file, "norm_weight", device);
    }
    layer.a.weight = transposed(file, "a_weight", device);
    layer.a_bias = param(file, "a_bias", device);
    layer.b.weight = transposed(file, "b_weight", device);
    layer.d.weight = transposed(file, "d_weight", device);
    layer.c_a.weight = transposed(file, "c_a_weight", device);
    layer.c_b.weight = transposed(file, "c_b_weight", device);
    layer.out.weight = transposed(file, "out_weight", device);
    layer.out.bias = Some(param(file, "out_bias", device));
    layer
}

fn hold_gated_ssm(device: Device, compute: Option<FloatDType>, allowed: f64) {
    let (file, device) = (file("gated_ssm_layer"), device.autodiff());
    let layer = golden_gated_ssm(&file, compute, &device);
    let x = tensor::<3>(&file, "x", &device).require_grad();
    let y = layer.forward(x.clone()).expect("a forward");
    near(&file, "y", y.clone(), allowed);
    let grads = (y * tensor(&file, "dy", &device)).sum().backward();
    near_grad(&file, "dx", &x, &grads, allowed);
    near_grad(&file, "dnorm_weight", &layer.norm.as_ref().expect("a norm").gamma.val(), &grads, allowed);
    near_grad(&file, "da_bias", &layer.a_bias.val(), &grads, allowed);
    near_grad(&file, "dout_bias", &layer.out.bias.as_ref().expect("a bias").val(), &grads, allowed);
    let matrices = [
        ("da_weight", &layer.a),
        ("db_weight", &layer.b),
        ("dd_weight", &layer.d),
        ("dc_a_weight", &layer.c_a),
        ("dc_b_weight", &layer.c_b),
        ("dout_weight", &layer.out),
    ];
    for (name, matrix) in matrices {
        let gradient = matrix.weight.val().grad(&grads).unwrap_or_else(|| panic!("no {name}"));
        near(&file, name, gradient.transpose(), allowed);
    }
}

#[test]
fn gated_ssm_is_the_golden_layer() {
    for device in devices() {
        hold_gated_ssm(device, None, 1e-6);
    }
}

#[test]
fn gated_ssm_computes_in_16_bits_within_the_contract() {
    // Several roundings to storage meet in each gradient: the operands', the scan's.
    for device in devices() {
        for (compute, dtype, contract) in
            [(FloatDType::F16, DType::F16, 6e-4), (FloatDType::BF16, DType::Bf16, 5e-3)]
        {
            if types(&device).contains(&dtype) {
                hold_gated_ssm(device.clone(), Some(compute), 2.0 * contract);
            }
        }
    }
}

fn golden_rg_lru(file: &Golden, device: &Device) -> RgLru {
    let [heads, block] = file.tensor("b_a").expect("b_a").shape[..] else { panic!("b_a is (H, D/H)") };
    let mut layer = RgLruConfig::new(heads * block).with_heads(heads).init(device).expect("a layer");
    layer.lambda = param(file, "a_param", device);
    layer.a_weight = param(file, "w_a", device);
    layer.a_bias = param(file, "b_a", device);
    layer.input_weight = param(file, "w_input", device);
    layer.input_bias = param(file, "b_input", device);
    layer
}

#[test]
fn rg_lru_is_the_golden_layer_with_and_without_resets() {
    for device in devices() {
        hold_rg_lru(&device.clone().autodiff(), "rg_lru");
        hold_rg_lru(&device.autodiff(), "rg_lru_reset");
    }
}

fn hold_rg_lru(device: &Device, name: &str) {
    let file = file(name);
    let layer = golden_rg_lru(&file, device);
    let x = tensor::<3>(&file, "x", device).require_grad();
    let h0 = tensor::<2>(&file, "h0", device).require_grad();
    let mask = file.tensor("reset").expect("reset");
    let shape: [usize; 2] = mask.shape.clone().try_into().expect("(B, L)");
    let mask: Vec<bool> = mask.values.iter().map(|v| *v != 0.0).collect();
    assert_eq!(mask.contains(&true), name == "rg_lru_reset");
    let mut state = RgLruState::under_way(h0.clone());
    let y = match mask.contains(&true) {
        true => {
            let resets = Tensor::<2, Bool>::from_data(TensorData::new(mask, shape), device);
            layer.with_resets(x.clone(), resets, &mut state)
        }
        false => layer.prefill(x.clone(), &Default::default(), &mut state),
    };
    let y = y.expect("a forward");
    let allowed = 1e-6;
    near(&file, "y", y.clone(), allowed);
    near(&file, "hT", state.h().expect("a state"), allowed);
    let grads = (y * tensor(&file, "dy", device)).sum().backward();
    near_grad(&file, "dx", &x, &grads, allowed);
    near_grad(&file, "dh0", &h0, &grads, allowed);
    near_grad(&file, "da_param", &layer.lambda.val(), &grads, allowed);
    near_grad(&file, "dw_a", &layer.a_weight.val(), &grads, allowed);
    near_grad(&file, "db_a", &layer.a_bias.val(), &grads, allowed);
    near_grad(&file, "dw_input", &layer.input_weight.val(), &grads, allowed);
    near_grad(&file, "db_input", &layer.input_bias.val(), &grads, allowed);
}

#[test]
fn rg_lru_begins_with_the_memory_that_it_promises() {
    let layer = RgLruConfig::new(4000).init(&Device::flex()).expect("a layer");
    let lambda = download(layer.lambda.val()).to_f64();
    let squares: Vec<f64> = lambda.iter().map(|l| (-16.0 * l.exp().ln_1p()).exp()).collect();
    let (low, high) = (0.9f64.powi(2), 0.999f64.powi(2));
    assert!(squares.iter().all(|s| (low - 1e-5..=high + 1e-5).contains(s)));
    let mean = squares.iter().sum::<f64>() / 4000.0;
    assert!((mean - (low + high) / 2.0).abs() < 0.01, "uniform: {mean}");
}

#[test]
fn gates_at_one_have_finite_gradients() {
    let device = Device::flex().autodiff();
    let mut layer = RgLruConfig::new(4).init(&device).expect("a layer");
    // r is 0 in f32, so log a = 0 and m = 0, where the root's slope is infinite.
    layer.a_bias = Param::from_tensor(Tensor::full([1, 4], -200.0, &device));
    let x = Tensor::<3>::ones([1, 9, 4], &device).require_grad();
    let y = layer.forward(x.clone()).expect("a forward");
    let grads = y.sum().backward();
    for gradient in [
        download(x.grad(&grads).expect("dx")).to_f64(),
        download(layer.lambda.val().grad(&grads).expect("dΛ")).to_f64(),
        download(layer.a_weight.val().grad(&grads).expect("dW")).to_f64(),
    ] {
        assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
    }
}

#[test]
fn records_go_there_and_back() {
    let device = Device::flex();
    let x = Tensor::<3>::random([2, 9, 6], burn::tensor::Distribution::Default, &device);
    let config = GatedSsmConfig::new(6).with_state_multiplier(2);
    let (layer, other) = (config.init(&device), config.init(&device));
    let y = download(layer.forward(x.clone()).expect("a forward"));
    assert!(!y.same_bits(&download(other.forward(x.clone()).expect("a forward"))), "fresh parameters differ");
    let bytes = layer.into_record().into_bytes().expect("a record");
    let loaded = other.load_record(ModuleRecord::from_bytes(bytes).expect("a record"));
    assert!(y.same_bits(&download(loaded.forward(x).expect("a forward"))));
    assert_eq!(loaded.fresh(3).sequences(), 3);
}

#[test]
fn what_is_kept_for_backward_changes_no_gradient() {
    let device = Device::flex().autodiff();
    let x = Tensor::<3>::random([2, 200, 6], burn::tensor::Distribution::Default, &device).require_grad();
    let gated = GatedSsmConfig::new(6).init(&device);
    let lru = RgLruConfig::new(6).init(&device).expect("a layer");
    let gradients = |policy| {
        let gradient = |y: Tensor<3>| download(x.grad(&y.square().sum().backward()).expect("dx"));
        let gated = gated.clone().with_checkpoint(policy).forward(x.clone()).expect("a forward");
        let lru = lru.clone().with_checkpoint(policy).forward(x.clone()).expect("a forward");
        [gradient(gated), gradient(lru)]
    };
    let [nothing, states, full] = Checkpoint::ALL.map(gradients);
    for ((nothing, states), full) in nothing.iter().zip(&states).zip(&full) {
        assert!(nothing.same_bits(states), "what is kept and what is computed again");
        // h as it was, against h rebuilt inside its chunk.
        assert!(relative(&full.to_f64(), &states.to_f64()) < 1e-7);
    }
}
