//! The gated SSM layer: gates by projection, one scan, a SwiGLU output gate, a residual connection.
//!
//! ```text
//! n = x · w / sqrt(mean(x²) + 1e-5)
//! a = σ(A n + bias)   u = B n   d = σ(D n)   c = silu(Ca n) · (Cb n)
//! y = Out(gated_scan(x = u, a = a, b = d, c = c)) + bias + x
//! ```

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::module::linear;
use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor};

use crate::gates::{sigmoid_gate, swish_gate};
use crate::recurrent::{Input, Recurrent, State};
use crate::scan::served;
use crate::sequences::Carry;
use crate::{Checkpoint, Error, ScanOptions, Sequences, gated_scan};

/// Configuration of a [`GatedSsm`].
#[derive(Config, Debug)]
pub struct GatedSsmConfig {
    /// D, the width of input and output.
    pub hidden: usize,
    /// Channels of the scan are `hidden` times this.
    #[config(default = 1)]
    pub state_multiplier: usize,
    /// Whether the input is normed first.
    #[config(default = true)]
    pub norm: bool,
    /// Whether the input is added to the output.
    #[config(default = true)]
    pub residual: bool,
    /// What the scan's operands are stored in; the parameters' own type when none. The state is f32 in any case (f64 for
    /// f64). bf16 has no gate between 0.998 and 1, so no memory of more than a few hundred steps that ends.
    pub compute: Option<FloatDType>,
    /// The memory of the forget gates in the beginning, in steps: each channel's is drawn between these two, evenly in
    /// the logarithm.
    #[config(default = "(2.0, 1000.0)")]
    pub memory: (f64, f64),
}

impl GatedSsmConfig {
    /// The layer, with fresh parameters.
    pub fn init(&self, device: &Device) -> GatedSsm {
        let state = self.hidden * self.state_multiplier;
        let project = || LinearConfig::new(self.hidden, state).with_bias(false).init(device);
        // A gate of 1 − 1/τ forgets over τ steps; its logit is ln(τ − 1).
        let (low, high) = (self.memory.0.max(1.001).ln(), self.memory.1.max(1.001).ln());
        let tau =
            Tensor::<1>::random([state], Distribution::Uniform(low, high.max(low + 1e-3)), device).exp();
        GatedSsm {
            norm: self.norm.then(|| RmsNormConfig::new(self.hidden).init(device)),
            a: project(),
            a_bias: Param::from_tensor((tau - 1.0).log()),
            b: project(),
            d: project(),
            c_a: project(),
            c_b: project(),
            out: LinearConfig::new(state, self.hidden).init(device),
            residual: self.residual,
            scan: ScanSettings { compute: self.compute, ..Default::default() },
        }
    }
}

/// The gated SSM layer, (B, L, D) in and out; S is the number of channels of its scan.
#[derive(Module, Debug)]
pub struct GatedSsm {
    /// The norm over the input, where there is one.
    pub norm: Option<RmsNorm>,
    /// The forget gate's projection, (D, S).
    pub a: Linear,
    /// The forget gate's bias, (S).
    pub a_bias: Param<Tensor<1>>,
    /// The input's projection, (D, S).
    pub b: Linear,
    /// The input gate's projection, (D, S).
    pub d: Linear,
    /// The output gate's projection that goes through silu, (D, S).
    pub c_a: Linear,
    /// The output gate's other projection, (D, S).
    pub c_b: Linear,
    /// The projection back, (S, D), with bias.
    pub out: Linear,
    /// Whether the input is added to the output.
    pub residual: bool,
    #[module(skip)]
    scan: ScanSettings,
}

impl GatedSsm {
    /// The same layer, whose scan's operands are stored as this; as the parameters' own type when none.
    #[must_use]
    pub fn with_compute(mut self, compute: Option<FloatDType>) -> Self {
        self.scan.compute = compute;
        self
    }

    /// The same layer, whose scan keeps this for backward.
    #[must_use]
    pub fn with_checkpoint(mut self, policy: Checkpoint) -> Self {
        self.scan.checkpoint = policy;
        self
    }
}

/// h (N, S) of N sequences, f32 (f64 for f64).
#[derive(Clone, Debug)]
pub struct GatedSsmState {
    h: Carry<2>,
}

impl State for GatedSsmState {
    fn sequences(&self) -> usize {
        self.h.sequences()
    }

    fn sequence(&self, index: usize) -> Self {
        Self { h: self.h.sequence(index) }
    }

    fn stack(states: &[&Self]) -> Option<Self> {
        let carries: Vec<_> = states.iter().map(|state| &state.h).collect();
        (!carries.is_empty()).then(|| Self { h: Carry::stack(&carries) })
    }
}

impl Recurrent for GatedSsm {
    type State = GatedSsmState;

    fn input(&self) -> Input {
        let weight = self.a.weight.val();
        Input::of(weight.dims()[0], &weight)
    }

    fn fresh(&self, sequences: usize) -> GatedSsmState {
        GatedSsmState { h: Carry::fresh(sequences) }
    }

    fn run(
        &self,
        x: Tensor<3>,
        sequences: &Sequences,
        state: &GatedSsmState,
    ) -> Result<(Tensor<3>, GatedSsmState), Error> {
        served(&x.device())?;
        let n = self.norm.as_ref().map_or_else(|| x.clone(), |norm| normed(norm, x.clone()));
        let a = sigmoid_gate(linear(n.clone(), self.a.weight.val(), Some(self.a_bias.val())));
        let u = self.b.forward(n.clone());
        let d = sigmoid_gate(self.d.forward(n.clone()));
        let c = swish_gate(self.c_a.forward(n.clone()), self.c_b.forward(n));
        let (h, carried) = scan_as(self.scan, u, a, Some(d), Some(c), sequences, &state.h)?;
        let y = self.out.forward(h);
        Ok((if self.residual { y + x } else { y }, GatedSsmState { h: carried }))
    }
}

/// `x · w / sqrt(mean(x²) + eps)` over the last dimension, the mean in f32 or wider: burn's own forward takes it in f32 even
/// for f64.
pub(crate) fn normed(norm: &RmsNorm, x: Tensor<3>) -> Tensor<3> {
    let dtype = x.dtype();
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let scale = (x.clone().cast(wide).square().mean_dim(2) + norm.epsilon).sqrt();
    x / scale.cast(dtype) * norm.gamma.val().unsqueeze()
}

/// How a layer runs its scan.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScanSettings {
    /// What the operands are stored in; their own type when none.
    pub(crate) compute: Option<FloatDType>,
    /// What forward keeps for backward.
    pub(crate) checkpoint: Checkpoint,
}

/// A scan from a carry to the next; y comes back in the operands' own type.
pub(crate) fn scan_as(
    settings: ScanSettings,
    x: Tensor<3>,
    a: Tensor<3>,
    b: Option<Tensor<3>>,
    c: Option<Tensor<3>>,
    sequences: &Sequences,
    carry: &Carry<2>,
) -> Result<(Tensor<3>, Carry<2>), Error> {
    let own = FloatDType::from(x.dtype());
    let stored = |t: Tensor<3>| settings.compute.map_or_else(|| t.clone(), |dtype| t.clone().cast(dtype));
    let options = ScanOptions {
        h0: carry.values(),
        final_state: true,
        cu_seqlens: sequences.cu_seqlens(),
        out_dtype: Some(own),
        checkpoint: settings.checkpoint,
        ..Default::default()
    };
    let out = gated_scan(stored(x), stored(a), b.map(stored), c.map(stored), options)?;
    Ok((out.y, out.final_state.map_or_else(|| carry.clone(), Carry::of)))
}
