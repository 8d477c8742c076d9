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

/// Values written to named places at random times in a long stretch of noise, each place more than once; then one question a
/// place: say what was written there last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recall {
    pub(crate) places: usize,
    pub(crate) values: usize,
    /// Writes to each place.
    pub(crate) writes: usize,
    /// L, the questions included.
    pub(crate) steps: usize,
    pub(crate) seed: u64,
}

impl Task for Recall {
    fn example(&self, index: u64) -> Example {
        let mut rng = StdRng::seed_from_u64(self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let noise = self.steps - self.places;
        let mut tokens = vec![0; noise];
        let mut labels = vec![0; self.places];
        let mut times = sample(&mut rng, noise, self.places * self.writes).into_vec();
        for (place, times) in times.chunks_mut(self.writes).enumerate() {
            times.sort_unstable();
            for &mut time in times {
                let value = rng.random_range(0..self.values);
                tokens[time] = (1 + self.places + place * self.values + value) as i64;
                labels[place] = value as i64;
            }
        }
        tokens.extend((0..self.places).map(|place| 1 + place as i64));
        Example { tokens, labels }
    }

    fn vocabulary(&self) -> usize {
        1 + self.places * (1 + self.values)
    }

    fn classes(&self) -> usize {
        self.values
    }
}
