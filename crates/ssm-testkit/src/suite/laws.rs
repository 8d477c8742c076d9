//! What holds within the error contract: split anywhere, step by step, backwards, under every checkpoint policy, in
//! sums, and gradients as finite differences.

use rand::Rng;
use rand::rngs::StdRng;
use ssm_core::{Algorithm, Checkpoint, DType, GatedScan, Grads, Operand};

use super::{List, algorithm_name, check_bits, check_outputs, hold, is_state};
use crate::oracle::{Inputs, Outputs, run};
use crate::tolerance::{allowance, compare_within};
use crate::{AnyOp, Call, Failure, HostTensor, Ran, Subject, draw, rng};

struct Trial<'a> {
    subject: &'a dyn Subject,
    dtype: DType,
    algorithm: Option<Algorithm>,
    rng: StdRng,
}

type Law = fn(&mut Trial<'_>) -> Result<(), Failure>;

const LAWS: [(&str, Law); 5] = [
    ("split_anywhere", split_anywhere),
    ("step_by_step", step_by_step),
    ("reverse_of_reversed", reverse_of_reversed),
    ("checkpoints_agree", checkpoints_agree),
    ("sum_of_inputs", sum_of_inputs),
];

pub(super) fn list(list: &mut List) {
    let Ok(probe) = GatedScan::builder(2, 300, 8).build() else { return };
    for dtype in list.dtypes() {
        for (name, law) in LAWS {
            for algorithm in list.algorithms(&probe) {
                let name = format!("law::{name}::{dtype}::{}", algorithm_name(algorithm));
                list.push(name, false, move |subject, name| {
                    law(&mut Trial { subject, dtype, algorithm, rng: rng(name) })
                });
            }
        }
        if dtype == DType::F64 {
            list.push("law::finite_differences::f64".to_owned(), false, finite_differences);
        }
    }
}

impl Trial<'_> {
    fn problem(&self, shape: [usize; 3]) -> Result<GatedScan, Failure> {
        let [b, l, d] = shape;
        let builder = GatedScan::builder(b, l, d).dtype(self.dtype);
        Ok(builder.initial_state(true).final_state(true).build()?)
    }

    fn train(&self, problem: &GatedScan, inputs: &Inputs) -> Result<Ran, Failure> {
        Ok(self.subject.train(problem, Grads::all(problem), self.algorithm, inputs)?)
    }
}

fn all(n: usize) -> Vec<usize> {
    (0..n).collect()
}

/// The reference of a part of a problem: the whole's, cut out.
fn part_of(out: &Outputs, operand: Operand, d: usize, rows: &[usize]) -> Vec<f64> {
    let values = out.get(operand).unwrap_or_default();
    rows.iter().flat_map(|row| values[row * d..(row + 1) * d].iter().copied()).collect()
}

fn split_anywhere(t: &mut Trial<'_>) -> Result<(), Failure> {
    let [batch, len, d] = [2, 310, 14];
    let whole = t.problem([batch, len, d])?;
    let inputs = draw(Default::default(), &whole, true, &mut t.rng);
    let reference = run(&whole, &inputs);
    for cut in [1, 64, len - 1, t.rng.random_range(1..len)] {
        let rows = |from: usize, to: usize| -> Vec<usize> {
            (0..batch).flat_map(|b| b * len + from..b * len + to).collect()
        };
        let (early, late) = (rows(0, cut), rows(cut, len));
        let (p, q) = (t.problem([batch, cut, d])?, t.problem([batch, len - cut, d])?);
        let mut first = inputs.part(d, &early, &all(batch), &all(d));
        let mut second = inputs.part(d, &late, &all(batch), &all(d));
        let handed = t.subject.forward(&p, t.algorithm, &first)?;
        second.h0 = handed.get(Operand::FinalState).map(HostTensor::to_f64);
        let after = t.train(&q, &second)?;
        first.d_final_state = after.get(Operand::Dh0).map(HostTensor::to_f64);
        let before = t.train(&p, &first)?;
        for (ran, rows, problem, last) in [(&before, &early, &p, false), (&after, &late, &q, true)] {
            for (operand, tensor) in &ran.outputs {
                let expected = match is_state(*operand) {
                    false => part_of(&reference, *operand, d, rows),
                    // hT belongs to the last part, dh0 to the first.
                    true if last == (*operand == Operand::FinalState) => {
                        reference.get(*operand).unwrap_or_default().to_vec()
                    }
                    true => continue,
                };
                hold(problem, &ran.report, *operand, tensor, &expected)?;
            }
        }
    }
    Ok(())
}

