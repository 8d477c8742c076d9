//! The real-gated linear recurrent unit of Griffin (De et al., 2024), as in its published code.
//!
//! ```text
//! r = σ(BD_a x)   i = σ(BD_x x)   log a = −8·r·softplus(Λ)   a = exp(log a)   m = sqrt(1 − a²)
//! h[t] = a[t]·h[t-1] + m[t]·i[t]·x[t]          where a sequence begins: m = 1, a = 0
//! ```
//!
//! 1 − a is computed first, which keeps its digits near a = 1, and the slope of the root is bounded there.

use burn::config::Config;
use burn::module::{Initializer, Module, Param};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Bool, Device, Distribution, FloatDType, Tensor, TensorData};

use crate::gated_ssm::{ScanSettings, scan_as};
use crate::gates::{expm1, sigmoid_gate};
use crate::recurrent::{Input, Recurrent, State};
use crate::scan::served;
use crate::sequences::Carry;
use crate::{Checkpoint, Error, Sequences};

/// How fast the gate r moves log a.
const SPEED: f64 = 8.0;

/// Configuration of an [`RgLru`].
#[derive(Config, Debug)]
pub struct RgLruConfig {
    /// D.
    pub width: usize,
    /// H, the number of blocks in the gates' weights; it divides D.
    #[config(default = 1)]
    pub heads: usize,
    /// What the scan's operands are stored in; the parameters' own type when none.
    pub compute: Option<FloatDType>,
}

impl RgLruConfig {
    /// The layer, with fresh parameters: a² is uniform in [0.9², 0.999²] at r = 1, the gates' weights are normal with
    /// variance H/D, their biases 0.
    ///
    /// # Errors
    ///
    /// [`Error::Heads`] unless H divides D.
    pub fn init(&self, device: &Device) -> Result<RgLru, Error> {
        let (width, heads) = (self.width, self.heads);
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(Error::Heads { width, heads });
        }
        let block = width / heads;
        let std = 1.0 / (block.max(1) as f64).sqrt();
        let weight = || Initializer::Normal { mean: 0.0, std }.init([heads, block, block], device);
        let bias = || Initializer::Zeros.init([heads, block], device);
        let squares = Distribution::Uniform(0.9 * 0.9, 0.999 * 0.999);
        // At r = 1, a = exp(−8·softplus(Λ)), so Λ = ln(expm1(−ln(a²)/16)).
        let softplus = Tensor::<1>::random([width], squares, device).log() * (-0.5 / SPEED);
        let lambda = (softplus.exp() - 1.0).log();
        Ok(RgLru {
            lambda: Param::from_tensor(lambda),
            a_weight: weight(),
            a_bias: bias(),
            input_weight: weight(),
            input_bias: bias(),
            scan: ScanSettings { compute: self.compute, ..Default::default() },
        })
    }
}

/// The real-gated linear recurrent unit, (B, L, D) in and out.
#[derive(Module, Debug)]
pub struct RgLru {
    /// Λ (D). The gate is σ(−Λ)^(8r): a larger Λ forgets faster.
    pub lambda: Param<Tensor<1>>,
    /// The recurrence gate's blocks, (H, D/H, D/H), input by output.
    pub a_weight: Param<Tensor<3>>,
    /// (H, D/H).
    pub a_bias: Param<Tensor<2>>,
    /// The input gate's blocks, (H, D/H, D/H), input by output.
    pub input_weight: Param<Tensor<3>>,
    /// (H, D/H).
    pub input_bias: Param<Tensor<2>>,
    #[module(skip)]
    scan: ScanSettings,
}

/// h (N, D) of N sequences, and which of them have not begun.
#[derive(Clone, Debug)]
pub struct RgLruState {
    h: Carry<2>,
    fresh: Vec<bool>,
}

impl RgLruState {
    /// The state of N sequences that are under way, from h (N, D), f32 (f64 for f64).
    pub fn under_way(h: Tensor<2>) -> Self {
        let h = Carry::of(h);
        Self { fresh: vec![false; h.sequences()], h }
    }

    /// h (N, D); none before the first step.
    pub fn h(&self) -> Option<Tensor<2>> {
        self.h.values()
    }
}

impl State for RgLruState {
    fn sequences(&self) -> usize {
        self.h.sequences()
    }

    fn sequence(&self, index: usize) -> Self {
        Self { h: self.h.sequence(index), fresh: self.fresh.get(index).copied().into_iter().collect() }
    }

    fn stack(states: &[&Self]) -> Option<Self> {
        let carries: Vec<_> = states.iter().map(|state| &state.h).collect();
        let fresh = states.iter().flat_map(|state| state.fresh.clone()).collect();
        (!carries.is_empty()).then(|| Self { h: Carry::stack(&carries), fresh })
    }
}

impl Recurrent for RgLru {
    type State = RgLruState;

    fn input(&self) -> Input {
        let lambda = self.lambda.val();
        Input::of(lambda.dims()[0], &lambda)
    }

    fn fresh(&self, sequences: usize) -> RgLruState {
        RgLruState { h: Carry::fresh(sequences), fresh: vec![true; sequences] }
    }

