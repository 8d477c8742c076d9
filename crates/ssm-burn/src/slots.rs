//! Many sequences under way at once, each at its own position.
//!
//! Each slot holds the states of its own sequence: the one after its last token, and as many before it as it may have to
//! take back. A step stacks the states of the slots that it is given and takes them apart again, so slots come, go and
//! wait without a thought for the others. States are of fixed size, and so is a slot.

use std::collections::{HashMap, VecDeque};

use burn::tensor::Tensor;

use crate::{Error, Recurrent, Sequences, State};

/// A sequence of a [`Slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(u64);

/// The states of many sequences of one layer.
#[derive(Clone, Debug)]
pub struct Slots<S> {
    slots: HashMap<SlotId, Slot<S>>,
    next: u64,
    history: usize,
}

#[derive(Clone, Debug)]
struct Slot<S> {
    /// Oldest first, one after each of the last calls; the last is the current one. Never empty.
    states: VecDeque<(usize, S)>,
}

/// A slot that is not there, or has not what was asked of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// A slot that was dropped, or belongs to other [`Slots`].
    #[error("{slot:?} is not here")]
    Unknown {
        /// The slot.
        slot: SlotId,
    },
    /// A slot named twice in one call.
    #[error("{slot:?} is named twice")]
    Twice {
        /// The slot.
        slot: SlotId,
    },
    /// More tokens to take back than the history holds. A prefill is taken back whole or not at all.
    #[error("{slot:?} cannot go back from position {position} to {to:?}")]
    History {
        /// The slot.
        slot: SlotId,
        /// How many tokens it has seen.
        position: usize,
        /// Where it should go; none is before its beginning.
        to: Option<usize>,
    },
    /// Not as many rows or sequences as slots.
    #[error("{slots} slots were named, the input holds {sequences} sequences")]
    Count {
        /// Slots named.
        slots: usize,
        /// Sequences in the input.
        sequences: usize,
    },
    /// The layer cannot be run.
    #[error(transparent)]
    Layer(#[from] Error),
}

impl<S: State> Slots<S> {
    /// No slot yet; each will be able to take back its last `history` calls.
    pub fn new(history: usize) -> Self {
        Self { slots: HashMap::new(), next: 0, history }
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// A sequence before its first step.
    pub fn add<L: Recurrent<State = S>>(&mut self, layer: &L) -> SlotId {
        self.insert(Slot { states: VecDeque::from([(0, layer.fresh(1))]) })
    }

    /// A second sequence that has come as far as this one, and can go back as far.
    ///
    /// # Errors
    ///
    /// [`SlotError::Unknown`].
    pub fn fork(&mut self, slot: SlotId) -> Result<SlotId, SlotError> {
        let copy = self.get(slot)?.clone();
        Ok(self.insert(copy))
    }

    /// Forgets a sequence.
    ///
    /// # Errors
    ///
    /// [`SlotError::Unknown`].
    pub fn remove(&mut self, slot: SlotId) -> Result<(), SlotError> {
        self.slots.remove(&slot).map(|_| ()).ok_or(SlotError::Unknown { slot })
    }

    /// How many tokens the sequence has seen.
    ///
    /// # Errors
    ///
    /// [`SlotError::Unknown`].
    pub fn position(&self, slot: SlotId) -> Result<usize, SlotError> {
        Ok(self.get(slot)?.states.back().map_or(0, |(position, _)| *position))
    }

    /// Takes back the last `tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`SlotError::Unknown`]; [`SlotError::History`] when the history does not hold that position. The slot is as it
    /// was then.
    pub fn roll_back(&mut self, slot: SlotId, tokens: usize) -> Result<(), SlotError> {
        let position = self.position(slot)?;
        let to = position.checked_sub(tokens);
        let entry = self.slots.get_mut(&slot).ok_or(SlotError::Unknown { slot })?;
        match entry.states.iter().rposition(|(at, _)| Some(*at) == to) {
            Some(index) => {
                entry.states.truncate(index + 1);
                Ok(())
            }
            None => Err(SlotError::History { slot, position, to }),
        }
    }

    /// The next step x (n, D) of these n slots, one a row: y (n, D).
    ///
    /// # Errors
    ///
    /// [`SlotError`]; no slot has moved then.
    pub fn step<L: Recurrent<State = S>>(
        &mut self,
        layer: &L,
        slots: &[SlotId],
        x: Tensor<2>,
    ) -> Result<Tensor<2>, SlotError> {
        let [rows, width] = x.dims();
        let y = self.prefill(layer, slots, x.reshape([rows, 1, width]), &Sequences::Rows)?;
        Ok(y.reshape([rows, width]))
    }

    /// The next steps of these slots, which lie in x (B, L, D) as `sequences` says: y (B, L, D).
    ///
    /// # Errors
    ///
    /// [`SlotError`]; no slot has moved then.
    pub fn prefill<L: Recurrent<State = S>>(
        &mut self,
        layer: &L,
        slots: &[SlotId],
        x: Tensor<3>,
        sequences: &Sequences,
    ) -> Result<Tensor<3>, SlotError> {
        let [batch, len, _] = x.dims();
        let count = sequences.count(batch);
        if count != slots.len() {
            return Err(SlotError::Count { slots: slots.len(), sequences: count });
        }
        let mut named = slots.to_vec();
        named.sort_unstable();
        if let Some(pair) = named.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(SlotError::Twice { slot: pair[0] });
        }
        let mut states = Vec::with_capacity(slots.len());
        for &slot in slots {
            states.extend(self.get(slot)?.states.back().map(|(_, state)| state));
        }
        let mut state = S::stack(&states).unwrap_or_else(|| layer.fresh(0));
        let y = layer.prefill(x, sequences, &mut state)?;
        for (i, (slot, range)) in slots.iter().zip(sequences.ranges(batch, len)).enumerate() {
            let Some(slot) = self.slots.get_mut(slot) else { continue };
            let position = slot.states.back().map_or(0, |(position, _)| *position) + range.len();
            slot.states.push_back((position, state.sequence(i)));
            while slot.states.len() > self.history + 1 {
                slot.states.pop_front();
            }
        }
        Ok(y)
    }

    fn insert(&mut self, slot: Slot<S>) -> SlotId {
        let id = SlotId(self.next);
        self.next += 1;
        self.slots.insert(id, slot);
        id
    }

    fn get(&self, slot: SlotId) -> Result<&Slot<S>, SlotError> {
        self.slots.get(&slot).ok_or(SlotError::Unknown { slot })
    }
}
