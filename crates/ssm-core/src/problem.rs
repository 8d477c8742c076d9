//! The problem: shape, element types and options of one gated scan.
//!
//! A [`GatedScan`] that exists is valid. Nothing below it checks it again.

use std::sync::Arc;

use crate::{DType, ProblemError};

/// What forward leaves behind for backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Checkpoint {
    /// Nothing: backward runs the forward carry pass again.
    Nothing,
    /// One accumulator state a chunk of time: backward rebuilds h inside each chunk.
    #[default]
    ChunkStates,
    /// All of h, in the accumulator type.
    FullH,
}

impl Checkpoint {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::ChunkStates, Self::FullH];

    /// The name in reports and test names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::ChunkStates => "chunk-states",
            Self::FullH => "full-h",
        }
    }
}

impl std::fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// How a plan walks along time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The plain loop over time, exact for gates whose products leave the accumulator's range.
    Sequential,
    /// Rows in parallel, each marching along the chunk grid.
    March,
    /// Chunks of time in parallel, the carry passed along in order. The same bits as [`Algorithm::March`].
    Chunked,
}

impl Algorithm {
    /// The name in reports and test names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::March => "march",
            Self::Chunked => "chunked",
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// How much is worked on at once, to bound the workspace. Never changes a bit of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemoryTile {
    /// Sequences at once; all when `None`.
    pub batch: Option<usize>,
    /// Channels at once; all when `None`.
    pub channels: Option<usize>,
}

/// A gated scan over (B, L, D) tensors, D contiguous:
/// `h[t] = a[t]·h[t-1] + b[t]·x[t]`, `y[t] = c[t]·h[t]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatedScan {
    spec: GatedScanBuilder,
}

/// Collects the options of a [`GatedScan`]; [`GatedScanBuilder::build`] checks them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct GatedScanBuilder {
    batch: usize,
    len: usize,
    channels: usize,
    dtype: DType,
    out_dtype: Option<DType>,
    b: bool,
    c: bool,
    initial_state: bool,
    final_state: bool,
    reverse: bool,
    cu_seqlens: Option<Arc<[usize]>>,
    checkpoint: Checkpoint,
    tile: MemoryTile,
}

impl GatedScanBuilder {
    /// The storage type of x, a, b, c and the gradients; f32 unless said otherwise.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// The type of y and dy, where it differs from the inputs'.
    pub fn out_dtype(mut self, dtype: DType) -> Self {
        self.out_dtype = Some(dtype);
        self
    }

    /// Whether there is a b (B, L, D); absent means b = 1. Present unless said otherwise.
    pub fn b(mut self, present: bool) -> Self {
        self.b = present;
        self
    }

    /// Whether there is a c (B, L, D); absent means y = h. Present unless said otherwise.
    pub fn c(mut self, present: bool) -> Self {
        self.c = present;
        self
    }

    /// Whether there is an h0 (N, D) in the accumulator type; absent means 0.
    pub fn initial_state(mut self, present: bool) -> Self {
        self.initial_state = present;
        self
    }

    /// Whether hT (N, D) is written, in the accumulator type.
    pub fn final_state(mut self, wanted: bool) -> Self {
        self.final_state = wanted;
        self
    }

    /// Whether time runs from the last step to the first.
    pub fn reverse(mut self, reverse: bool) -> Self {
        self.reverse = reverse;
        self
    }

    /// Packed sequences: rows `cu[i]..cu[i + 1]` of the one batch row are sequence i.
    pub fn cu_seqlens(mut self, cu: &[usize]) -> Self {
        self.cu_seqlens = Some(cu.into());
        self
    }

    /// What forward leaves behind for backward.
    pub fn checkpoint(mut self, policy: Checkpoint) -> Self {
        self.checkpoint = policy;
        self
    }

    /// How much is worked on at once.
    pub fn tile(mut self, tile: MemoryTile) -> Self {
        self.tile = tile;
        self
    }

    /// The problem.
    ///
    /// # Errors
    ///
    /// [`ProblemError`] for a tensor larger than the address space, mixed accumulators, an empty tile, and
    /// cu_seqlens that do not begin with 0, decrease, end past L or come with B ≠ 1.
    pub fn build(self) -> Result<GatedScan, ProblemError> {
        let out = self.out_dtype.unwrap_or(self.dtype);
        if out.accumulator() != self.dtype.accumulator() {
            return Err(ProblemError::MixedAccumulators { storage: self.dtype, out });
        }
        if self.tile.batch == Some(0) || self.tile.channels == Some(0) {
            return Err(ProblemError::EmptyTile { batch: self.tile.batch, channels: self.tile.channels });
        }
        if let Some(cu) = &self.cu_seqlens {
            check_packed(self.batch, self.len, cu)?;
        }
        // The widest full-size tensor is h in the accumulator type; no allocation may pass isize::MAX bytes.
        let acc = self.dtype.accumulator();
        let sequences = self.cu_seqlens.as_ref().map_or(self.batch, |cu| cu.len() - 1);
        let fits = |rows: Option<usize>| {
            rows.and_then(|rows| rows.checked_mul(self.channels))
                .and_then(|elements| elements.checked_mul(acc.size() as usize))
                .is_some_and(|bytes| isize::try_from(bytes).is_ok())
        };
        if !fits(self.batch.checked_mul(self.len)) || !fits(Some(sequences)) {
            return Err(ProblemError::TooLarge {
                batch: self.batch,
                len: self.len,
                channels: self.channels,
                dtype: acc,
            });
        }
        Ok(GatedScan { spec: self })
    }
}

