//! How sequences lie in a (B, L, D) tensor, and the carries that go from one call to the next.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use ssm_core::GatedScan;

use crate::Error;

/// How sequences lie in a (B, L, D) tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sequences {
    /// One a row: N = B.
    #[default]
    Rows,
    /// Packed one after the other into the one row of the batch: rows `cu[i]..cu[i + 1]` are sequence i. Rows past the
    /// last are slack: 0 in outputs and gradients, whatever they hold.
    Packed(Arc<[usize]>),
}

impl Sequences {
    /// Packed sequences of these lengths, one after the other.
    pub fn of_lengths(lengths: &[usize]) -> Self {
        let mut end = 0;
        let ends = lengths.iter().map(|len| {
            end += len;
            end
        });
        Self::Packed([0].into_iter().chain(ends).collect())
    }

    /// N, the number of sequences in a tensor of that many rows.
    pub fn count(&self, batch: usize) -> usize {
        match self {
            Self::Rows => batch,
            Self::Packed(cu) => cu.len().saturating_sub(1),
        }
    }

    /// The steps of a row that belong to a sequence.
    ///
    /// # Errors
    ///
    /// [`Error::Problem`] for boundaries that make no sense in such a tensor.
    pub(crate) fn used(&self, [batch, len, width]: [usize; 3]) -> Result<usize, Error> {
        match self {
            Self::Rows => Ok(len),
            Self::Packed(cu) => {
                GatedScan::builder(batch, len, width).cu_seqlens(cu).build()?;
                Ok(cu.last().copied().unwrap_or(0))
            }
        }
    }

    pub(crate) fn cu_seqlens(&self) -> Option<Arc<[usize]>> {
        match self {
            Self::Rows => None,
            Self::Packed(cu) => Some(cu.clone()),
        }
    }

    /// Where each sequence lies in the rows of a (B·L, D) tensor.
    pub(crate) fn ranges(&self, batch: usize, len: usize) -> Vec<Range<usize>> {
        match self {
            Self::Rows => (0..batch).map(|row| row * len..(row + 1) * len).collect(),
            Self::Packed(cu) => cu.windows(2).map(|pair| pair[0]..pair[1]).collect(),
        }
    }
}

/// What sequences carry from one call to the next: one row of a tensor each, or nothing yet, which stands for zeros.
#[derive(Clone, Debug)]
pub(crate) struct Carry<const R: usize> {
    sequences: usize,
    values: Option<Tensor<R>>,
}

impl<const R: usize> Carry<R> {
    pub(crate) fn fresh(sequences: usize) -> Self {
        Self { sequences, values: None }
    }

    pub(crate) fn of(values: Tensor<R>) -> Self {
        Self { sequences: values.shape()[0], values: Some(values) }
    }

    pub(crate) fn sequences(&self) -> usize {
        self.sequences
    }

    pub(crate) fn values(&self) -> Option<Tensor<R>> {
        self.values.clone()
    }

    pub(crate) fn sequence(&self, index: usize) -> Self {
        Self { sequences: 1, values: self.values.clone().map(|v| v.narrow(0, index, 1)) }
    }

    pub(crate) fn stack(carries: &[&Self]) -> Self {
        let sequences = carries.iter().map(|carry| carry.sequences).sum();
        let Some(first) = carries.iter().find_map(|carry| carry.values.as_ref()) else {
            return Self::fresh(sequences);
        };
        let rows = |carry: &&Self| {
            carry.values.clone().unwrap_or_else(|| {
                let mut shape = first.dims();
                shape[0] = carry.sequences;
                Tensor::zeros(shape, (&first.device(), first.dtype()))
            })
        };
        // burn takes no empty tensors in a concatenation.
        let parts: Vec<_> = carries.iter().filter(|carry| carry.sequences > 0).map(rows).collect();
        if parts.is_empty() { Self::fresh(sequences) } else { Self::of(Tensor::cat(parts, 0)) }
    }
}
