//! Tasks that need a memory: every label comes after what it is about, so that no connection past the recurrence helps.

use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};

/// A sequence and the labels of its last steps.
#[derive(Clone, Debug)]
pub(crate) struct Example {
    pub(crate) tokens: Vec<i64>,
    pub(crate) labels: Vec<i64>,
}

/// Where the supply that no training sees begins.
pub(crate) const UNSEEN: u64 = 1 << 40;

/// An endless supply of examples, the same for the same index.
pub(crate) trait Task: Send + Sync + 'static {
    fn example(&self, index: u64) -> Example;
    /// Kinds of tokens.
    fn vocabulary(&self) -> usize;
    /// Kinds of labels.
    fn classes(&self) -> usize;
}

/// Some symbols, nothing for a while, then a question mark for each: say them again in order.
///
/// All question marks are alike, so each answer has to come from the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copying {
    pub(crate) symbols: usize,
    pub(crate) length: usize,
    pub(crate) delay: usize,
    pub(crate) seed: u64,
}

impl Task for Copying {
    fn example(&self, index: u64) -> Example {
        let mut rng = StdRng::seed_from_u64(self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let labels: Vec<i64> = (0..self.length).map(|_| rng.random_range(0..self.symbols) as i64).collect();
        let mut tokens = labels.clone();
        tokens.resize(self.length + self.delay, self.symbols as i64);
        tokens.resize(2 * self.length + self.delay, self.symbols as i64 + 1);
        Example { tokens, labels }
    }

    fn vocabulary(&self) -> usize {
        self.symbols + 2
    }

    fn classes(&self) -> usize {
        self.symbols
    }
}

/// Symbols at random places in a long stretch of noise, then question marks: say the symbols again in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SelectiveCopying {
    pub(crate) symbols: usize,
    pub(crate) length: usize,
    /// L, the question marks included.
    pub(crate) steps: usize,
    pub(crate) seed: u64,
}

impl Task for SelectiveCopying {
    fn example(&self, index: u64) -> Example {
        let mut rng = StdRng::seed_from_u64(self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let labels: Vec<i64> = (0..self.length).map(|_| rng.random_range(0..self.symbols) as i64).collect();
        let noise = self.steps - self.length;
        let mut tokens = vec![self.symbols as i64; noise];
        let mut places = sample(&mut rng, noise, self.length).into_vec();
        places.sort_unstable();
        for (place, label) in places.into_iter().zip(&labels) {
            tokens[place] = *label;
        }
        tokens.resize(self.steps, self.symbols as i64 + 1);
        Example { tokens, labels }
    }

    fn vocabulary(&self) -> usize {
        self.symbols + 2
    }

    fn classes(&self) -> usize {
        self.symbols
    }
}
