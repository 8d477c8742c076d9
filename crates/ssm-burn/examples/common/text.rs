//! A text as a task: the next character, given those before it.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tasks::{Example, Task, UNSEEN};

/// Windows of a text. The last tenth of it is kept for indices from [`UNSEEN`] on.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) alphabet: Vec<char>,
    tokens: Vec<i64>,
    window: usize,
}

impl Text {
    /// None when the text is too short for windows of this many characters.
    pub(crate) fn new(text: &str, window: usize) -> Option<Self> {
        let mut alphabet: Vec<char> = text.chars().collect();
        alphabet.sort_unstable();
        alphabet.dedup();
        let token = |c| alphabet.binary_search(&c).ok().map(|i| i as i64);
        let tokens: Vec<i64> = text.chars().filter_map(token).collect();
        (tokens.len() / 10 > window + 1).then_some(Self { tokens, alphabet, window })
    }

    /// The tokens of those characters that the text knows.
    pub(crate) fn encode(&self, text: &str) -> Vec<i64> {
        text.chars().filter_map(|c| self.alphabet.binary_search(&c).ok()).map(|i| i as i64).collect()
    }

    /// Nats a character of a guess that knows only the character before: what memory has to beat.
    pub(crate) fn pair_entropy(&self) -> f64 {
        let n = self.alphabet.len();
        let (train, unseen) = self.tokens.split_at(self.tokens.len() / 10 * 9);
        // Every pair counts once more than it was seen, so that none is impossible.
        let mut pairs = vec![1.0; n * n];
        train.windows(2).for_each(|p| pairs[p[0] as usize * n + p[1] as usize] += 1.0);
        let row = |first: usize| pairs[first * n..(first + 1) * n].iter().sum::<f64>();
        let nats = |p: &[i64]| -(pairs[p[0] as usize * n + p[1] as usize] / row(p[0] as usize)).ln();
        unseen.windows(2).map(nats).sum::<f64>() / (unseen.len() - 1) as f64
    }
}

impl Task for Text {
    fn example(&self, index: u64) -> Example {
        let mut rng = StdRng::seed_from_u64(index);
        let split = self.tokens.len() / 10 * 9;
        let part = if index < UNSEEN { &self.tokens[..split] } else { &self.tokens[split..] };
        let start = rng.random_range(0..part.len() - self.window);
        let window = &part[start..=start + self.window];
        Example { tokens: window[..self.window].to_vec(), labels: window[1..].to_vec() }
    }

    fn vocabulary(&self) -> usize {
        self.alphabet.len()
    }

    fn classes(&self) -> usize {
        self.alphabet.len()
    }
}
