//! A causal depthwise convolution over the last few steps.
//!
//! The steps before the first of a sequence are its carry: zeros in the beginning, and later the last K − 1 inputs of the
//! call before. So no length is too short, and packed sequences do not see each other.

use burn::config::Config;
use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::recurrent::{Input, Recurrent, State};
use crate::sequences::Carry;
use crate::{Error, Sequences};

/// Configuration of a [`Conv1dCausal`].
#[derive(Config, Debug)]
pub struct Conv1dCausalConfig {
    /// D.
    pub width: usize,
    /// K, the number of steps that each output sees, its own among them.
    #[config(default = 4)]
    pub kernel: usize,
    /// How the weights begin.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
}

impl Conv1dCausalConfig {
    /// The layer, with fresh parameters; the bias begins at 0.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKernel`] for K = 0.
    pub fn init(&self, device: &Device) -> Result<Conv1dCausal, Error> {
        let (kernel, width) = (self.kernel, self.width);
        if kernel == 0 {
            return Err(Error::EmptyKernel);
        }
        let weight = self.initializer.init_with([kernel, width], Some(kernel), Some(kernel), device);
        Ok(Conv1dCausal { weight, bias: Initializer::Zeros.init([width], device) })
    }
}

/// `y[t] = bias + Σ_k weight[k]·x[t − (K−1) + k]`, each channel on its own: `weight[K−1]` meets the current step.
#[derive(Module, Debug)]
pub struct Conv1dCausal {
    /// (K, D).
    pub weight: Param<Tensor<2>>,
    /// (D).
    pub bias: Param<Tensor<1>>,
}

/// The last K − 1 inputs of N sequences.
#[derive(Clone, Debug)]
pub struct Conv1dCausalState {
    /// (N, K − 1, D).
    tail: Carry<3>,
}

impl State for Conv1dCausalState {
    fn sequences(&self) -> usize {
        self.tail.sequences()
    }

    fn sequence(&self, index: usize) -> Self {
        Self { tail: self.tail.sequence(index) }
    }

    fn stack(states: &[&Self]) -> Option<Self> {
        let tails: Vec<_> = states.iter().map(|state| &state.tail).collect();
        (!tails.is_empty()).then(|| Self { tail: Carry::stack(&tails) })
    }
}

impl Recurrent for Conv1dCausal {
    type State = Conv1dCausalState;

    fn input(&self) -> Input {
        let bias = self.bias.val();
        Input::of(bias.dims()[0], &bias)
    }

    fn fresh(&self, sequences: usize) -> Conv1dCausalState {
        Conv1dCausalState { tail: Carry::fresh(sequences) }
    }

    fn run(
        &self,
        x: Tensor<3>,
        sequences: &Sequences,
        state: &Conv1dCausalState,
    ) -> Result<(Tensor<3>, Conv1dCausalState), Error> {
        let [batch, len, width] = x.dims();
        let weight = self.weight.val();
        let [kernel, _] = weight.dims();
        let before = kernel - 1;
        if before == 0 {
            return Ok((self.slide(x, len), state.clone()));
        }
        let count = state.sequences();
        let tail = state.tail.values().unwrap_or_else(|| {
            Tensor::zeros([count, before, width], (&x.device().without_autodiff(), x.dtype()))
        });
        match sequences {
            Sequences::Rows => {
                let extended = Tensor::cat(vec![tail, x], 1);
                let tail = Carry::of(extended.clone().narrow(1, len, before));
                Ok((self.slide(extended, len), Conv1dCausalState { tail }))
            }
            Sequences::Packed(_) => {
                let rows = Packed::new(&sequences.ranges(batch, len), before);
                let select = |from: &Tensor<3>, rows: Vec<i64>| {
                    let count = rows.len();
                    let rows = Tensor::<1, Int>::from_data(
                        TensorData::new(rows, [count]),
                        &from.device().without_autodiff(),
                    );
                    from.clone().select(1, rows)
                };
                // All tails, then x; from there each sequence behind its own tail.
                let all = Tensor::cat(vec![tail.reshape([1, count * before, width]), x], 1);
                let extended = select(&all, rows.extended);
                let tail = select(&extended, rows.tails).reshape([count, before, width]);
                let windows = len + count * before - before;
                let y = select(&self.slide(extended, windows), rows.windows);
                Ok((y, Conv1dCausalState { tail: Carry::of(tail) }))
            }
        }
    }
}

impl Conv1dCausal {
    /// The first `windows` outputs over (B, windows + K − 1, D).
    fn slide(&self, extended: Tensor<3>, windows: usize) -> Tensor<3> {
        let weight = self.weight.val();
        let [kernel, width] = weight.dims();
        let mut y = self.bias.val().reshape([1, 1, width]);
        for k in 0..kernel {
            let tap = weight.clone().narrow(0, k, 1).reshape([1, 1, width]);
            y = extended.clone().narrow(1, k, windows) * tap + y;
        }
        y
    }
}

/// Row numbers that put K − 1 rows before each packed sequence.
struct Packed {
    /// Each sequence behind its tail, as rows of all tails followed by x.
    extended: Vec<i64>,
    /// The last K − 1 rows of each, in `extended`.
    tails: Vec<i64>,
    /// For each row of x the window that ends there, counted by its first row in `extended`.
    windows: Vec<i64>,
}

impl Packed {
    fn new(ranges: &[std::ops::Range<usize>], before: usize) -> Self {
        let mut rows = Self { extended: Vec::new(), tails: Vec::new(), windows: Vec::new() };
        let tails = ranges.len() * before;
        for (i, range) in ranges.iter().enumerate() {
            let first = rows.extended.len();
            rows.windows.extend((0..range.len()).map(|t| (first + t) as i64));
            rows.extended.extend((0..before).map(|k| (i * before + k) as i64));
            rows.extended.extend(range.clone().map(|row| (tails + row) as i64));
            let end = rows.extended.len();
            rows.tails.extend((end - before..end).map(|row| row as i64));
        }
        rows
    }
}
