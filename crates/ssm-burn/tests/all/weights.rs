//! RG-LRU parameters through safetensors: there and back, under other names, and with the other sign.

use std::collections::HashMap;

use burn::tensor::{Device, Distribution, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use ssm_burn::{LambdaSign, Recurrent, RgLru, RgLruConfig, RgLruNames, WeightsError};

use crate::host::download;
use crate::layers::relative;

fn layer() -> RgLru {
    RgLruConfig::new(6).with_heads(2).init(&Device::flex()).expect("a layer")
}

fn outputs(layer: &RgLru, x: &Tensor<3>) -> Vec<f64> {
    download(layer.forward(x.clone()).expect("a forward")).to_f64()
}

/// A file with the layer's parameters under these names, Λ times `sign`, as f32.
fn foreign(layer: &RgLru, prefix: &str, names: &RgLruNames, sign: f32) -> Vec<u8> {
    let flat = |tensor: Vec<f64>, by: f32| -> Vec<u8> {
        tensor.into_iter().flat_map(|v| (v as f32 * by).to_le_bytes()).collect()
    };
    let parts = [
        (names.lambda, vec![6], flat(download(layer.lambda.val()).to_f64(), sign)),
        (names.a_weight, vec![2, 3, 3], flat(download(layer.a_weight.val()).to_f64(), 1.0)),
        (names.a_bias, vec![2, 3], flat(download(layer.a_bias.val()).to_f64(), 1.0)),
        (names.input_weight, vec![2, 3, 3], flat(download(layer.input_weight.val()).to_f64(), 1.0)),
        (names.input_bias, vec![2, 3], flat(download(layer.input_bias.val()).to_f64(), 1.0)),
    ];
    let views = parts.iter().map(|(name, shape, bytes)| {
        (format!("{prefix}{name}"), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a view"))
    });
    serialize(views.collect::<HashMap<_, _>>(), None).expect("a file")
}

#[test]
fn a_layer_goes_there_and_back() {
    let (layer, device) = (layer(), Device::flex());
    let x = Tensor::random([2, 11, 6], Distribution::Uniform(-1.0, 1.0), &device);
    let bytes = layer.to_safetensors("blocks.0.").expect("a file");
    let read = |sign| RgLru::from_safetensors(&bytes, "blocks.0.", &RgLruNames::OWN, sign, &device);
    let back = read(LambdaSign::Code).expect("a layer");
    assert_eq!(outputs(&layer, &x), outputs(&back, &x));
    // The file says which sign it has.
    assert!(matches!(read(LambdaSign::Paper), Err(WeightsError::Sign { .. })));
}

#[test]
fn both_signs_and_the_published_names_give_the_same_layer() {
    let (layer, device) = (layer(), Device::flex());
    let x = Tensor::random([2, 30, 6], Distribution::Uniform(-1.0, 1.0), &device);
    let expected = outputs(&layer, &x);
    for names in [RgLruNames::OWN, RgLruNames::RECURRENT_GEMMA, RgLruNames::TRANSFORMERS] {
        for (sign, by) in [(LambdaSign::Code, 1.0), (LambdaSign::Paper, -1.0)] {
            let bytes = foreign(&layer, "rg_lru.", &names, by);
            let read = RgLru::from_safetensors(&bytes, "rg_lru.", &names, sign, &device).expect("a layer");
            assert_eq!(expected, outputs(&read, &x));
        }
    }
    // Read with the wrong sign, the same numbers are another layer: its gates forget within a step.
    let bytes = foreign(&layer, "", &RgLruNames::OWN, 1.0);
    let wrong = RgLru::from_safetensors(&bytes, "", &RgLruNames::OWN, LambdaSign::Paper, &device);
    assert!(relative(&outputs(&wrong.expect("a layer"), &x), &expected) > 0.1);
}

#[test]
fn what_does_not_fit_is_named() {
    let device = Device::flex();
    let bytes = layer().to_safetensors("").expect("a file");
    let read = |bytes: &[u8], prefix: &str, names: &RgLruNames| {
        RgLru::from_safetensors(bytes, prefix, names, LambdaSign::Code, &device).map(|_| ())
    };
    assert!(matches!(read(b"not a file", "", &RgLruNames::OWN), Err(WeightsError::Format { .. })));
    let missing = read(&bytes, "elsewhere.", &RgLruNames::OWN).expect_err("no such tensor");
    assert!(missing.to_string().contains("elsewhere.a_bias"), "{missing}");
    let swapped = RgLruNames { lambda: "a_bias", ..RgLruNames::OWN };
    let shape = read(&bytes, "", &swapped).expect_err("a bias is no Λ");
    assert!(matches!(shape, WeightsError::Shape { expected, got, .. } if expected == [6] && got == [2, 3]));
}
