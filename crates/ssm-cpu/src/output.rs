//! Where a kernel writes: the output itself, or a stage in the first-level cache from which whole lines go past the
//! caches.

use std::ops::Range;

use crate::grid::{Chain, Tensor};
use crate::kernel::{Leave, Level, Lines, Rows};

/// Some steps of one chain of an output.
#[derive(Debug)]
pub(crate) struct Output<T> {
    tensor: Tensor<T>,
    stage: Option<*mut T>,
    lowest_row: usize,
    channel: usize,
    width: usize,
    rows: usize,
    direction: isize,
}

impl<T> Output<T> {
    /// `stage`, where given, has room for the steps.
    pub(crate) fn new(
        tensor: Tensor<T>,
        chain: &Chain,
        steps: &Range<usize>,
        stage: Option<*mut u8>,
    ) -> Self {
        Self {
            tensor,
            stage: stage.map(<*mut u8>::cast),
            lowest_row: chain.sequence.lowest_row(steps),
            channel: chain.channel,
            width: chain.width,
            rows: steps.len(),
            direction: chain.sequence.direction(),
        }
    }

    /// The rows upwards in time.
    pub(crate) fn up(&self) -> Rows<T> {
        self.rows(self.direction)
    }

    /// The rows downwards in time.
    pub(crate) fn down(&self) -> Rows<T> {
        self.rows(-self.direction)
    }

    fn rows(&self, direction: isize) -> Rows<T> {
        if !self.tensor.wanted() {
            return Rows::NONE;
        }
        let (base, pitch) = match self.stage {
            Some(stage) => (stage, self.width),
            None => (self.tensor.at(self.lowest_row, self.channel), self.tensor.pitch()),
        };
        let first = if direction > 0 { 0 } else { self.rows - 1 };
        Rows { first: base.wrapping_add(first * pitch), stride: direction * pitch as isize }
    }

    /// What is staged, ready to leave: rows that lie back to back in one piece, so that a line cut by a row's end is written
    /// once. Rows of a narrower tile leave at once.
    ///
    /// # Safety
    ///
    /// The kernel has written every row, the output is good for them, and the stage stays as it is until the lines are
    /// drained.
    pub(crate) unsafe fn leave(&self, level: Level) -> Lines {
        let Some(stage) = self.stage.filter(|_| self.tensor.wanted()) else { return Lines::NONE };
        let to = |row| self.tensor.at(self.lowest_row + row, self.channel).cast();
        let row_bytes = self.width * size_of::<T>();
        // SAFETY: the stage holds rows of the tile's width back to back; the output's rows are the chain's own.
        unsafe {
            if self.width == self.tensor.pitch() {
                return Lines::new(stage.cast(), to(0), self.rows * row_bytes);
            }
            for row in 0..self.rows {
                let lines = Lines::new(stage.wrapping_add(row * self.width).cast(), to(row), row_bytes);
                level.run(&Leave([lines, Lines::NONE, Lines::NONE, Lines::NONE]));
            }
        }
        Lines::NONE
    }
}