fn check_packed(batch: usize, len: usize, cu: &[usize]) -> Result<(), ProblemError> {
    if batch != 1 {
        return Err(ProblemError::PackedBatch { batch });
    }
    if cu.first() != Some(&0) {
        return Err(ProblemError::PackedStart { got: cu.first().copied() });
    }
    for (i, pair) in cu.windows(2).enumerate() {
        if pair[1] < pair[0] {
            return Err(ProblemError::PackedOrder { index: i + 1, previous: pair[0], got: pair[1] });
        }
    }
    match cu.last() {
        Some(&got) if got > len => Err(ProblemError::PackedEnd { len, got }),
        _ => Ok(()),
    }
}

impl GatedScan {
    /// Starts a problem of shape (B, L, D), f32, with b and c, and no other option.
    pub fn builder(batch: usize, len: usize, channels: usize) -> GatedScanBuilder {
        GatedScanBuilder {
            batch,
            len,
            channels,
            dtype: DType::F32,
            out_dtype: None,
            b: true,
            c: true,
            initial_state: false,
            final_state: false,
            reverse: false,
            cu_seqlens: None,
            checkpoint: Checkpoint::default(),
            tile: MemoryTile::default(),
        }
    }

    /// The options again, to build a problem that differs in some.
    pub fn to_builder(&self) -> GatedScanBuilder {
        self.spec.clone()
    }

    /// B.
    pub fn batch(&self) -> usize {
        self.spec.batch
    }

    /// L.
    #[allow(clippy::len_without_is_empty, reason = "the length of time, not of a collection")]
    pub fn len(&self) -> usize {
        self.spec.len
    }

    /// D.
    pub fn channels(&self) -> usize {
        self.spec.channels
    }

    /// B·L·D.
    pub fn elements(&self) -> u64 {
        (self.spec.batch * self.spec.len) as u64 * self.spec.channels as u64
    }

    /// N·D: the elements of h0 and hT.
    pub fn state_elements(&self) -> u64 {
        self.sequences() as u64 * self.spec.channels as u64
    }

    /// N: the number of sequences, B when not packed.
    pub fn sequences(&self) -> usize {
        self.spec.cu_seqlens.as_ref().map_or(self.spec.batch, |cu| cu.len() - 1)
    }

    /// The storage type of the inputs and their gradients.
    pub fn dtype(&self) -> DType {
        self.spec.dtype
    }

    /// The type of y and dy.
    pub fn out_dtype(&self) -> DType {
        self.spec.out_dtype.unwrap_or(self.spec.dtype)
    }

    /// The type of every state.
    pub fn accumulator(&self) -> DType {
        self.spec.dtype.accumulator()
    }

    /// Whether there is a b.
    pub fn has_b(&self) -> bool {
        self.spec.b
    }

    /// Whether there is a c.
    pub fn has_c(&self) -> bool {
        self.spec.c
    }

    /// Whether there is an h0.
    pub fn has_initial_state(&self) -> bool {
        self.spec.initial_state
    }

    /// Whether hT is written.
    pub fn wants_final_state(&self) -> bool {
        self.spec.final_state
    }

    /// Whether time runs backwards.
    pub fn is_reverse(&self) -> bool {
        self.spec.reverse
    }

    /// The boundaries of packed sequences.
    pub fn cu_seqlens(&self) -> Option<&[usize]> {
        self.spec.cu_seqlens.as_deref()
    }

    /// What forward leaves behind.
    pub fn checkpoint(&self) -> Checkpoint {
        self.spec.checkpoint
    }

    /// How much is worked on at once.
    pub fn tile(&self) -> MemoryTile {
        self.spec.tile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_mistakes_are_named() {
        let build = |b, l, cu: &[usize]| GatedScan::builder(b, l, 2).cu_seqlens(cu).build().unwrap_err();
        assert_eq!(build(2, 4, &[0, 4]), ProblemError::PackedBatch { batch: 2 });
        assert_eq!(build(1, 4, &[]), ProblemError::PackedStart { got: None });
        assert_eq!(build(1, 4, &[1, 4]), ProblemError::PackedStart { got: Some(1) });
        assert_eq!(build(1, 4, &[0, 3, 2]), ProblemError::PackedOrder { index: 2, previous: 3, got: 2 });
        assert_eq!(build(1, 4, &[0, 5]), ProblemError::PackedEnd { len: 4, got: 5 });
    }

    #[test]
    fn a_tensor_past_the_address_space_is_an_error() {
        for (b, l, d) in [(usize::MAX, 2, 1), (1, usize::MAX, usize::MAX), (1, 1, usize::MAX)] {
            assert!(matches!(GatedScan::builder(b, l, d).build(), Err(ProblemError::TooLarge { .. })));
        }
        assert!(GatedScan::builder(0, usize::MAX, 0).build().is_ok(), "nothing is not too large");
    }

    #[test]
    fn f64_goes_with_f64_only() {
        let mixed = GatedScan::builder(1, 1, 1).dtype(DType::F64).out_dtype(DType::F32).build();
        assert_eq!(
            mixed.unwrap_err(),
            ProblemError::MixedAccumulators { storage: DType::F64, out: DType::F32 }
        );
        assert!(GatedScan::builder(1, 1, 1).dtype(DType::F16).out_dtype(DType::F32).build().is_ok());
    }
}
