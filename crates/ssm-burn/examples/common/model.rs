//! Tokens in, logits out: an embedding, gated SSM layers, a norm and a head.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, FloatDType, Int, Tensor};
use ssm_burn::{Error, GatedSsm, GatedSsmConfig, GatedSsmState, Recurrent, Sequences};

#[derive(Config, Debug)]
pub(crate) struct TokenModelConfig {
    /// Kinds of tokens in.
    pub(crate) vocabulary: usize,
    /// Kinds of tokens out.
    pub(crate) classes: usize,
    #[config(default = 64)]
    pub(crate) hidden: usize,
    #[config(default = 2)]
    pub(crate) multiplier: usize,
    #[config(default = 2)]
    pub(crate) layers: usize,
    /// Steps that the gates remember in the beginning.
    #[config(default = "(2.0, 1000.0)")]
    pub(crate) memory: (f64, f64),
    pub(crate) compute: Option<FloatDType>,
    /// The token that stands for silence: its embedding is 0, as a padding token's is.
    pub(crate) silence: Option<usize>,
}

impl TokenModelConfig {
    pub(crate) fn init(&self, device: &Device) -> TokenModel {
        let layer = GatedSsmConfig::new(self.hidden)
            .with_state_multiplier(self.multiplier)
            .with_memory(self.memory)
            .with_compute(self.compute);
        TokenModel {
            embedding: EmbeddingConfig::new(self.vocabulary, self.hidden).init(device),
            layers: (0..self.layers).map(|_| layer.init(device)).collect(),
            norm: RmsNormConfig::new(self.hidden).init(device),
            head: LinearConfig::new(self.hidden, self.classes).init(device),
            silence: self.silence,
        }
    }
}

#[derive(Module, Debug)]
pub(crate) struct TokenModel {
    pub(crate) embedding: Embedding,
    pub(crate) layers: Vec<GatedSsm>,
    pub(crate) norm: RmsNorm,
    pub(crate) head: Linear,
    silence: Option<usize>,
}

impl TokenModel {
    /// Logits (B, n, classes) at the last n steps of tokens (B, L), from fresh states.
    pub(crate) fn last(&self, tokens: Tensor<2, Int>, n: usize) -> Result<Tensor<3>, Error> {
        let [batch, len] = tokens.dims();
        self.advance(tokens, n.min(len), &mut self.fresh(batch))
    }

    pub(crate) fn fresh(&self, sequences: usize) -> Vec<GatedSsmState> {
        self.layers.iter().map(|layer| layer.fresh(sequences)).collect()
    }

    /// The same from these states, which are moved on.
    pub(crate) fn advance(
        &self,
        tokens: Tensor<2, Int>,
        n: usize,
        states: &mut [GatedSsmState],
    ) -> Result<Tensor<3>, Error> {
        let [_, len] = tokens.dims();
        let mut h = self.embedding.forward(tokens.clone());
        if let Some(silence) = self.silence {
            h = h * tokens.not_equal_elem(silence as i64).float().unsqueeze_dim(2);
        }
        for (layer, state) in self.layers.iter().zip(states) {
            h = layer.prefill(h, &Sequences::Rows, state)?;
        }
        Ok(self.head.forward(self.norm.forward(h.narrow(1, len - n, n))))
    }
}
