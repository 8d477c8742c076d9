//! Where the work lies: sequences, the chunk grid along time, channel tiles, and the rows behind each step.

use std::ops::Range;

use ssm_core::GatedScan;

use crate::kernel::{LANES, Rows};

/// Steps a chunk, for every length and type: what fixes the bits. A power of two that keeps the saved states at 1/64 of a
/// tensor, and a chunk of every operand inside the second-level cache.
pub(crate) const CHUNK: usize = 64;

/// The sequences of a problem and their chunks.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    sequences: usize,
    len: usize,
    packed: Option<Packed>,
    reverse: bool,
    /// B·L.
    pub(crate) rows: usize,
    pub(crate) channels: usize,
}

#[derive(Clone, Debug)]
struct Packed {
    cu: Vec<usize>,
    /// Chunks in the sequences before each one, and in all at the end.
    first_chunk: Vec<usize>,
}

/// One sequence: a run of rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    pub(crate) index: usize,
    first_row: usize,
    pub(crate) len: usize,
    pub(crate) first_chunk: usize,
    reverse: bool,
}

/// What one worker carries a state along: a channel tile of one sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) index: usize,
    pub(crate) sequence: Sequence,
    /// The first channel.
    pub(crate) channel: usize,
    pub(crate) width: usize,
}

/// Sequences and channels that are worked on at once, and the tile that cuts the channels.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    pub(crate) sequences: Range<usize>,
    pub(crate) channels: Range<usize>,
    tile: usize,
}

impl Grid {
    pub(crate) fn new(problem: &GatedScan) -> Self {
        let packed = problem.cu_seqlens().map(|cu| {
            let chunks = cu.windows(2).map(|pair| (pair[1] - pair[0]).div_ceil(CHUNK));
            let first_chunk = std::iter::once(0).chain(chunks.scan(0, |sum, chunks| {
                *sum += chunks;
                Some(*sum)
            }));
            Packed { cu: cu.to_vec(), first_chunk: first_chunk.collect() }
        });
        Self {
            sequences: problem.sequences(),
            len: problem.len(),
            packed,
            reverse: problem.is_reverse(),
            rows: problem.batch() * problem.len(),
            channels: problem.channels(),
        }
    }

    pub(crate) fn sequence(&self, index: usize) -> Sequence {
        let (first_row, len, first_chunk) = match &self.packed {
            Some(p) => (p.cu[index], p.cu[index + 1] - p.cu[index], p.first_chunk[index]),
            None => (index * self.len, self.len, self.first_chunk(index)),
        };
        Sequence { index, first_row, len, first_chunk, reverse: self.reverse }
    }

    /// Chunks in the sequences before this one.
    pub(crate) fn first_chunk(&self, index: usize) -> usize {
        match &self.packed {
            Some(p) => p.first_chunk[index],
            None => index * self.len.div_ceil(CHUNK),
        }
    }

    pub(crate) fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    /// Chunks in all.
    pub(crate) fn chunks(&self) -> usize {
        self.first_chunk(self.sequences)
    }

    /// The longest of some sequences.
    pub(crate) fn longest(&self, sequences: Range<usize>) -> usize {
        match &self.packed {
            Some(p) => sequences.map(|i| p.cu[i + 1] - p.cu[i]).max().unwrap_or(0),
            None if sequences.is_empty() => 0,
            None => self.len,
        }
    }

    /// Rows that belong to no sequence.
    pub(crate) fn slack(&self) -> Range<usize> {
        let end = self.packed.as_ref().and_then(|p| p.cu.last().copied()).unwrap_or(self.rows);
        end..self.rows
    }

    /// Covers the problem with regions of at most so many sequences and channels, cut into tiles of at most `tile`.
    pub(crate) fn regions(
        &self,
        sequences: usize,
        channels: usize,
        tile: usize,
    ) -> impl Iterator<Item = Region> + '_ {
        self.covered(sequences).flat_map(move |sequences| {
            let across = blocks(0..self.channels, channels);
            across.map(move |channels| Region::new(sequences.clone(), channels, tile))
        })
    }

    /// Those of them that lie at channel 0. No other is wider, and there may be far more of the others than a plan can go
    /// through.
    pub(crate) fn widest_regions(
        &self,
        sequences: usize,
        channels: usize,
        tile: usize,
    ) -> impl Iterator<Item = Region> + '_ {
        let across = 0..self.channels.min(channels.max(1));
        self.covered(sequences).map(move |sequences| Region::new(sequences, across.clone(), tile))
    }

    fn covered(&self, sequences: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        // Without channels there is nothing to cover, however many sequences there are to go through.
        let all = if self.channels == 0 { 0 } else { self.sequences };
        blocks(0..all, sequences)
    }

    pub(crate) fn chain(&self, region: &Region, index: usize) -> Chain {
        let tiles = region.tiles();
        let channel = region.channels.start + index % tiles * region.tile;
        Chain {
            index,
            sequence: self.sequence(region.sequences.start + index / tiles),
            channel,
            width: region.tile.min(region.channels.end - channel),
        }
    }
}

fn blocks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size.max(1)).map(move |start| start..start.saturating_add(size).min(end))
}

/// Cuts `channels` into as few tiles of at most `most` as it takes, of even widths that are whole cache lines.
fn even_tile(channels: usize, most: usize) -> usize {
    const LINE: usize = 64;
    let tiles = channels.div_ceil(most.max(1)).max(1);
    let width = channels.div_ceil(tiles);
    if tiles == 1 { width.max(1) } else { width.next_multiple_of(LINE).min(most.max(1)) }
}

