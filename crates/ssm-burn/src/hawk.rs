//! Hawk, the recurrent model of the Griffin paper: RG-LRU blocks and gated MLPs in a residual stack.

use burn::config::Config;
use burn::module::{Initializer, Module};
use burn::nn::{Linear, RmsNorm, RmsNormConfig};
use burn::tensor::activation::gelu_approximate;
use burn::tensor::{Device, FloatDType, Tensor};

use crate::conv1d::{Conv1dCausal, Conv1dCausalConfig, Conv1dCausalState};
use crate::gated_ssm::normed;
use crate::recurrent::{Input, Recurrent, State};
use crate::rg_lru::{RgLru, RgLruConfig, RgLruState};
use crate::{Error, Sequences};

/// Configuration of a [`HawkBlock`].
#[derive(Config, Debug)]
pub struct HawkBlockConfig {
    /// D, the width of input and output.
    pub hidden: usize,
    /// R, the width of the recurrence.
    pub width: usize,
    /// H, the number of blocks in the recurrence's gates; it divides R.
    #[config(default = 1)]
    pub heads: usize,
    /// K, the steps that the convolution sees.
    #[config(default = 4)]
    pub kernel: usize,
    /// What the scan's operands are stored in; the parameters' own type when none.
    pub compute: Option<FloatDType>,
}

impl HawkBlockConfig {
    /// The block, with fresh parameters, drawn as in the published code.
    ///
    /// # Errors
    ///
    /// [`Error::Heads`], [`Error::EmptyKernel`].
    pub fn init(&self, device: &Device) -> Result<HawkBlock, Error> {
        let (hidden, width) = (self.hidden, self.width);
        let narrow = Initializer::Normal { mean: 0.0, std: 0.1 / (self.kernel.max(1) as f64).sqrt() };
        Ok(HawkBlock {
            gate: linear(hidden, width, device),
            branch: linear(hidden, width, device),
            conv: Conv1dCausalConfig::new(width)
                .with_kernel(self.kernel)
                .with_initializer(narrow)
                .init(device)?,
            rg_lru: RgLruConfig::new(width).with_heads(self.heads).with_compute(self.compute).init(device)?,
            out: linear(width, hidden, device),
        })
    }
}

/// Weights normal with variance 1 over the width of the input, the bias 0.
fn linear(input: usize, output: usize, device: &Device) -> Linear {
    let std = 1.0 / (input.max(1) as f64).sqrt();
    let weight = Initializer::Normal { mean: 0.0, std };
    Linear {
        weight: weight.init([input, output], device),
        bias: Some(Initializer::Zeros.init([output], device)),
    }
}

/// The recurrent block, (B, L, D) in and out: `out(gelu(gate(x)) · rg_lru(conv(branch(x))))`.
#[derive(Module, Debug)]
pub struct HawkBlock {
    /// The gate's projection, (D, R).
    pub gate: Linear,
    /// The recurrent branch's projection, (D, R).
    pub branch: Linear,
    /// The convolution over the last steps of the branch.
    pub conv: Conv1dCausal,
    /// The recurrence.
    pub rg_lru: RgLru,
    /// The projection back, (R, D).
    pub out: Linear,
}

/// What a [`HawkBlock`] carries along time.
#[derive(Clone, Debug)]
pub struct HawkBlockState {
    conv: Conv1dCausalState,
    rg_lru: RgLruState,
}

impl State for HawkBlockState {
    fn sequences(&self) -> usize {
        self.rg_lru.sequences()
    }

    fn sequence(&self, index: usize) -> Self {
        Self { conv: self.conv.sequence(index), rg_lru: self.rg_lru.sequence(index) }
    }

    fn stack(states: &[&Self]) -> Option<Self> {
        let conv: Vec<_> = states.iter().map(|state| &state.conv).collect();
        let rg_lru: Vec<_> = states.iter().map(|state| &state.rg_lru).collect();
        Some(Self { conv: State::stack(&conv)?, rg_lru: State::stack(&rg_lru)? })
    }
}

impl Recurrent for HawkBlock {
    type State = HawkBlockState;

    fn input(&self) -> Input {
        let weight = self.branch.weight.val();
        Input::of(weight.dims()[0], &weight)
    }

    fn fresh(&self, sequences: usize) -> HawkBlockState {
        HawkBlockState { conv: self.conv.fresh(sequences), rg_lru: self.rg_lru.fresh(sequences) }
    }

    fn run(
        &self,
        x: Tensor<3>,
        sequences: &Sequences,
        state: &HawkBlockState,
    ) -> Result<(Tensor<3>, HawkBlockState), Error> {
        let gate = gelu_approximate(self.gate.forward(x.clone()));
        let (branch, conv) = self.conv.run(self.branch.forward(x), sequences, &state.conv)?;
        let (h, rg_lru) = self.rg_lru.run(branch, sequences, &state.rg_lru)?;
        Ok((self.out.forward(gate * h), HawkBlockState { conv, rg_lru }))
    }
}

