//! The op against burn's own ops and finite differences, and what a caller may do wrong.

use burn::backend::GradientCheckpointingStrategy;
use burn::tensor::{DType as BurnType, Device, Distribution, Tensor};
use ssm_burn::{Error, ScanOptions, gated_scan};
use ssm_core::{DType, Operand, ProblemError};
use ssm_testkit::HostTensor;
use ssm_testkit::tolerance::compare;

use crate::host::{devices, download, upload};

fn draw<const R: usize>(shape: [usize; R], low: f64, high: f64, device: &Device) -> Tensor<R> {
    Tensor::random(shape, Distribution::Uniform(low, high), device)
}

/// The recurrence in burn's own ops, one step at a time.
fn burn_loop(
    x: &Tensor<3>,
    a: &Tensor<3>,
    b: &Tensor<3>,
    c: &Tensor<3>,
    h0: &Tensor<2>,
) -> (Tensor<3>, Tensor<2>) {
    let [batch, len, d] = x.dims();
    let at = |t: &Tensor<3>, i: usize| t.clone().narrow(1, i, 1).reshape([batch, d]);
    let mut h = h0.clone();
    let mut y = Vec::new();
    for t in 0..len {
        h = at(a, t) * h + at(b, t) * at(x, t);
        y.push((at(c, t) * h.clone()).reshape([batch, 1, d]));
    }
    (Tensor::cat(y, 1), h)
}

fn near<const R: usize>(operand: Operand, got: Tensor<R>, expected: Tensor<R>) {
    let (got, expected) = (download(got), download(expected).to_f64());
    let shape = [1, 1, got.len()];
    compare(operand, &got, &expected, shape).unwrap_or_else(|mismatch| panic!("{mismatch}"));
}

#[test]
fn gradients_are_those_of_burns_own_loop() {
    for device in devices() {
        let device = device.autodiff();
        let shape = [2, 37, 5];
        let leaves: Vec<Tensor<3>> = [(-1.0, 1.0), (0.5, 1.0), (-1.0, 1.0), (-1.0, 1.0)]
            .map(|(low, high)| draw(shape, low, high, &device).require_grad())
            .into();
        let [x, a, b, c] = &leaves[..] else { unreachable!() };
        let h0 = draw([2, 5], -1.0, 1.0, &device).require_grad();
        let dy = draw(shape, -1.0, 1.0, &device);
        let gradients = |y: Tensor<3>, state: Tensor<2>| {
            let grads = ((y * dy.clone()).sum() + state.square().sum()).backward();
            let full: Vec<_> = leaves.iter().map(|t| t.grad(&grads).expect("a gradient")).collect();
            (full, h0.grad(&grads).expect("dh0"))
        };
        let options = ScanOptions { h0: Some(h0.clone()), final_state: true, ..Default::default() };
        let out =
            gated_scan(x.clone(), a.clone(), Some(b.clone()), Some(c.clone()), options).expect("a scan");
        let (y, state) = (out.y, out.final_state.expect("hT"));
        let (loop_y, loop_state) = burn_loop(x, a, b, c, &h0);
        near(Operand::Y, y.clone().inner(), loop_y.clone().inner());
        near(Operand::FinalState, state.clone().inner(), loop_state.clone().inner());
        let ((ours, dh0), (theirs, loop_dh0)) = (gradients(y, state), gradients(loop_y, loop_state));
        for ((ours, theirs), operand) in
            ours.into_iter().zip(theirs).zip([Operand::Dx, Operand::Da, Operand::Db, Operand::Dc])
        {
            near(operand, ours, theirs);
        }
        near(Operand::Dh0, dh0, loop_dh0);
    }
}

#[test]
fn gradients_are_finite_differences_in_f64() {
    let device = Device::flex().autodiff();
    let (shape, n) = ([1, 9, 2], 18);
    let values: Vec<Vec<f64>> =
        (0..4).map(|k| (0..n).map(|i| 0.3 + 0.6 * ((i * 7 + k * 5) % 11) as f64 / 11.0).collect()).collect();
    let loss = |values: &[Vec<f64>]| {
        let leaves: Vec<Tensor<3>> =
            values.iter().map(|v| upload(v, shape, DType::F64, &device).require_grad()).collect();
        let [x, a, b, c] = &leaves[..] else { unreachable!() };
        let options = ScanOptions { final_state: true, reverse: true, ..Default::default() };
        let out = gated_scan(x.clone(), a.clone(), Some(b.clone()), Some(c.clone()), options);
        let out = out.expect("a scan");
        let loss = out.y.square().sum() + out.final_state.expect("hT").exp().sum();
        (loss.clone().into_scalar::<f64>(), leaves, loss)
    };
    let (_, leaves, value) = loss(&values);
    let grads = value.backward();
    let step = 1e-6;
    for (k, leaf) in leaves.iter().enumerate() {
        let gradient = download(leaf.grad(&grads).expect("a gradient")).to_f64();
        for (i, gradient) in gradient.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[k][i] += by;
                loss(&values).0
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * step);
            assert!(
                (difference - gradient).abs() < 1e-7 * (1.0 + gradient.abs()),
                "{k} {i}: {difference} {gradient}"
            );
        }
    }
}

