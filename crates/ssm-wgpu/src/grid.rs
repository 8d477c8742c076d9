//! The grid along time, and how it is cut so that every piece fits the device's bindings.
//!
//! Groups carry the scan: their length depends on L alone, and so do the bits. Chunks, slabs and tiles only say what is
//! in registers, in a dispatch and in the workspace at once.

use std::ops::Range;

use ssm_core::{DType, GatedScan};

use crate::shader::{PLANES, TABLE};

/// Steps a group. Longer for longer sequences, so that the serial fold over groups stays short beside the rest.
pub(crate) const fn group_len(len: usize) -> u64 {
    match len {
        0..=0x4000 => 64,
        0x4001..=0x20000 => 256,
        _ => 1024,
    }
}

/// What the device allows, as far as planning goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceLimits {
    /// Bytes a storage binding, less what aligning its offset down may add.
    pub(crate) binding: u64,
    /// Bytes a buffer.
    pub(crate) buffer: u64,
    /// Storage buffers a stage.
    pub(crate) buffers: u32,
    /// Steps that an invocation holds in registers. Shows in no bit.
    pub(crate) chunk: u32,
}

/// Sequences, steps and channels of a problem.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    pub(crate) sequences: usize,
    pub(crate) channels: u64,
    pub(crate) rows: u64,
    pub(crate) reverse: bool,
    pub(crate) group: u64,
    /// Steps between saved states.
    pub(crate) chunk: u64,
    len: u64,
    /// For packed sequences: first rows, chunks before, groups before; N + 1 of each.
    packed: Option<Vec<[u64; 3]>>,
}

/// A range of channels of a range of sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) seqs: Range<usize>,
    pub(crate) d0: u64,
    pub(crate) width: u64,
}

/// What one dispatch works on: whole sequences, or some steps of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slab {
    pub(crate) seqs: Range<usize>,
    /// Steps in time order of the sequence; `None` for all.
    pub(crate) steps: Option<Range<u64>>,
}

/// How much may be in one dispatch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    pub(crate) rows: u64,
    /// Steps of any one sequence.
    pub(crate) steps: u64,
    pub(crate) sequences: u64,
    pub(crate) chunks: u64,
    pub(crate) groups: u64,
}

/// Rows of `width` elements, `pitch` apart, that fit `bytes`.
pub(crate) const fn rows_that_fit(bytes: u64, size: u64, width: u64, pitch: u64) -> u64 {
    match (bytes / size).checked_sub(width) {
        Some(rest) => rest / pitch + 1,
        None => 0,
    }
}

impl Grid {
    /// The problem must have channels.
    pub(crate) fn new(problem: &GatedScan, limits: &DeviceLimits) -> Self {
        let (channels, group) = (problem.channels() as u64, group_len(problem.len()));
        let fits = rows_that_fit(limits.binding, Self::widest(problem), channels, channels);
        let chunk = u64::from(limits.chunk);
        let chunk = if fits < chunk { 1 } else { chunk };
        let packed = problem.cu_seqlens().map(|cu| {
            let mut at = [0, 0, 0];
            let mut table = vec![at];
            for pair in cu.windows(2) {
                let len = (pair[1] - pair[0]) as u64;
                at = [pair[1] as u64, at[1] + len.div_ceil(chunk), at[2] + len.div_ceil(group)];
                table.push(at);
            }
            table
        });
        Self {
            sequences: problem.sequences(),
            channels,
            rows: problem.batch() as u64 * problem.len() as u64,
            reverse: problem.is_reverse(),
            group,
            chunk,
            len: problem.len() as u64,
            packed,
        }
    }

    /// Bytes an element of the widest full-size operand.
    pub(crate) fn widest(problem: &GatedScan) -> u64 {
        match problem.checkpoint() {
            ssm_core::Checkpoint::FullH => DType::F32.size(),
            _ => problem.dtype().size().max(problem.out_dtype().size()),
        }
    }

    pub(crate) fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    fn before(&self, s: usize) -> [u64; 3] {
        match &self.packed {
            Some(table) => table.get(s).copied().unwrap_or_default(),
            None => {
                [self.len, self.len.div_ceil(self.chunk), self.len.div_ceil(self.group)].map(|v| v * s as u64)
            }
        }
    }

    /// The first row of a sequence; of N, the end of the last.
    pub(crate) fn first_row(&self, s: usize) -> u64 {
        self.before(s)[0]
    }

    pub(crate) fn seq_len(&self, s: usize) -> u64 {
        self.first_row(s + 1) - self.first_row(s)
    }

    /// Chunks in the sequences before this one.
    pub(crate) fn chunks_before(&self, s: usize) -> u64 {
        self.before(s)[1]
    }

    /// Groups in the sequences before this one.
    pub(crate) fn groups_before(&self, s: usize) -> u64 {
        self.before(s)[2]
    }

    /// The steps of a slab that its one sequence has, or the longest of its sequences has.
    pub(crate) fn steps(&self, slab: &Slab) -> Range<u64> {
        slab.steps.clone().unwrap_or(0..u64::from(u32::MAX))
    }