fn step_by_step(t: &mut Trial<'_>) -> Result<(), Failure> {
    let [batch, len, d] = [3, 90, 12];
    let whole = t.problem([batch, len, d])?;
    let inputs = draw(Default::default(), &whole, false, &mut t.rng);
    let reference = run(&whole, &inputs);
    for most in [1, 7, 40] {
        let (mut at, mut state) = (0, inputs.h0.clone());
        while at < len {
            let k = if most == 1 { 1 } else { t.rng.random_range(1..=most).min(len - at) };
            let rows: Vec<usize> = (0..batch).flat_map(|b| b * len + at..b * len + at + k).collect();
            let problem = GatedScan::builder(batch, k, d).dtype(t.dtype).build()?;
            let mut tokens = inputs.part(d, &rows, &all(batch), &all(d));
            tokens.h0 = state.take();
            let op = AnyOp::Step(problem.step()?);
            let ran = t.subject.run(&Call::new(&op, None, &tokens.host(&problem)))?;
            if let Some(y) = ran.get(Operand::Y) {
                hold(&problem, &ran.report, Operand::Y, y, &part_of(&reference, Operand::Y, d, &rows))?;
            }
            state = ran.get(Operand::State).map(HostTensor::to_f64);
            at += k;
        }
        let last = HostTensor::from_f64(whole.accumulator(), &state.unwrap_or_default());
        let allowed = allowance(last.dtype(), Algorithm::Sequential);
        compare_within(Operand::State, &last, &reference.final_state, [batch, 1, d], allowed)?;
    }
    Ok(())
}

fn reverse_of_reversed(t: &mut Trial<'_>) -> Result<(), Failure> {
    for len in [50, 128, 301] {
        let (batch, d) = (2, 11);
        let forwards = t.problem([batch, len, d])?;
        let backwards = forwards.to_builder().reverse(true).build()?;
        let inputs = draw(Default::default(), &forwards, true, &mut t.rng);
        let turned: Vec<usize> =
            (0..batch).flat_map(|b| (b * len..(b + 1) * len).rev().collect::<Vec<_>>()).collect();
        let expected = t.train(&forwards, &inputs)?;
        let mut ran = t.train(&backwards, &inputs.part(d, &turned, &all(batch), &all(d)))?;
        for (operand, tensor) in &mut ran.outputs {
            if !is_state(*operand) {
                *tensor = tensor.gather(d, &turned, &all(d));
            }
        }
        check_outputs(&forwards, &ran, &run(&forwards, &inputs))?;
        // One chunk, or whole ones: the grid is the same from either end.
        let chunk = expected.report.chunk_len;
        if chunk > 0 && (len <= chunk || len % chunk == 0) {
            check_bits("reverse of reversed is forward", &expected.outputs, &ran.outputs)?;
        }
    }
    Ok(())
}

fn checkpoints_agree(t: &mut Trial<'_>) -> Result<(), Failure> {
    let problem = t.problem([2, 517, 19])?;
    let inputs = draw(Default::default(), &problem, true, &mut t.rng);
    let reference = run(&problem, &inputs);
    let mut first: Option<Vec<(Operand, HostTensor)>> = None;
    for policy in Checkpoint::ALL {
        let problem = problem.to_builder().checkpoint(policy).build()?;
        let ran = t.train(&problem, &inputs)?;
        check_outputs(&problem, &ran, &reference)?;
        // What is saved does not change what forward computes.
        let forward: Vec<_> =
            ran.outputs.into_iter().filter(|(o, _)| [Operand::Y, Operand::FinalState].contains(o)).collect();
        match &first {
            Some(first) => check_bits("forward is the same under every policy", first, &forward)?,
            None => first = Some(forward),
        }
    }
    Ok(())
}

