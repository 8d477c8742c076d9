//! How far a backend is from the float64 recurrence, by length, type and output.
//!
//! The suite asks whether an error is allowed; this says how large it is. Two kinds of gates: such as a sigmoid gives,
//! which forget within a few hundred steps, and slow ones that remember ten thousand, where an error that adds up from
//! step to step would show. Every input is rounded to its type before the reference sees it, so that only the
//! computation is measured.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ssm_core::{Algorithm, DType, GatedScan, Grads, Operand};

use crate::oracle::{Inputs, run as oracle};
use crate::{Failure, Subject};

/// What the gates are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gates {
    /// The sigmoid of something between -2 and 6.
    Sigmoid,
    /// Within 1.5e-4 of 1.
    Slow,
}

impl Gates {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Sigmoid, Self::Slow];

    /// The name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sigmoid => "sigmoid",
            Self::Slow => "slow",
        }
    }

    fn draw(self, rng: &mut StdRng) -> f64 {
        match self {
            Self::Sigmoid => 1.0 / (1.0 + (-rng.random_range(-2.0..6.0f64)).exp()),
            Self::Slow => 1.0 - 1e-4 * rng.random_range(0.5..1.5),
        }
    }
}

/// The problem to measure on.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// What the gates are like.
    pub gates: Gates,
    /// The storage type.
    pub dtype: DType,
    /// Time steps.
    pub len: usize,
    /// The algorithm; the backend's choice when `None`.
    pub algorithm: Option<Algorithm>,
    /// The worst of so many draws counts.
    pub draws: u64,
}

/// The error of one output.
#[derive(Clone, Copy, Debug)]
pub struct Drift {
    /// The output or gradient.
    pub operand: Operand,
    /// The algorithm that ran.
    pub algorithm: Algorithm,
    /// ‖out − ref‖ / ‖ref‖.
    pub error: f64,
}

/// An output that the oracle does not compute.
#[derive(Debug, thiserror::Error)]
#[error("{0}: the oracle has no such output")]
pub struct NoReference(Operand);

/// Channels: few, since only the length matters here.
const CHANNELS: usize = 4;

/// The error of every output and gradient, forward and backward.
///
/// # Errors
///
/// Whatever planning or the device says.
pub fn drift(subject: &dyn Subject, probe: &Probe) -> Result<Vec<Drift>, Failure> {
    let builder = GatedScan::builder(1, probe.len, CHANNELS).dtype(probe.dtype);
    let problem = builder.initial_state(true).final_state(true).build()?;
    let mut worst: Vec<Drift> = Vec::new();
    for seed in 0..probe.draws {
        let inputs = inputs(&problem, probe.gates, seed);
        let ran = subject.train(&problem, Grads::all(&problem), probe.algorithm, &inputs)?;
        let reference = oracle(&problem, &inputs);
        for (operand, tensor) in &ran.outputs {
            let expected = reference.get(*operand).ok_or(NoReference(*operand))?;
            let error = relative(&tensor.to_f64(), expected);
            match worst.iter_mut().find(|w| w.operand == *operand) {
                Some(w) => w.error = w.error.max(error),
                None => {
                    worst.push(Drift { operand: *operand, algorithm: ran.report.algorithm, error });
                }
            }
        }
    }
    Ok(worst)
}

fn inputs(problem: &GatedScan, gates: Gates, seed: u64) -> Inputs {
    let mut rng = StdRng::seed_from_u64(seed);
    let (n, states) = (problem.elements() as usize, problem.state_elements() as usize);
    let a = (0..n).map(|_| gates.draw(&mut rng)).collect();
    let mut signal =
        |count: usize, most: f64| -> Vec<f64> { (0..count).map(|_| rng.random_range(-most..most)).collect() };
    Inputs {
        x: signal(n, 1.0),
        a,
        b: Some(signal(n, 1.0)),
        c: Some(signal(n, 1.0)),
        h0: Some(signal(states, 1.0)),
        // Small enough for da = h[t-1]·g[t] to stay within f16 where both grow for a million steps.
        dy: signal(n, 0.125),
        d_final_state: Some(signal(states, 0.125)),
    }
    .rounded(problem)
}

fn relative(got: &[f64], expected: &[f64]) -> f64 {
    let (mut error, mut size) = (0.0, 0.0);
    for (got, expected) in got.iter().zip(expected) {
        error += (got - expected) * (got - expected);
        size += expected * expected;
    }
    (error / size).sqrt()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Erased, ReferenceHarness};

    #[test]
    fn rounding_to_storage_shows_and_nothing_else() {
        let subject = Erased(Arc::new(ReferenceHarness::default()));
        let probe = Probe { gates: Gates::Slow, dtype: DType::F16, len: 70, algorithm: None, draws: 2 };
        let half = drift(&subject, &probe).expect("the reference runs");
        let names: Vec<&str> = half.iter().map(|d| d.operand.name()).collect();
        assert_eq!(names, ["y", "hT", "dx", "da", "db", "dc", "dh0"]);
        let y = half[0].error;
        assert!(y > 1e-5 && y < 6e-4, "half a unit in the last place of f16: {y}");
        let double = drift(&subject, &Probe { dtype: DType::F64, ..probe }).expect("the reference runs");
        assert!(double.iter().all(|d| d.error < 1e-14), "{double:?}");
    }

    #[test]
    fn nan_is_no_small_error() {
        assert!(relative(&[f64::NAN, 1.0], &[1.0, 1.0]).is_nan());
    }
}
