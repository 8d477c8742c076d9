//! The plain loop in float64: what every backend's results are measured against.
//!
//! Nothing clever, so that it can be read against the equations line by line. It is itself held to the golden vectors,
//! which come from automatic differentiation, and to finite differences.

use ssm_core::{DType, GatedScan, Operand};

use crate::HostTensor;
use crate::host::gather;
use crate::rows::sequences;

/// The values of every input, each exactly what the storage type holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// (B, L, D).
    pub x: Vec<f64>,
    /// (B, L, D).
    pub a: Vec<f64>,
    /// (B, L, D); absent means 1.
    pub b: Option<Vec<f64>>,
    /// (B, L, D); absent means 1.
    pub c: Option<Vec<f64>>,
    /// (N, D); absent means 0.
    pub h0: Option<Vec<f64>>,
    /// (B, L, D).
    pub dy: Vec<f64>,
    /// dhT (N, D); absent means 0.
    pub d_final_state: Option<Vec<f64>>,
}

/// Every result, those that nobody asked for too.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "each field is the tensor of that name in the specification")]
pub struct Outputs {
    pub y: Vec<f64>,
    pub h: Vec<f64>,
    /// The gradient of h.
    pub g: Vec<f64>,
    pub final_state: Vec<f64>,
    pub dx: Vec<f64>,
    pub da: Vec<f64>,
    pub db: Vec<f64>,
    pub dc: Vec<f64>,
    pub dh0: Vec<f64>,
}

impl Inputs {
    /// The same values, rounded to what the problem's types hold.
    #[must_use]
    pub fn rounded(&self, problem: &GatedScan) -> Self {
        let round = |dtype: DType, v: &Vec<f64>| HostTensor::from_f64(dtype, v).to_f64();
        let (storage, acc) = (problem.dtype(), problem.accumulator());
        Self {
            x: round(storage, &self.x),
            a: round(storage, &self.a),
            b: self.b.as_ref().map(|v| round(storage, v)),
            c: self.c.as_ref().map(|v| round(storage, v)),
            h0: self.h0.as_ref().map(|v| round(acc, v)),
            dy: round(problem.out_dtype(), &self.dy),
            d_final_state: self.d_final_state.as_ref().map(|v| round(acc, v)),
        }
    }

    /// The inputs of some rows, sequences and channels, in the order given.
    #[must_use]
    pub fn part(&self, d: usize, rows: &[usize], states: &[usize], channels: &[usize]) -> Self {
        let row = |v: &Vec<f64>| gather(v, d, rows, channels);
        let state = |v: &Vec<f64>| gather(v, d, states, channels);
        Self {
            x: row(&self.x),
            a: row(&self.a),
            b: self.b.as_ref().map(row),
            c: self.c.as_ref().map(row),
            h0: self.h0.as_ref().map(state),
            dy: row(&self.dy),
            d_final_state: self.d_final_state.as_ref().map(state),
        }
    }

    /// Each input in its type, for a harness to upload.
    pub fn host(&self, problem: &GatedScan) -> HostInputs {
        let (storage, acc) = (problem.dtype(), problem.accumulator());
        let mut tensors = Vec::new();
        let mut push = |operand, dtype, values: Option<&Vec<f64>>| {
            tensors.extend(values.map(|v| (operand, HostTensor::from_f64(dtype, v))));
        };
        push(Operand::X, storage, Some(&self.x));
        push(Operand::A, storage, Some(&self.a));
        push(Operand::B, storage, self.b.as_ref());
        push(Operand::C, storage, self.c.as_ref());
        push(Operand::H0, acc, self.h0.as_ref());
        push(Operand::Dy, problem.out_dtype(), Some(&self.dy));
        push(Operand::DFinalState, acc, self.d_final_state.as_ref());
        HostInputs { tensors }
    }
}

/// Input tensors by operand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostInputs {
    /// At most one tensor an operand.
    pub tensors: Vec<(Operand, HostTensor)>,
}

impl HostInputs {
    /// The tensor of an operand.
    pub fn get(&self, operand: Operand) -> Option<&HostTensor> {
        self.tensors.iter().find(|(o, _)| *o == operand).map(|(_, t)| t)
    }
}

impl Outputs {
    /// The tensor of an operand that a backend writes.
    pub fn get(&self, operand: Operand) -> Option<&[f64]> {
        Some(match operand {
            Operand::Y => &self.y,
            Operand::FinalState | Operand::State => &self.final_state,
            Operand::Dx => &self.dx,
            Operand::Da => &self.da,
            Operand::Db => &self.db,
            Operand::Dc => &self.dc,
            Operand::Dh0 => &self.dh0,
            _ => return None,
        })
    }
}