/// y(x + x') = y(x) + y(x') with the states alike, each side within the contract of the exact sum.
fn sum_of_inputs(t: &mut Trial<'_>) -> Result<(), Failure> {
    let problem = t.problem([2, 222, 15])?;
    let one = draw(Default::default(), &problem, false, &mut t.rng);
    let mut two = draw(Default::default(), &problem, false, &mut t.rng);
    (two.a, two.b, two.c) = (one.a.clone(), one.b.clone(), one.c.clone());
    let plus = |u: &[f64], v: &[f64]| u.iter().zip(v).map(|(u, v)| u + v).collect::<Vec<_>>();
    // The sum is rounded to storage; the second term is what makes it exact.
    let sum = Inputs {
        x: plus(&one.x, &two.x),
        h0: one.h0.as_deref().zip(two.h0.as_deref()).map(|(u, v)| plus(u, v)),
        ..one.clone()
    };
    let sum = sum.rounded(&problem);
    two.x = sum.x.iter().zip(&one.x).map(|(s, u)| s - u).collect();
    two.h0 =
        sum.h0.as_deref().zip(one.h0.as_deref()).map(|(s, u)| s.iter().zip(u).map(|(s, u)| s - u).collect());
    let ran = t.subject.forward(&problem, t.algorithm, &sum)?;
    let (u, v) = (run(&problem, &one), run(&problem, &two));
    let reference = Outputs {
        y: plus(&u.y, &v.y),
        final_state: plus(&u.final_state, &v.final_state),
        ..Outputs::default()
    };
    check_outputs(&problem, &ran, &reference)
}

/// The gradients against differences of the backend's own forward.
fn finite_differences(subject: &dyn Subject, name: &str) -> Result<(), Failure> {
    let mut rng = rng(name);
    let problem =
        GatedScan::builder(1, 9, 3).dtype(DType::F64).initial_state(true).final_state(true).build()?;
    let inputs = draw(Default::default(), &problem, true, &mut rng);
    let ran = subject.train(&problem, Grads::all(&problem), None, &inputs)?;
    let dot = |u: Option<&HostTensor>, v: &[f64]| -> f64 {
        u.map(HostTensor::to_f64).unwrap_or_default().iter().zip(v).map(|(u, v)| u * v).sum()
    };
    let loss = |inputs: &Inputs| -> Result<f64, Failure> {
        let ran = subject.forward(&problem, None, inputs)?;
        let last = inputs.d_final_state.as_deref().unwrap_or_default();
        Ok(dot(ran.get(Operand::Y), &inputs.dy) + dot(ran.get(Operand::FinalState), last))
    };
    type Field = fn(&mut Inputs) -> Option<&mut Vec<f64>>;
    let fields: [(Operand, Field); 5] = [
        (Operand::Dx, |i| Some(&mut i.x)),
        (Operand::Da, |i| Some(&mut i.a)),
        (Operand::Db, |i| i.b.as_mut()),
        (Operand::Dc, |i| i.c.as_mut()),
        (Operand::Dh0, |i| i.h0.as_mut()),
    ];
    let step = 1e-5;
    for (operand, field) in fields {
        let gradient = ran.get(operand).map(HostTensor::to_f64).unwrap_or_default();
        for (i, got) in gradient.into_iter().enumerate() {
            let moved = |by: f64| -> Result<f64, Failure> {
                let mut moved = inputs.clone();
                if let Some(values) = field(&mut moved) {
                    values[i] += by;
                }
                loss(&moved)
            };
            let expected = (moved(step)? - moved(-step)?) / (2.0 * step);
            let off = (got - expected).abs();
            if off.is_nan() || off > 1e-6 * (1.0 + expected.abs()) {
                let law = "gradients are finite differences";
                return Err(super::Violation::Bits { law, operand, index: i, expected, got }.into());
            }
        }
    }
    Ok(())
}
