//! Past 2³¹ elements, where 32-bit offsets end. Ignored unless asked for: three tensors of 4 GiB each.

use half::f16;
use ssm_core::{DType, GatedScan, Operand};

use super::{List, Violation};
use crate::oracle::{HostInputs, Inputs, run};
use crate::tolerance::compare;
use crate::{AnyOp, Call, Failure, HostTensor, Subject};

pub(super) fn list(list: &mut List) {
    if list.subject.supports(DType::F16) {
        list.push("giant::past_2_31_elements::f16".to_owned(), true, past_2_31);
    }
}

/// Every channel repeats one of 251: the largest prime under 256 keeps tiles and repeats out of step.
fn value(t: usize, channel: usize) -> (f64, f64) {
    let k = t * 7 + channel % 251;
    ((k % 13) as f64 / 16.0 - 0.25, (k % 31) as f64 / 32.0)
}

fn past_2_31(subject: &dyn Subject, _: &str) -> Result<(), Failure> {
    let [len, d] = [65_537, 32_800];
    let problem = GatedScan::builder(1, len, d).dtype(DType::F16).b(false).c(false).build()?;
    let problem = problem.to_builder().checkpoint(ssm_core::Checkpoint::Nothing).build()?;
    let all = |pick: fn((f64, f64)) -> f64| {
        let row = |t: usize| (0..d).map(move |channel| f16::from_f64(pick(value(t, channel))));
        HostTensor::F16((0..len).flat_map(row).collect())
    };
    let inputs = HostInputs { tensors: vec![(Operand::X, all(|v| v.0)), (Operand::A, all(|v| v.1))] };
    let op = AnyOp::Forward(problem.forward());
    let ran = subject.run(&Call::new(&op, None, &inputs))?;
    drop(inputs);
    let Some(HostTensor::F16(y)) = ran.get(Operand::Y) else {
        let got = ran.outputs.iter().map(|(o, _)| *o).collect();
        return Err(Violation::Outputs { expected: vec![Operand::Y], got }.into());
    };
    // The first and the last channels, a few between.
    for channel in [0, 1, 250, 251, d / 2, d - 2, d - 1] {
        let one = GatedScan::builder(1, len, 1).dtype(DType::F16).b(false).c(false).build()?;
        let (x, a) = (0..len).map(|t| value(t, channel)).unzip();
        let expected = run(&one, &Inputs { x, a, dy: vec![0.0; len], ..Inputs::default() }.rounded(&one));
        let got = HostTensor::F16((0..len).map(|t| y[t * d + channel]).collect());
        compare(Operand::Y, &got, &expected.y, [1, len, 1])?;
    }
    Ok(())
}
