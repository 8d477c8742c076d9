//! What every layer here has in common: a state of fixed size, and three ways to run that agree.

use burn::tensor::{DType, Device, Tensor};

use crate::{Error, Sequences};

/// What a layer carries along time for N sequences. Cloning is cheap: tensors are shared.
pub trait State: Clone + Send + std::fmt::Debug {
    /// N.
    fn sequences(&self) -> usize;

    /// The state of one sequence; `index` is below N.
    #[must_use]
    fn sequence(&self, index: usize) -> Self;

    /// The states of several batches as one, in the order given; `None` for no batch at all.
    fn stack(states: &[&Self]) -> Option<Self>;
}

/// What a layer's input has to be.
#[derive(Clone, Debug)]
pub struct Input {
    /// D.
    pub width: usize,
    /// The device of the layer's parameters.
    pub device: Device,
    /// The element type of the layer's parameters.
    pub dtype: DType,
}

impl Input {
    pub(crate) fn of<const R: usize>(width: usize, parameter: &Tensor<R>) -> Self {
        Self { width, device: parameter.device().without_autodiff(), dtype: parameter.dtype() }
    }
}

/// A layer along time, (B, L, D) in and out. Running a sequence whole, split anywhere or step by step gives the same
/// result within the error contract.
pub trait Recurrent {
    /// What it carries along time.
    type State: State;

    /// What x has to be.
    fn input(&self) -> Input;

    /// The state of N sequences before their first step.
    fn fresh(&self, sequences: usize) -> Self::State;

    /// One call over checked input: x (B, L, D) fits [`Recurrent::input`], has elements, all of its rows belong to
    /// `sequences`, and the state is theirs. Returns y (B, L, D) and the state after the last step of each.
    ///
    /// # Errors
    ///
    /// [`Error`] when the scan cannot be served.
    fn run(
        &self,
        x: Tensor<3>,
        sequences: &Sequences,
        state: &Self::State,
    ) -> Result<(Tensor<3>, Self::State), Error>;

    /// y (B, L, D) for whole sequences x (B, L, D), one a row.
    ///
    /// # Errors
    ///
    /// [`Error`] for an x of another width, type or device than the layer's.
    fn forward(&self, x: Tensor<3>) -> Result<Tensor<3>, Error> {
        self.forward_sequences(x, &Sequences::Rows)
    }

    /// y (B, L, D) for whole sequences that lie in x (B, L, D) as `sequences` says.
    ///
    /// # Errors
    ///
    /// As [`Recurrent::forward`], and [`Error::Problem`] for boundaries that make no sense.
    fn forward_sequences(&self, x: Tensor<3>, sequences: &Sequences) -> Result<Tensor<3>, Error> {
        let count = sequences.count(x.dims()[0]);
        self.prefill(x, sequences, &mut self.fresh(count))
    }

    /// y (B, L, D) for the next steps of sequences that have come as far as `state`, which is moved on. Under autodiff
    /// gradients flow through the state into the calls before.
    ///
    /// # Errors
    ///
    /// As [`Recurrent::forward_sequences`], and [`Error::Sequences`] for the state of another number of sequences.
    /// The state is as it was then.
    fn prefill(
        &self,
        x: Tensor<3>,
        sequences: &Sequences,
        state: &mut Self::State,
    ) -> Result<Tensor<3>, Error> {
        let [batch, len, width] = x.dims();
        self.input().check(&x)?;
        let used = sequences.used([batch, len, width])?;
        let (expected, got) = (sequences.count(batch), state.sequences());
        if expected != got {
            return Err(Error::Sequences { expected, got });
        }
        if batch * used * width == 0 {
            return Ok(x.zeros_like());
        }
        if used == len {
            let (y, next) = self.run(x, sequences, state)?;
            *state = next;
            return Ok(y);
        }
        let slack = x.clone().narrow(1, used, len - used).zeros_like();
        let (y, next) = self.run(x.narrow(1, 0, used), sequences, state)?;
        *state = next;
        Ok(Tensor::cat(vec![y, slack], 1))
    }

    /// y (N, D) for the next step x (N, D) of N sequences, whose state is moved on.
    ///
    /// # Errors
    ///
    /// As [`Recurrent::prefill`].
    fn step(&self, x: Tensor<2>, state: &mut Self::State) -> Result<Tensor<2>, Error> {
        let [sequences, width] = x.dims();
        let y = self.prefill(x.reshape([sequences, 1, width]), &Sequences::Rows, state)?;
        Ok(y.reshape([sequences, width]))
    }
}

impl Input {
    pub(crate) fn check(&self, x: &Tensor<3>) -> Result<(), Error> {
        let [batch, len, width] = x.dims();
        let tensor = "x";
        if width != self.width {
            let (expected, got) = (vec![batch, len, self.width], vec![batch, len, width]);
            return Err(Error::Shape { tensor, expected, got });
        }
        if x.dtype() != self.dtype {
            return Err(Error::Type { tensor, expected: self.dtype, got: x.dtype() });
        }
        let device = x.device().without_autodiff();
        if device != self.device {
            let (expected, got) = (format!("{:?}", self.device), format!("{device:?}"));
            return Err(Error::Device { tensor, expected, got });
        }
        Ok(())
    }
}
