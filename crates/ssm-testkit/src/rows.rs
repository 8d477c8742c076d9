//! Which rows of a (B, L, D) tensor are which sequence, and in what order time visits them.

use std::ops::Range;

use ssm_core::GatedScan;

/// One sequence: its number among the N, and its rows among the B·L.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The row of h0 and hT.
    pub index: usize,
    /// The rows of x, a, b, c and y.
    pub rows: Range<usize>,
}

impl Sequence {
    /// The rows in the order of time.
    pub fn in_time(&self, reverse: bool) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator {
        let Range { start, end } = self.rows;
        (0..end - start).map(move |t| if reverse { end - 1 - t } else { start + t })
    }
}

/// Every sequence of the problem, the empty ones too.
pub fn sequences(problem: &GatedScan) -> Vec<Sequence> {
    match problem.cu_seqlens() {
        Some(cu) => {
            cu.windows(2).enumerate().map(|(index, w)| Sequence { index, rows: w[0]..w[1] }).collect()
        }
        None => {
            let len = problem.len();
            (0..problem.batch())
                .map(|index| Sequence { index, rows: index * len..(index + 1) * len })
                .collect()
        }
    }
}

/// The rows after the last packed sequence, which belong to none; every output is 0 there.
pub fn slack(problem: &GatedScan) -> Range<usize> {
    let rows = problem.batch() * problem.len();
    problem.cu_seqlens().and_then(<[usize]>::last).copied().unwrap_or(rows)..rows
}