    fn run(
        &self,
        x: Tensor<3>,
        sequences: &Sequences,
        state: &RgLruState,
    ) -> Result<(Tensor<3>, RgLruState), Error> {
        let [batch, len, _] = x.dims();
        let ranges = sequences.ranges(batch, len);
        let mut resets = vec![false; batch * len];
        let mut fresh = state.fresh.clone();
        for (range, fresh) in ranges.into_iter().zip(&mut fresh).filter(|(range, _)| !range.is_empty()) {
            resets[range.start] = *fresh;
            *fresh = false;
        }
        let resets = resets.contains(&true).then(|| {
            let data = TensorData::new(resets, [batch, len]);
            Tensor::<2, Bool>::from_data(data, &x.device().without_autodiff())
        });
        let (y, h) = self.scan(x, resets, sequences, &state.h)?;
        Ok((y, RgLruState { h, fresh }))
    }
}

impl RgLru {
    /// The same layer, whose scan keeps this for backward.
    #[must_use]
    pub fn with_checkpoint(mut self, policy: Checkpoint) -> Self {
        self.scan.checkpoint = policy;
        self
    }

    /// y (B, L, D) with the state cut where `resets` (B, L) is true, at any step of any row, from a state of B
    /// sequences, which is moved on. A state that is fresh by itself resets nothing here.
    ///
    /// # Errors
    ///
    /// As [`Recurrent::prefill`].
    pub fn with_resets(
        &self,
        x: Tensor<3>,
        resets: Tensor<2, Bool>,
        state: &mut RgLruState,
    ) -> Result<Tensor<3>, Error> {
        let [batch, len, _] = x.dims();
        self.input().check(&x)?;
        if resets.dims() != [batch, len] {
            let (expected, got) = (vec![batch, len], resets.dims().to_vec());
            return Err(Error::Shape { tensor: "resets", expected, got });
        }
        if state.sequences() != batch {
            return Err(Error::Sequences { expected: batch, got: state.sequences() });
        }
        let (y, h) = self.scan(x, Some(resets), &Sequences::Rows, &state.h)?;
        *state = RgLruState { h, fresh: vec![false; batch] };
        Ok(y)
    }

    fn scan(
        &self,
        x: Tensor<3>,
        resets: Option<Tensor<2, Bool>>,
        sequences: &Sequences,
        carry: &Carry<2>,
    ) -> Result<(Tensor<3>, Carry<2>), Error> {
        let shape = x.dims();
        served(&x.device())?;
        let r = gate(&x, &self.a_weight, &self.a_bias);
        let input = gate(&x, &self.input_weight, &self.input_bias);
        let slope = softplus(self.lambda.val()) * -SPEED;
        let log_a = r * slope.unsqueeze();
        let (mut a, mut m) = decay(&log_a);
        if let Some(resets) = resets {
            let resets = resets.reshape([shape[0], shape[1], 1]).expand(shape);
            m = m.mask_fill(resets.clone(), 1.0);
            a = a.mask_fill(resets, 0.0);
        }
        scan_as(self.scan, x, a, Some(m * input), None, sequences, carry)
    }
}

/// σ(x·W + β) with W block-diagonal: (B, L, D).
fn gate(x: &Tensor<3>, weight: &Param<Tensor<3>>, bias: &Param<Tensor<2>>) -> Tensor<3> {
    let [batch, len, width] = x.dims();
    let [heads, block, _] = weight.val().dims();
    let blocks = x.clone().reshape([batch * len, heads, block]).swap_dims(0, 1);
    let mixed = blocks.matmul(weight.val()) + bias.val().reshape([heads, 1, block]);
    sigmoid_gate(mixed.swap_dims(0, 1).reshape([batch, len, width]))
}

/// ln(1 + exp(Λ)) to the last digits also where it is small, which is where a channel's memory is long: a GPU's logarithm is
/// exact next to 1 to f32's digits of 1 and no further, so a series is taken, ln(1 + e) = 2·artanh(e / (2 + e)).
fn softplus(lambda: Tensor<1>) -> Tensor<1> {
    let still = lambda.clone().detach();
    let e = still.clone().abs().neg().exp();
    let s = e.clone() / e.add_scalar(2.0);
    let square = s.clone().square();
    // s is at most a third: the first term left out is 1e-17 of the sum.
    let odd = (1..=33).rev().step_by(2).map(f64::from);
    let series = odd.fold(square.zeros_like(), |sum, n| sum * square.clone() + 1.0 / n);
    let value = still.clone().clamp_min(0.0) + s.mul_scalar(2.0) * series;
    if lambda.is_tracked() { (lambda - still.clone()) * sigmoid(still) + value } else { value }
}

/// a and m = sqrt(1 − a²) from log a, with dm/dz = 1/sqrt(max(4z, 1e-6)) for z = 1 − a².
///
/// Values and slopes are computed outside of autodiff and joined by `(log a − log a)·slope + value`, whose first term is 0:
/// burn's own slope of the root is infinite at 0, and this keeps two tensors for backward instead of a chain of them.
fn decay(log_a: &Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    let still = log_a.clone().detach();
    // 1 − a and no digit lost, however close to 0 it is. An exp that is off by two units in the last place, as a GPU's is,
    // would be off by that much of 1 and not of the distance to it, and over a memory of n steps that counts n times.
    let off = expm1(still.clone()).neg();
    let a = off.clone().neg().add_scalar(1.0);
    let z = off.clone() * off.neg().add_scalar(2.0);
    let m = z.clone().sqrt();
    if !log_a.is_tracked() {
        return (a, m);
    }
    // dz/d(log a) = −2·a².
    let slope = a.clone().square().mul_scalar(-2.0) / z.mul_scalar(4.0).clamp_min(1e-6).sqrt();
    let change = log_a.clone() - still;
    (change.clone() * a.clone() + a, change * slope + m)
}