#[test]
fn either_output_alone_may_reach_the_loss() {
    for device in devices() {
        let device = device.autodiff();
        let x = draw([2, 70, 3], -1.0, 1.0, &device).require_grad();
        let a = draw([2, 70, 3], 0.5, 1.0, &device);
        let run = || {
            let options = ScanOptions { final_state: true, ..Default::default() };
            let out = gated_scan(x.clone(), a.clone(), None, None, options).expect("a scan");
            (out.y, out.final_state.expect("hT"))
        };
        let grad = |loss: Tensor<1>| x.grad(&loss.backward()).expect("dx");
        let (y, state) = run();
        let both = grad(y.clone().sum() + state.sum() * 2.0);
        let y_only = grad(run().0.sum());
        let state_only = grad(run().1.sum());
        near(Operand::Dx, both, y_only + state_only * 2.0);
    }
}

#[test]
fn one_tensor_may_be_several_operands() {
    for device in devices() {
        let device = device.autodiff();
        let x = draw([1, 20, 4], 0.1, 0.9, &device).require_grad();
        let h0 = Tensor::<2>::zeros([1, 4], &device);
        let all = |x: &Tensor<3>| (x.clone(), x.clone(), Some(x.clone()), Some(x.clone()));
        let (a1, a2, a3, a4) = all(&x);
        let out = gated_scan(a1, a2, a3, a4, ScanOptions::default()).expect("a scan");
        let ours = x.grad(&out.y.sum().backward()).expect("dx");
        let (y, _) = burn_loop(&x, &x, &x, &x, &h0);
        let theirs = x.grad(&y.sum().backward()).expect("dx");
        near(Operand::Dx, ours, theirs);
    }
}

#[test]
fn views_are_read_where_they_lie() {
    for device in devices() {
        let wide = draw([2, 40, 12], 0.1, 0.9, &device);
        let (x, a) = (wide.clone().narrow(2, 0, 6), wide.clone().narrow(2, 6, 6));
        let copy = |t: &Tensor<3>| upload(&download(t.clone()).to_f64(), t.dims(), DType::F32, &device);
        let plain = gated_scan(copy(&x), copy(&a), None, None, ScanOptions::default()).expect("a scan");
        let strided = gated_scan(x, a, None, None, ScanOptions::default()).expect("a scan");
        assert!(download(plain.y).same_bits(&download(strided.y)), "channels cut from a wider tensor");

        let tall = draw([4, 40, 12], 0.1, 0.9, &device);
        let row = |i: usize| tall.clone().narrow(0, i, 1);
        let plain =
            gated_scan(copy(&row(1)), copy(&row(2)), None, None, ScanOptions::default()).expect("a scan");
        let offset = gated_scan(row(1), row(2), None, None, ScanOptions::default()).expect("a scan");
        assert!(download(plain.y).same_bits(&download(offset.y)), "rows cut from a taller tensor");

        let turned = wide.clone().swap_dims(1, 2);
        let flat = copy(&turned);
        let plain = gated_scan(flat.clone(), flat, None, None, ScanOptions::default()).expect("a scan");
        let turned = gated_scan(turned.clone(), turned, None, None, ScanOptions::default()).expect("a scan");
        assert!(download(plain.y).same_bits(&download(turned.y)), "time and channels swapped");
    }
}

#[test]
fn burns_gradient_checkpointing_changes_no_bit() {
    let shape = [2, 90, 4];
    let values: Vec<f64> = (0..720).map(|i| ((i * 37) % 101) as f64 / 101.0).collect();
    let gradient = |device: Device| {
        let x: Tensor<3> = upload(&values, shape, DType::F32, &device).require_grad();
        // Memory-bound ops before the scan, which burn may compute again in backward.
        let a = x.clone().mul_scalar(0.5).add_scalar(0.4);
        let out = gated_scan(x.clone() * 2.0, a, None, None, ScanOptions::default()).expect("a scan");
        download(x.grad(&out.y.sum().backward()).expect("dx"))
    };
    for device in devices() {
        let plain = gradient(device.clone().autodiff());
        let balanced = gradient(device.autodiff().gradient_checkpointing());
        assert!(plain.same_bits(&balanced));
    }
}

#[test]
fn a_constant_from_outside_autodiff_is_a_constant() {
    let device = Device::flex().autodiff();
    let x = draw([1, 8, 2], -1.0, 1.0, &device).require_grad();
    let a = draw([1, 8, 2], 0.1, 0.9, &Device::flex());
    let out = gated_scan(x.clone(), a, None, None, ScanOptions::default()).expect("a scan");
    assert!(x.grad(&out.y.sum().backward()).is_some());
}