    /// The rows in memory that a slab's steps lie in, one at least, so that there is something to bind.
    pub(crate) fn slab_rows(&self, slab: &Slab) -> Range<u64> {
        let start = self.first_row(slab.seqs.start);
        let rows = match &slab.steps {
            None => start..self.first_row(slab.seqs.end),
            Some(steps) if self.reverse => {
                let end = start + self.seq_len(slab.seqs.start);
                end - steps.end..end - steps.start
            }
            Some(steps) => start + steps.start..start + steps.end,
        };
        if rows.is_empty() {
            let first = rows.start.min(self.rows.saturating_sub(1));
            return first..first + 1;
        }
        rows
    }

    /// The saved states of a slab, one at least.
    pub(crate) fn slab_chunks(&self, slab: &Slab) -> Range<u64> {
        let first = self.chunks_before(slab.seqs.start);
        let chunks = match &slab.steps {
            None => first..self.chunks_before(slab.seqs.end),
            Some(steps) => first + steps.start / self.chunk..first + steps.end.div_ceil(self.chunk),
        };
        if chunks.is_empty() {
            let first = first.min(self.chunks_before(self.sequences).saturating_sub(1));
            return first..first + 1;
        }
        chunks
    }

    /// The groups of a slab, counted over all sequences.
    pub(crate) fn slab_groups(&self, slab: &Slab) -> Range<u64> {
        let first = self.groups_before(slab.seqs.start);
        match &slab.steps {
            None => first..self.groups_before(slab.seqs.end),
            Some(steps) => first + steps.start / self.group..first + steps.end.div_ceil(self.group),
        }
    }

    /// The first of some sequences with more steps than that; their end when there is none.
    fn first_longer(&self, mut seqs: Range<usize>, steps: u64) -> usize {
        let end = seqs.end;
        seqs.find(|s| self.seq_len(*s) > steps).unwrap_or(end)
    }

    /// Cuts sequences into slabs that fit, in time order; a piece of a sequence ends on a multiple of `align`.
    pub(crate) fn slabs(&self, seqs: &Range<usize>, fit: &Fit, align: u64) -> Vec<Slab> {
        let mut slabs = Vec::new();
        let mut first = seqs.start;
        // The first sequence from there on that is longer than one dispatch may walk.
        let mut long = self.first_longer(seqs.clone(), fit.steps);
        while first < seqs.end {
            if long < first {
                long = self.first_longer(first..seqs.end, fit.steps);
            }
            let whole = |end: usize| {
                self.first_row(end) - self.first_row(first) <= fit.rows
                    && (end - first) as u64 <= fit.sequences
                    && self.chunks_before(end) - self.chunks_before(first) <= fit.chunks
                    && self.groups_before(end) - self.groups_before(first) <= fit.groups
            };
            // Everything is additive over sequences, so the longest run that fits is found by bisection.
            let (mut low, mut high) = (first, long);
            while low < high {
                let middle = low + (high - low).div_ceil(2);
                if whole(middle) { low = middle } else { high = middle - 1 }
            }
            if low > first {
                slabs.push(Slab { seqs: first..low, steps: None });
                first = low;
                continue;
            }
            let most = fit
                .rows
                .min(fit.steps)
                .min(fit.chunks.saturating_mul(self.chunk))
                .min(fit.groups.saturating_mul(self.group));
            let (len, most) = (self.seq_len(first), (most / align * align).max(align));
            let mut at = 0;
            while at < len {
                let end = len.min(at + most);
                slabs.push(Slab { seqs: first..first + 1, steps: Some(at..end) });
                at = end;
            }
            first += 1;
        }
        slabs
    }

    /// Tiles of the problem, sequences outermost.
    pub(crate) fn tiles(&self, problem: &GatedScan, limits: &DeviceLimits) -> Vec<Tile> {
        if self.sequences == 0 {
            return Vec::new();
        }
        let batch = problem.tile().batch.unwrap_or(self.sequences).max(1);
        let columns = self.columns(problem, limits);
        let mut tiles = Vec::new();
        for start in (0..self.sequences).step_by(batch) {
            let seqs = start..self.sequences.min(start.saturating_add(batch));
            tiles.extend(columns.iter().map(|&(d0, width)| Tile { seqs: seqs.clone(), d0, width }));
        }
        tiles
    }

    /// Ranges of channels, each the first and how many: whole words of 16-bit elements, and no wider than a binding
    /// holds of a paused march's planes of state.
    pub(crate) fn columns(&self, problem: &GatedScan, limits: &DeviceLimits) -> Vec<(u64, u64)> {
        let narrow = problem.dtype().size() == 2 || problem.out_dtype().size() == 2;
        let unit = if narrow { 2 } else { 1 };
        let most = (limits.binding / (PLANES * DType::F32.size()) / unit).max(1) * unit;
        let asked = problem.tile().channels.map_or(self.channels, |c| c as u64).min(self.channels);
        let width = asked.min(most).next_multiple_of(unit).clamp(1, self.channels.max(1));
        let starts = (0..self.channels.div_ceil(width)).map(|i| i * width);
        starts.map(|d0| (d0, width.min(self.channels - d0))).collect()
    }

    /// The most items that a dispatch can look up: the table's, for packed sequences.
    pub(crate) fn most_items(&self) -> u64 {
        if self.is_packed() { u64::from(TABLE) } else { u64::MAX }
    }
}
