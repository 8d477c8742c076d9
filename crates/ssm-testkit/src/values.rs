//! Fresh inputs for every run, from a seed that a failure prints.

use std::hash::{DefaultHasher, Hash, Hasher};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ssm_core::{DType, GatedScan};

use crate::oracle::Inputs;

/// What the inputs look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Values {
    /// Gates in (0, 1], each channel with a memory of its own, from one step to thousands.
    #[default]
    Usual,
    /// Gates within 3e-4 of 1: a memory of thousands of steps.
    LongMemory,
    /// Gates within 3e-6 of 1: a memory of hundreds of thousands.
    LongestMemory,
    /// Half of the gates 0.
    ZeroGates,
    /// Every gate 0.
    AllZeroGates,
    /// Every gate 1: a running sum.
    OneGates,
    /// Gates in [-1, 1].
    NegativeGates,
    /// Gates up to 1.25 in windows, shrinking ones between.
    GrowingGates,
    /// A third of the gates below the smallest normal number of the type.
    DenormalGates,
    /// Some inputs NaN, some infinite.
    Contaminated,
    /// A stretch of gates whose product overflows, entered with h = 0 and left with g = 0: the loop stays finite.
    OverflowAtRest,
    /// Gates whose product underflows in every chunk.
    Underflow,
    /// A tiny h0 under gates whose product overflows while h does not; only the sequential loop is exact.
    OverflowInMotion,
}

/// The seed of this process: `SSM_SEED`, a number or any text, or one from the operating system.
pub fn seed() -> u64 {
    static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("SSM_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| hash(&text)),
        Err(_) => StdRng::from_os_rng().random(),
    })
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The generator of one trial: the same for the same seed and name, whichever trials run beside it.
pub fn rng(name: &str) -> StdRng {
    StdRng::seed_from_u64(seed() ^ hash(name))
}

/// Inputs for every operand that the problem has, exactly as its types hold them.
pub fn draw(values: Values, problem: &GatedScan, d_final_state: bool, rng: &mut StdRng) -> Inputs {
    let d = problem.channels();
    let n = problem.elements() as usize;
    let states = problem.state_elements() as usize;
    // In a tensor of a few elements terms of both signs may cancel to nothing, and a relative error means nothing.
    let signed = states >= 12 && n >= 12;
    let mut signal = |count: usize| -> Vec<f64> {
        (0..count)
            .map(|_| rng.random_range(0.1..1.5) * if signed && rng.random() { -1.0 } else { 1.0 })
            .collect()
    };
    let mut inputs = Inputs {
        x: signal(n),
        a: Vec::new(),
        b: problem.has_b().then(|| signal(n)),
        c: problem.has_c().then(|| signal(n)),
        h0: problem.has_initial_state().then(|| signal(states)),
        dy: signal(n),
        d_final_state: d_final_state.then(|| signal(states)),
    };
    let forget: Vec<f64> = (0..d).map(|_| 10f64.powf(rng.random_range(-3.5..0.0))).collect();
    inputs.a = (0..n).map(|i| 1.0 - forget[i % d] * rng.random_range(0.0..1.0)).collect();
    shape(values, problem, &mut inputs, signed, rng);
    let mut inputs = inputs.rounded(problem);
    if values == Values::Contaminated {
        contaminate(&mut inputs, rng);
    }
    inputs
}

/// The step, in the order of time, that a row of an unpacked problem is.
fn time_of(problem: &GatedScan, i: usize) -> usize {
    let t = i / problem.channels() % problem.len();
    if problem.is_reverse() { problem.len() - 1 - t } else { t }
}

fn shape(values: Values, problem: &GatedScan, inputs: &mut Inputs, signed: bool, rng: &mut StdRng) {
    let len = problem.len();
    match values {
        Values::Usual | Values::Contaminated => {}
        Values::LongMemory => inputs.a.iter_mut().for_each(|a| *a = 1.0 - 3e-4 * rng.random::<f64>()),
        Values::LongestMemory => inputs.a.iter_mut().for_each(|a| *a = 1.0 - 3e-6 * rng.random::<f64>()),
        Values::ZeroGates => inputs.a.iter_mut().filter(|_| rng.random()).for_each(|a| *a = 0.0),
        Values::AllZeroGates => inputs.a.fill(0.0),
        Values::OneGates => inputs.a.fill(1.0),
        Values::NegativeGates => {
            if signed {
                inputs.a.iter_mut().filter(|_| rng.random()).for_each(|a| *a = -*a);
            }
        }
        Values::GrowingGates => {
            for (i, a) in inputs.a.iter_mut().enumerate() {
                let grows = (time_of(problem, i) / 16).is_multiple_of(2);
                *a = if grows { rng.random_range(1.0..1.25) } else { rng.random_range(0.5..0.9) };
            }
        }
        Values::DenormalGates => {
            let tiny = match problem.dtype() {
                DType::F16 => 1e-6,
                DType::F32 | DType::Bf16 => 1e-39,
                DType::F64 => 1e-310,
            };
            inputs.a.iter_mut().filter(|_| rng.random_ratio(1, 3)).for_each(|a| *a = tiny);
        }
        Values::Underflow => inputs.a.iter_mut().for_each(|a| *a = 0.05 + 0.1 * *a),
        Values::OverflowAtRest => {
            // x speaks only after the stretch, dy only before it.
            let (from, to) = (len / 5, len - len / 5);
            for i in 0..inputs.a.len() {
                let t = time_of(problem, i);
                if (from..to).contains(&t) {
                    inputs.a[i] = if problem.dtype() == DType::F64 { 1e30 } else { 1024.0 };
                }
                if t < to {
                    inputs.x[i] = 0.0;
                }
                if t >= from {
                    inputs.dy[i] = 0.0;
                }
            }
        }
        Values::OverflowInMotion => {
            // 96 steps of 4 make 2^192: past f32, and 2^192 · 2^-140 is not.
            for i in 0..inputs.a.len() {
                let t = time_of(problem, i);
                inputs.a[i] = if t < 96 { 4.0 } else { inputs.a[i] };
                if t < 96 {
                    inputs.x[i] = 0.0;
                    inputs.dy[i] = 0.0;
                }
            }
            if let Some(h0) = &mut inputs.h0 {
                h0.iter_mut().for_each(|h| *h *= 2f64.powi(-120));
            }
        }
    }
}

/// A NaN or an infinity in a few places of every input, late enough that something before it stays clean.
fn contaminate(inputs: &mut Inputs, rng: &mut StdRng) {
    let poisons = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let mut spoil = |values: &mut Vec<f64>, count: usize| {
        for _ in 0..count {
            if !values.is_empty() {
                let at = rng.random_range(0..values.len());
                values[at] = poisons[rng.random_range(0..3)];
            }
        }
    };
    spoil(&mut inputs.x, 2);
    spoil(&mut inputs.a, 1);
    spoil(&mut inputs.dy, 2);
    let optional = [&mut inputs.b, &mut inputs.c, &mut inputs.h0, &mut inputs.d_final_state];
    optional.into_iter().flatten().for_each(|values| spoil(values, 1));
}