impl Region {
    /// Cut into tiles of at most `tile` channels.
    fn new(sequences: Range<usize>, channels: Range<usize>, tile: usize) -> Self {
        Self { tile: even_tile(channels.len(), tile), sequences, channels }
    }

    fn tiles(&self) -> usize {
        self.channels.len().div_ceil(self.tile)
    }

    pub(crate) fn chains(&self) -> usize {
        self.sequences.len() * self.tiles()
    }

    /// The length of a state row in scratch: a vector more than the tile, for the reason the arena has.
    pub(crate) fn padded_width(&self) -> usize {
        self.tile.next_multiple_of(LANES) + LANES
    }
}

impl Sequence {
    pub(crate) fn chunks(&self) -> usize {
        self.len.div_ceil(CHUNK)
    }

    /// The steps of chunk `k`.
    pub(crate) fn steps(&self, k: usize) -> Range<usize> {
        k * CHUNK..((k + 1) * CHUNK).min(self.len)
    }

    /// The row that holds step `t`.
    pub(crate) fn row(&self, t: usize) -> usize {
        if self.reverse { self.first_row + self.len - 1 - t } else { self.first_row + t }
    }

    /// The lowest row of some steps.
    pub(crate) fn lowest_row(&self, steps: &Range<usize>) -> usize {
        if self.reverse { self.row(steps.end - 1) } else { self.row(steps.start) }
    }

    /// How rows follow each other where steps go up.
    pub(crate) fn direction(&self) -> isize {
        if self.reverse { -1 } else { 1 }
    }
}

/// A full-size tensor, or the one row of ones that stands for an absent operand.
#[derive(Debug)]
pub(crate) struct Tensor<T> {
    base: *mut T,
    /// Elements from one row to the next; 0 when one row stands for all.
    pitch: usize,
}

impl<T> Clone for Tensor<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Tensor<T> {}

impl<T> Tensor<T> {
    /// A tensor that nothing is written to.
    pub(crate) const NONE: Self = Self { base: std::ptr::null_mut(), pitch: 0 };

    pub(crate) fn new(base: *mut T, pitch: usize) -> Self {
        Self { base, pitch }
    }

    /// One row that stands for all.
    pub(crate) fn constant(row: *const T) -> Self {
        Self { base: row.cast_mut(), pitch: 0 }
    }

    /// Elements from one row to the next.
    pub(crate) fn pitch(&self) -> usize {
        self.pitch
    }

    /// Writes 0 to some rows.
    ///
    /// # Safety
    ///
    /// The tensor is none, or good for the rows, and all bits zero are a T.
    pub(crate) unsafe fn clear(&self, rows: Range<usize>) {
        if self.wanted() {
            // SAFETY: the caller's contract.
            unsafe { std::ptr::write_bytes(self.at(rows.start, 0), 0, rows.len() * self.pitch) };
        }
    }

    pub(crate) fn wanted(&self) -> bool {
        !self.base.is_null()
    }

    pub(crate) fn at(&self, row: usize, channel: usize) -> *mut T {
        if self.pitch == 0 { self.base } else { self.base.wrapping_add(row * self.pitch + channel) }
    }

    /// The rows of the chain's steps from `t` on, upwards in time.
    pub(crate) fn up(&self, chain: &Chain, t: usize) -> Rows<T> {
        self.rows(chain, t, chain.sequence.direction())
    }

    /// The rows of the chain's steps from `t` on, downwards in time.
    pub(crate) fn down(&self, chain: &Chain, t: usize) -> Rows<T> {
        self.rows(chain, t, -chain.sequence.direction())
    }

    fn rows(&self, chain: &Chain, t: usize, direction: isize) -> Rows<T> {
        if !self.wanted() {
            return Rows::NONE;
        }
        let first = self.at(chain.sequence.row(t), chain.channel);
        Rows { first, stride: direction * self.pitch as isize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_channel_once() {
        for channels in [1, 63, 64, 65, 1000, 2048, 2049, 4095, 10_000] {
            for most in [1, 7, 64, 512, 2048] {
                let tile = even_tile(channels, most);
                assert!(tile >= 1 && tile <= most.max(1), "{channels} {most} {tile}");
                assert!(channels.div_ceil(tile) <= channels.div_ceil(most) + 1);
            }
        }
    }

    #[test]
    fn regions_and_chains_cover_the_problem() {
        let problem = GatedScan::builder(1, 300, 130).cu_seqlens(&[0, 0, 1, 65, 280]).build().unwrap();
        let grid = Grid::new(&problem);
        let mut seen = vec![0; 4 * 130];
        for region in grid.regions(3, 100, 64) {
            for i in 0..region.chains() {
                let chain = grid.chain(&region, i);
                for d in chain.channel..chain.channel + chain.width {
                    seen[chain.sequence.index * 130 + d] += 1;
                }
            }
        }
        assert!(seen.iter().all(|&n| n == 1));
        assert_eq!(grid.chunks(), 1 + 1 + 4);
        assert_eq!(grid.slack(), 280..300);
    }

    #[test]
    fn nothing_is_covered_at_once() {
        let problem = GatedScan::builder(1 << 40, 1, 0).build().unwrap();
        assert_eq!(Grid::new(&problem).regions(1, 1, 64).count(), 0);
        assert_eq!(Grid::new(&problem).widest_regions(1, 1, 64).count(), 0);
    }

    #[test]
    fn the_widest_regions_are_few_however_many_channels_there_are() {
        let problem = GatedScan::builder(1, 9, 1 << 40).cu_seqlens(&[0, 4, 9]).build().unwrap();
        let widest: Vec<_> = Grid::new(&problem).widest_regions(1, 1, 64).collect();
        assert_eq!(widest.len(), 2);
        assert!(widest.iter().all(|region| region.channels == (0..1)));
    }
}