#[test]
fn nothing_to_do_succeeds() {
    for device in devices() {
        for shape in [[0, 5, 3], [2, 5, 0], [2, 0, 5]] {
            let x = || Tensor::<3>::zeros(shape, &device);
            let h0 = Tensor::<2>::ones([shape[0], shape[2]], &device);
            let options = ScanOptions { h0: Some(h0.clone()), final_state: true, ..Default::default() };
            let out = gated_scan(x(), x(), Some(x()), Some(x()), options).expect("a scan");
            assert_eq!(out.y.dims(), shape);
            let state = download(out.final_state.expect("hT"));
            assert!(state.same_bits(&HostTensor::F32(vec![1.0; shape[0] * shape[2]])), "hT = h0");
        }
    }
}

#[test]
fn no_steps_give_the_final_states_gradient_to_h0() {
    for device in devices() {
        let device = device.autodiff();
        let x = || Tensor::<3>::zeros([2, 0, 3], &device);
        let h0 = draw([2, 3], -1.0, 1.0, &device).require_grad();
        let options = ScanOptions { h0: Some(h0.clone()), final_state: true, ..Default::default() };
        let out = gated_scan(x(), x(), None, None, options).expect("a scan");
        let gradient = h0.grad(&(out.final_state.expect("hT").sum() * 3.0).backward()).expect("dh0");
        assert!(download(gradient).same_bits(&HostTensor::F32(vec![3.0; 6])));
    }
}

#[test]
fn mistakes_are_typed_errors() {
    let device = Device::flex();
    let x = || Tensor::<3>::zeros([2, 4, 3], &device);
    let none = ScanOptions::default;
    let fails = |a: Tensor<3>, b: Option<Tensor<3>>, options| {
        gated_scan(x(), a, b, None, options).expect_err("a mistake")
    };
    let short = Tensor::<3>::zeros([2, 3, 3], &device);
    let (expected, got) = (vec![2, 4, 3], vec![2, 3, 3]);
    assert_eq!(
        fails(short.clone(), None, none()),
        Error::Shape { tensor: "a", expected: expected.clone(), got: got.clone() }
    );
    assert_eq!(fails(x(), Some(short), none()), Error::Shape { tensor: "b", expected, got });
    let half = x().cast(BurnType::F16);
    let (expected, got) = (BurnType::F32, BurnType::F16);
    assert_eq!(fails(half.clone(), None, none()), Error::Type { tensor: "a", expected, got });
    let h0 = || Some(Tensor::<2>::zeros([1, 3], &device));
    assert_eq!(
        fails(x(), None, ScanOptions { h0: h0(), ..none() }),
        Error::Shape { tensor: "h0", expected: vec![2, 3], got: vec![1, 3] }
    );
    let h0 = Some(Tensor::<2>::zeros([2, 3], &device).cast(BurnType::F16));
    let options = ScanOptions { h0, ..none() };
    let result = gated_scan(half.clone(), half, None, None, options);
    let (expected, got) = (BurnType::F32, BurnType::F16);
    assert_eq!(result.expect_err("h0 is f32"), Error::Type { tensor: "h0", expected, got });
    let options = ScanOptions { cu_seqlens: Some([0, 4].as_slice().into()), ..none() };
    assert_eq!(fails(x(), None, options), Error::Problem(ProblemError::PackedBatch { batch: 2 }));
    let strategies = [GradientCheckpointingStrategy::Disabled, GradientCheckpointingStrategy::Balanced];
    let plain = device.clone().autodiff();
    let balanced = plain.clone().gradient_checkpointing();
    let on = |device: &Device| Tensor::<3>::zeros([2, 4, 3], device);
    let mixed = gated_scan(on(&plain), on(&balanced), None, None, none()).expect_err("two strategies");
    let [expected, got] = strategies;
    assert_eq!(mixed, Error::GradientCheckpointing { tensor: "a", expected, got });
}

/// Scans among burn's own ops, with nothing read in between: the order on the queue is all that keeps them apart.
#[test]
fn scans_and_burns_own_ops_are_in_order() {
    for device in devices() {
        let mut x = Tensor::<3>::ones([2, 64, 8], &device);
        let half = Tensor::<3>::full([2, 64, 8], 0.5, &device);
        let mut expected = vec![1.0_f64; 64];
        for _ in 0..50 {
            // Buffers of the rounds before go back to the pool and come again.
            x = gated_scan(x * 0.25, half.clone(), None, None, ScanOptions::default()).expect("a scan").y
                + 0.125;
            let mut h = 0.0;
            for value in &mut expected {
                h = 0.5 * h + 0.25 * *value;
                *value = h + 0.125;
            }
        }
        let got = download(x).to_f64();
        for row in 0..2 {
            for (t, expected) in expected.iter().enumerate() {
                for channel in 0..8 {
                    let got = got[(row * 64 + t) * 8 + channel];
                    assert!((got - expected).abs() < 1e-6, "{row} {t} {channel}: {got} {expected}");
                }
            }
        }
    }
}