/// Forward and backward over the problem's shape, direction and boundaries. Which options there are, the inputs say.
pub fn run(problem: &GatedScan, inputs: &Inputs) -> Outputs {
    let d = problem.channels();
    let full = || vec![0.0; inputs.x.len()];
    let state = || vec![0.0; problem.sequences() * d];
    let mut out = Outputs {
        y: full(),
        h: full(),
        g: full(),
        final_state: state(),
        dx: full(),
        da: full(),
        db: full(),
        dc: full(),
        dh0: state(),
    };
    let or_one = |v: &Option<Vec<f64>>, i: usize| v.as_ref().map_or(1.0, |v| v[i]);
    let or_zero = |v: &Option<Vec<f64>>, i: usize| v.as_ref().map_or(0.0, |v| v[i]);
    for sequence in sequences(problem) {
        for channel in 0..d {
            let at_state = sequence.index * d + channel;
            let rows = || sequence.in_time(problem.is_reverse()).map(|row| row * d + channel);

            let mut h = or_zero(&inputs.h0, at_state);
            for i in rows() {
                h = inputs.a[i] * h + or_one(&inputs.b, i) * inputs.x[i];
                out.h[i] = h;
                out.y[i] = or_one(&inputs.c, i) * h;
            }
            out.final_state[at_state] = h;

            // What flows back into a step: a[t+1]·g[t+1], and dhT into the last.
            let mut back = or_zero(&inputs.d_final_state, at_state);
            let mut before = rows().rev().skip(1);
            for i in rows().rev() {
                let g = or_one(&inputs.c, i) * inputs.dy[i] + back;
                let h_before = before.next().map_or(or_zero(&inputs.h0, at_state), |j| out.h[j]);
                out.g[i] = g;
                out.dx[i] = or_one(&inputs.b, i) * g;
                out.da[i] = h_before * g;
                out.db[i] = inputs.x[i] * g;
                out.dc[i] = inputs.dy[i] * out.h[i];
                back = inputs.a[i] * g;
            }
            out.dh0[at_state] = back;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// loss = Σ y·dy + Σ hT·dhT, whose gradient backward computes.
    fn loss(problem: &GatedScan, inputs: &Inputs) -> f64 {
        let out = run(problem, inputs);
        let dot = |u: &[f64], v: &[f64]| u.iter().zip(v).map(|(u, v)| u * v).sum::<f64>();
        dot(&out.y, &inputs.dy) + inputs.d_final_state.as_ref().map_or(0.0, |d| dot(&out.final_state, d))
    }

    fn check(problem: &GatedScan) {
        let n = problem.batch() * problem.len() * problem.channels();
        let s = problem.sequences() * problem.channels();
        let ramp = |n: usize, k: f64| (0..n).map(|i| (i as f64 * k).sin()).collect::<Vec<_>>();
        let inputs = Inputs {
            x: ramp(n, 1.1),
            a: ramp(n, 0.7),
            b: Some(ramp(n, 1.3)),
            c: Some(ramp(n, 2.1)),
            h0: Some(ramp(s, 0.9)),
            dy: ramp(n, 1.7),
            d_final_state: Some(ramp(s, 0.3)),
        };
        let out = run(problem, &inputs);
        let step = 1e-6;
        type Field = fn(&mut Inputs) -> &mut [f64];
        let fields: [(Field, &[f64]); 5] = [
            (|i| &mut i.x, &out.dx),
            (|i| &mut i.a, &out.da),
            (|i| i.b.as_deref_mut().unwrap(), &out.db),
            (|i| i.c.as_deref_mut().unwrap(), &out.dc),
            (|i| i.h0.as_deref_mut().unwrap(), &out.dh0),
        ];
        for (which, (field, gradient)) in fields.into_iter().enumerate() {
            for (i, got) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut moved = inputs.clone();
                    field(&mut moved)[i] += by;
                    loss(problem, &moved)
                };
                let expected = (moved(step) - moved(-step)) / (2.0 * step);
                assert!(
                    (got - expected).abs() < 1e-7,
                    "field {which}, element {i}: {got} against {expected}"
                );
            }
        }
    }

    #[test]
    fn gradients_are_finite_differences() {
        for reverse in [false, true] {
            check(&GatedScan::builder(2, 5, 3).reverse(reverse).build().unwrap());
            // An empty sequence, one of length 1, and a row of slack.
            let packed = GatedScan::builder(1, 6, 2).cu_seqlens(&[0, 3, 3, 4, 5]).reverse(reverse);
            check(&packed.build().unwrap());
        }
    }

    #[test]
    fn slack_rows_are_zero() {
        let problem = GatedScan::builder(1, 3, 1).cu_seqlens(&[0, 2]).build().unwrap();
        let ones = vec![1.0; 3];
        let inputs = Inputs { x: ones.clone(), a: ones.clone(), dy: ones, ..Inputs::default() };
        let out = run(&problem, &inputs);
        assert_eq!(out.y, [1.0, 2.0, 0.0]);
        assert_eq!(out.dx, [2.0, 1.0, 0.0]);
    }
}