/// Configuration of a [`Hawk`].
#[derive(Config, Debug)]
pub struct HawkConfig {
    /// D, the width of input and output.
    pub hidden: usize,
    /// The number of residual layers.
    pub layers: usize,
    /// R, the width of the recurrence; D when none.
    pub width: Option<usize>,
    /// H, the number of blocks in the recurrences' gates; it divides R.
    #[config(default = 1)]
    pub heads: usize,
    /// K, the steps that the convolutions see.
    #[config(default = 4)]
    pub kernel: usize,
    /// The gated MLPs are this many times as wide as D.
    #[config(default = 3)]
    pub expansion: usize,
    /// What the scans' operands are stored in; the parameters' own type when none.
    pub compute: Option<FloatDType>,
}

impl HawkConfig {
    /// The stack, with fresh parameters, drawn as in the published code.
    ///
    /// # Errors
    ///
    /// [`Error::Heads`], [`Error::EmptyKernel`].
    pub fn init(&self, device: &Device) -> Result<Hawk, Error> {
        let block = HawkBlockConfig {
            hidden: self.hidden,
            width: self.width.unwrap_or(self.hidden),
            heads: self.heads,
            kernel: self.kernel,
            compute: self.compute,
        };
        let wide = self.hidden * self.expansion;
        let layer = |_| {
            Ok(HawkLayer {
                block_norm: RmsNormConfig::new(self.hidden).init(device),
                block: block.init(device)?,
                mlp_norm: RmsNormConfig::new(self.hidden).init(device),
                mlp: GatedMlp {
                    gate: linear(self.hidden, wide, device),
                    up: linear(self.hidden, wide, device),
                    down: linear(wide, self.hidden, device),
                },
            })
        };
        let layers = (0..self.layers).map(layer).collect::<Result<Vec<_>, Error>>()?;
        Ok(Hawk { layers, width: self.hidden })
    }
}

/// `down(gelu(gate(x)) · up(x))`.
#[derive(Module, Debug)]
pub struct GatedMlp {
    /// (D, W).
    pub gate: Linear,
    /// (D, W).
    pub up: Linear,
    /// (W, D).
    pub down: Linear,
}

impl GatedMlp {
    /// (…, D) in and out.
    pub fn forward<const R: usize>(&self, x: Tensor<R>) -> Tensor<R> {
        self.down.forward(gelu_approximate(self.gate.forward(x.clone())) * self.up.forward(x))
    }
}

/// `x + block(norm(x))`, and the same around the gated MLP.
#[derive(Module, Debug)]
pub struct HawkLayer {
    /// The norm before the block.
    pub block_norm: RmsNorm,
    /// The recurrent block.
    pub block: HawkBlock,
    /// The norm before the MLP.
    pub mlp_norm: RmsNorm,
    /// The MLP.
    pub mlp: GatedMlp,
}

/// The residual stack, (B, L, D) in and out. Embedding, final norm and head are the model's around it.
#[derive(Module, Debug)]
pub struct Hawk {
    /// First to last.
    pub layers: Vec<HawkLayer>,
    width: usize,
}

/// What a [`Hawk`] carries along time.
#[derive(Clone, Debug)]
pub struct HawkState {
    sequences: usize,
    layers: Vec<HawkBlockState>,
}

impl State for HawkState {
    fn sequences(&self) -> usize {
        self.sequences
    }

    fn sequence(&self, index: usize) -> Self {
        Self { sequences: 1, layers: self.layers.iter().map(|layer| layer.sequence(index)).collect() }
    }

    fn stack(states: &[&Self]) -> Option<Self> {
        let first = states.first()?;
        let layer = |i: usize| {
            let layers: Vec<_> = states.iter().filter_map(|state| state.layers.get(i)).collect();
            HawkBlockState::stack(&layers)
        };
        let layers = (0..first.layers.len()).map(layer).collect::<Option<_>>()?;
        Some(Self { sequences: states.iter().map(|state| state.sequences).sum(), layers })
    }
}

impl Recurrent for Hawk {
    type State = HawkState;

    fn input(&self) -> Input {
        match self.layers.first() {
            Some(layer) => layer.block.input(),
            None => Input { width: self.width, device: Device::default(), dtype: burn::tensor::DType::F32 },
        }
    }

    fn fresh(&self, sequences: usize) -> HawkState {
        let layers = self.layers.iter().map(|layer| layer.block.fresh(sequences)).collect();
        HawkState { sequences, layers }
    }

    fn run(
        &self,
        mut x: Tensor<3>,
        sequences: &Sequences,
        state: &HawkState,
    ) -> Result<(Tensor<3>, HawkState), Error> {
        let mut layers = Vec::with_capacity(self.layers.len());
        for (layer, state) in self.layers.iter().zip(&state.layers) {
            let (y, next) = layer.block.run(normed(&layer.block_norm, x.clone()), sequences, state)?;
            x = x + y;
            x = x.clone() + layer.mlp.forward(normed(&layer.mlp_norm, x));
            layers.push(next);
        }
        Ok((x, HawkState { sequences: state.sequences, layers }))
    }
}
