//! The op against the golden vectors and against the plain loop in float64 over every case of the conformance suite.

use burn::tensor::{Device, FloatDType, Tensor};
use ssm_burn::{Checkpoint, ScanOptions, gated_scan};
use ssm_core::{DType, GatedScan, Grads, Operand};
use ssm_testkit::oracle::{Inputs, Outputs, run};
use ssm_testkit::tolerance::compare;
use ssm_testkit::{HostTensor, cases, draw, golden, rng, seed};

use crate::host::{devices, download, types, upload};

/// Everything that the op returns, with the operand each is.
pub(crate) type Results = Vec<(Operand, HostTensor)>;

fn float(dtype: DType) -> FloatDType {
    match dtype {
        DType::F32 => FloatDType::F32,
        DType::F16 => FloatDType::F16,
        DType::Bf16 => FloatDType::BF16,
        DType::F64 => FloatDType::F64,
    }
}

/// Forward and the gradients asked for, under burn's autodiff.
fn through_burn(device: &Device, problem: &GatedScan, inputs: &Inputs, grads: Grads) -> Results {
    let device = device.clone().autodiff();
    let full = [problem.batch(), problem.len(), problem.channels()];
    let state = [problem.sequences(), problem.channels()];
    let (dtype, acc) = (problem.dtype(), problem.accumulator());
    let leaf = |values: &[f64], track: bool| -> Tensor<3> {
        let tensor = upload(values, full, dtype, &device);
        if track { tensor.require_grad() } else { tensor }
    };
    let x = leaf(&inputs.x, grads.x);
    let a = leaf(&inputs.a, grads.a);
    let b = inputs.b.as_ref().map(|b| leaf(b, grads.b));
    let c = inputs.c.as_ref().map(|c| leaf(c, grads.c));
    let h0 = inputs.h0.as_ref().map(|h0| {
        let tensor: Tensor<2> = upload(h0, state, acc, &device);
        if grads.h0 { tensor.require_grad() } else { tensor }
    });
    let options = ScanOptions {
        h0: h0.clone(),
        final_state: problem.wants_final_state() || inputs.d_final_state.is_some(),
        reverse: problem.is_reverse(),
        cu_seqlens: problem.cu_seqlens().map(Into::into),
        checkpoint: problem.checkpoint(),
        out_dtype: Some(float(problem.out_dtype())),
        algorithm: None,
    };
    let out = gated_scan(x.clone(), a.clone(), b.clone(), c.clone(), options).expect("a valid call");
    let mut results = vec![(Operand::Y, download(out.y.clone()))];
    if let Some(final_state) = &out.final_state {
        results.push((Operand::FinalState, download(final_state.clone())));
    }
    if grads == Grads::default() {
        return results;
    }
    let dy: Tensor<3> = upload(&inputs.dy, full, problem.out_dtype(), &device);
    // Summed as f32 or wider: the loss itself is of no interest, its gradients are exactly dy and dhT.
    let mut loss = (out.y * dy).sum().cast(float(acc));
    if let (Some(final_state), Some(d)) = (out.final_state, &inputs.d_final_state) {
        let d: Tensor<2> = upload(d, state, acc, &device);
        loss = loss + (final_state * d).sum();
    }
    let gradients = loss.backward();
    let mut take = |operand, wanted: bool, tensor: Option<&Tensor<3>>| {
        let got = tensor.and_then(|t| t.grad(&gradients)).map(download);
        assert_eq!(got.is_some(), wanted, "{operand} is there when it was asked for, and only then");
        results.extend(got.map(|got| (operand, got)));
    };
    take(Operand::Dx, grads.x, Some(&x));
    take(Operand::Da, grads.a, Some(&a));
    take(Operand::Db, grads.b, b.as_ref());
    take(Operand::Dc, grads.c, c.as_ref());
    let dh0 = h0.as_ref().and_then(|t| t.grad(&gradients)).map(download);
    assert_eq!(dh0.is_some(), grads.h0, "dh0 is there when it was asked for");
    results.extend(dh0.map(|got| (Operand::Dh0, got)));
    results
}

/// How many outputs agreed.
fn hold(name: &str, problem: &GatedScan, results: &Results, reference: &Outputs) -> usize {
    let mut held = 0;
    for (operand, got) in results {
        let state = matches!(operand, Operand::FinalState | Operand::Dh0);
        let shape = match state {
            true => [problem.sequences(), 1, problem.channels()],
            false => [problem.batch(), problem.len(), problem.channels()],
        };
        let expected = reference.get(*operand).expect("a result of the oracle");
        if let Err(mismatch) = compare(*operand, got, expected, shape) {
            panic!("{name}, {}, seed {}: {mismatch}", problem.dtype(), seed());
        }
        held += 1;
    }
    held
}

#[test]
fn golden_vectors_hold_forward_and_backward() {
    let mut vectors = 0;
    for file in golden::load().expect("golden vectors") {
        if file.kind != "gated_scan" {
            continue;
        }
        let vector = file.scan().expect("a scan");
        for policy in Checkpoint::ALL {
            let problem = vector.problem.to_builder().checkpoint(policy).build().expect("a problem");
            // The file's own results where it has them; each is also the oracle's.
            let oracle = run(&problem, &vector.inputs);
            for device in devices() {
                let results = through_burn(&device, &problem, &vector.inputs, Grads::all(&problem));
                hold(&file.name, &problem, &results, &oracle);
                for (operand, expected) in vector.results() {
                    let got = results.iter().find(|(o, _)| *o == operand).map(|(_, got)| got);
                    let got = got.unwrap_or_else(|| panic!("{}: no {operand}", file.name));
                    let shape = [1, 1, expected.len()];
                    compare(operand, got, expected, shape).unwrap_or_else(|m| panic!("{}: {m}", file.name));
                }
            }
        }
        vectors += 1;
    }
    assert!(vectors >= 15, "{vectors} vectors");
}

#[test]
fn golden_vectors_hold_in_16_bit_types() {
    for file in golden::load().expect("golden vectors") {
        if file.kind != "gated_scan" {
            continue;
        }
        for dtype in [DType::F16, DType::Bf16] {
            let (problem, inputs) = file.scan().map(|v| v.stored(dtype).expect("a problem")).expect("a scan");
            let oracle = run(&problem, &inputs);
            for device in devices().iter().filter(|device| types(device).contains(&dtype)) {
                let results = through_burn(device, &problem, &inputs, Grads::all(&problem));
                hold(&file.name, &problem, &results, &oracle);
            }
        }
    }
}

#[test]
fn every_case_of_the_suite_holds() {
    for device in devices() {
        let held = every_case(&device);
        assert!(held > 250 * types(&device).len(), "{held} outputs on {device:?}");
    }
}

/// How many outputs agreed.
fn every_case(device: &Device) -> usize {
    let mut held = 0;
    for case in cases() {
        // burn's own ops around the scan do not take tensors without elements; those have a test of their own. What
        // only the sequential loop holds is not asked of the default algorithm. A million steps are the kernels' matter.
        if case.shape.contains(&0) || case.only.is_some() || case.shape[1] == 1 << 20 {
            continue;
        }
        for dtype in types(device) {
            let Some(problem) = case.problem(*dtype) else { continue };
            // The loss is of burn's own ops, in the type of y.
            if !types(device).contains(&problem.out_dtype()) {
                continue;
            }
            let grads = case.asked(&problem);
            let inputs = draw(case.values, &problem, case.d_final_state, &mut rng(&case.name));
            let results = through_burn(device, &problem, &inputs, grads);
            held += hold(&case.name, &problem, &results, &run(&problem, &inputs));
        }
    }
    held
}
