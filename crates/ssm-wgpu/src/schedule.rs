//! What a plan launches: dispatches in order, each with its kernel, its windows into the operands and its parameters.
//!
//! Everything here is arithmetic on the problem and the device's limits, done before any operand is known.

use ssm_core::{DType, GatedScan, Operand};

use crate::dispatch::{Dispatch, FOLD, Params, READ_STATE, RESUME, Schedule, WRITE_STATE, Window, wrap};
use crate::grid::{DeviceLimits, Fit, Grid, Slab, Tile, rows_that_fit};
use crate::shader::{AGGREGATE, Body, CARRY, CARRY_BATCH, Key, PLANES, Save, Slot, Slots, TURNS};

/// Rows of states: the caller's (N, D), or some of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateRows {
    pub(crate) operand: Operand,
    /// The element of the first row.
    pub(crate) base: u64,
    pub(crate) pitch: u64,
    /// From a plane to the next; 0 for one plane.
    pub(crate) plane: u64,
}

impl StateRows {
    /// Elements of a row, `width` channels of every plane.
    const fn row(&self, width: u64) -> u64 {
        if self.plane > 0 { self.pitch } else { width }
    }

    /// States that a dispatch reads and writes of so many rows of `width` channels.
    fn touched(&self, rows: u64, width: u64, flags: u32) -> (u64, u64) {
        let has = |flag| u64::from(flags & flag != 0);
        let read = if flags & RESUME != 0 { self.row(width) } else { width * has(READ_STATE) };
        (rows * read, rows * self.row(width) * has(WRITE_STATE))
    }
}

/// Where the states at chunk entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SavedRows {
    /// In the caller's `saved`.
    Caller,
    /// In the workspace, for the tile at hand.
    Work(u64),
}

/// One kernel over one slab.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) body: Body,
    pub(crate) slots: Slots,
    pub(crate) save: Save,
    pub(crate) saved: SavedRows,
    /// Whether the carry passes spans and groups by their maps; the sequential algorithm does not.
    pub(crate) fold: bool,
    pub(crate) paused: bool,
    pub(crate) flags: u32,
    pub(crate) state: Option<StateRows>,
    /// The tile's aggregates in the workspace.
    pub(crate) agg: u64,
}

impl Call {
    /// A kernel that folds and keeps no state.
    pub(crate) const fn new(body: Body, slots: Slots) -> Self {
        Self {
            body,
            slots,
            save: Save::Nothing,
            saved: SavedRows::Caller,
            fold: true,
            paused: false,
            flags: 0,
            state: None,
            agg: 0,
        }
    }
}

/// Collects dispatches for one problem.
pub(crate) struct Builder<'p> {
    pub(crate) problem: &'p GatedScan,
    pub(crate) grid: &'p Grid,
    pub(crate) limits: &'p DeviceLimits,
    pub(crate) out: Schedule,
    work: u64,
}

impl<'p> Builder<'p> {
    pub(crate) fn new(problem: &'p GatedScan, grid: &'p Grid, limits: &'p DeviceLimits) -> Self {
        Self { problem, grid, limits, out: Schedule::default(), work: 0 }
    }

    /// Workspace from here on is free again: a tile's is reused by the next.
    pub(crate) fn release(&mut self) {
        self.work = 0;
    }

    /// Accumulator elements of workspace, on a boundary that a binding may begin at.
    pub(crate) fn borrow(&mut self, elements: u64) -> u64 {
        let at = self.work;
        self.work += elements.next_multiple_of(64);
        self.out.workspace = self.out.workspace.max(self.work);
        at
    }

    /// The caller's (N, D) operand, from the tile's first sequence and channel on.
    pub(crate) fn caller_state(&self, operand: Operand, tile: &Tile) -> StateRows {
        let d = self.grid.channels;
        StateRows { operand, base: tile.seqs.start as u64 * d + tile.d0, pitch: d, plane: 0 }
    }

    /// Rows of state in the workspace, `planes` a sequence.
    pub(crate) fn work_state(&mut self, tile: &Tile, planes: u64) -> StateRows {
        let pitch = planes * tile.width;
        let base = self.borrow(tile.seqs.len() as u64 * pitch);
        StateRows { operand: Operand::Workspace, base, pitch, plane: if planes > 1 { tile.width } else { 0 } }
    }

    /// What one dispatch may hold of a tile.
    pub(crate) fn fit(&self, tile: &Tile, saved: SavedRows) -> Fit {
        let (bytes, d, w) = (self.limits.binding, self.grid.channels, tile.width);
        let pitch = if saved == SavedRows::Caller { d } else { w };
        Fit {
            rows: rows_that_fit(bytes, Grid::widest(self.problem), w, d),
            sequences: rows_that_fit(bytes, 4, w, d)
                .min(bytes / (PLANES * 4) / w)
                .min(self.grid.most_items()),
            chunks: rows_that_fit(bytes, 4, w, pitch),
            groups: u64::MAX,
            steps: u64::from(TURNS) * self.grid.chunk,
        }
    }

    fn push(&mut self, dispatch: Dispatch, touched: impl Fn(Slot) -> (u64, u64)) {
        for window in &dispatch.windows {
            let size = dispatch.key.dtype_of(window.slot).size();
            let (read, written) = touched(window.slot);
            self.out.bytes_read += read * size;
            self.out.bytes_written += written * size;
        }
        self.out.dispatches.push(dispatch);
    }

    /// Where a dispatch's table may begin: uniform offsets come in 256 bytes, 16 entries.
    fn begin_table(&mut self) -> usize {
        let begin = self.out.table.len().next_multiple_of(16);
        self.out.table.resize(begin, [0; 4]);
        begin
    }

    /// Copies the tile's rows of state, or zeroes them.
    pub(crate) fn copy_state(&mut self, tile: &Tile, from: Option<StateRows>, to: StateRows) {
        let widest = to.pitch.max(from.map_or(0, |f| f.pitch));
        let most = rows_that_fit(self.limits.binding, 4, tile.width, widest) as usize;
        for first in tile.seqs.clone().step_by(most.max(1)) {
            let count = most.max(1).min(tile.seqs.end - first) as u64;
            let at = (first - tile.seqs.start) as u64;
            let window = |slot, rows: StateRows| Window {
                slot,
                operand: rows.operand,
                start: rows.base + at * rows.pitch,
                len: (count - 1) * rows.pitch + tile.width,
            };
            let mut windows = vec![window(Slot::State, to)];
            windows.extend(from.map(|f| window(Slot::H0, f)));
            let dispatch = Dispatch {
                key: Key {
                    body: Body::CopyState,
                    slots: Slots::of(&[(Slot::State, true), (Slot::H0, from.is_some())]),
                    ..plain_key()
                },
                windows,
                params: Params {
                    items: wrap(count),
                    state_pitch: wrap(to.pitch),
                    saved_pitch: wrap(from.map_or(0, |f| f.pitch)),
                    ..Params::default()
                },
                channels: tile.width,
                aligned_rows: true,
                table: None,
            };
            let elements = count * tile.width;
            self.push(dispatch, |slot| if slot == Slot::State { (0, elements) } else { (elements, 0) });
        }
    }

    /// Zeroes the slack rows after the last packed sequence in one output.
    pub(crate) fn zero_slack(&mut self, operand: Operand, dtype: DType) {
        let (grid, d) = (self.grid, self.grid.channels);
        if grid.first_row(grid.sequences) == grid.rows {
            return;
        }
        let slot = match operand {
            Operand::Y => Slot::Y,
            Operand::Saved => Slot::Saved,
            _ => Slot::Dx,
        };
        for (d0, width) in grid.columns(self.problem, self.limits) {
            let most = rows_that_fit(self.limits.binding, 4, width, d).max(1);
            let mut row = grid.first_row(grid.sequences);
            while row < grid.rows {
                let count = most.min(grid.rows - row);
                let window = Window { slot, operand, start: row * d + d0, len: (count - 1) * d + width };
                let key = Key {
                    body: Body::Fill,
                    slots: Slots::of(&[(slot, true)]),
                    dtype,
                    out_dtype: dtype,
                    ..plain_key()
                };
                let params = Params { items: wrap(count), step: wrap(d), ..Params::default() };
                let dispatch = Dispatch {
                    key,
                    windows: vec![window],
                    params,
                    channels: width,
                    aligned_rows: d % 2 == 0,
                    table: None,
                };
                self.push(dispatch, |_| (0, count * width));
                row += count;
            }
        }
    }

    /// A forward or backward kernel over a slab: march over sequences, reduce and apply over groups.
    pub(crate) fn scan(&mut self, call: &Call, tile: &Tile, slab: &Slab) {
        let (g, d, w) = (self.grid, self.grid.channels, tile.width);
        let by_group = !matches!(call.body, Body::ForwardMarch | Body::BackwardMarch);
        let (rows, steps) = (g.slab_rows(slab), g.steps(slab));
        let (chunks, groups) = (g.slab_chunks(slab), g.slab_groups(slab));
        let seqs = slab.seqs.len() as u64;
        let items = if by_group { groups.end - groups.start } else { seqs };
        if items == 0 {
            return;
        }
        let saved_pitch = if call.saved == SavedRows::Caller { d } else { w };
        // The first saved state of the window, and where the window begins.
        let saved_start = match call.saved {
            SavedRows::Caller => chunks.start * d + tile.d0,
            SavedRows::Work(at) => at + (chunks.start - g.chunks_before(tile.seqs.start)) * w,
        };
        let first_element = |s: usize| {
            let row = if g.reverse { g.first_row(s + 1).wrapping_sub(1) } else { g.first_row(s) };
            wrap(row.wrapping_sub(rows.start).wrapping_mul(d))
        };
        let first_saved = |s: usize| match call.save {
            Save::H => wrap((s - slab.seqs.start) as u64 * d),
            _ => wrap(g.chunks_before(s).wrapping_sub(chunks.start).wrapping_mul(saved_pitch)),
        };
        let agg_at = groups.start - g.groups_before(tile.seqs.start);
        let at = (slab.seqs.start - tile.seqs.start) as u64;
        let full = (rows.start * d + tile.d0, (rows.end - rows.start - 1) * d + w);
        let mut windows = Vec::new();
        for slot in call.slots.iter() {
            let (operand, (start, len)) = match slot {
                Slot::Saved if call.save == Save::H => (Operand::Saved, full),
                Slot::Saved => {
                    let operand =
                        if call.saved == SavedRows::Caller { Operand::Saved } else { Operand::Workspace };
                    (operand, (saved_start, (chunks.end - chunks.start - 1) * saved_pitch + w))
                }
                Slot::H0 => (Operand::H0, (slab.seqs.start as u64 * d + tile.d0, (seqs - 1) * d + w)),
                Slot::State => match call.state {
                    Some(s) => (s.operand, (s.base + at * s.pitch, (seqs - 1) * s.pitch + s.row(w))),
                    None => continue,
                },
                Slot::Agg => (Operand::Workspace, (call.agg + agg_at * AGGREGATE * w, items * AGGREGATE * w)),
                _ => (full_operand(slot), full),
            };
            windows.push(Window { slot, operand, start, len });
        }
        let table = g.is_packed().then(|| {
            let begin = self.begin_table();
            for s in slab.seqs.clone() {
                let range = if by_group {
                    let last = steps.end.min(g.seq_len(s));
                    steps.start / g.group..last.div_ceil(g.group)
                } else {
                    0..1
                };
                for group in range {
                    self.out.table.push([first_element(s), wrap(g.seq_len(s)), first_saved(s), wrap(group)]);
                }
            }
            begin..self.out.table.len()
        });
        let params = Params {
            items: wrap(items),
            flags: call.flags | if call.fold { FOLD } else { 0 },
            base: first_element(slab.seqs.start),
            step: if g.reverse { wrap(d).wrapping_neg() } else { wrap(d) },
            row: wrap(g.seq_len(slab.seqs.start) * d),
            len: wrap(g.seq_len(slab.seqs.start)),
            groups: if by_group { wrap(items / seqs) } else { 1 },
            first: if by_group { wrap(steps.start / g.group) } else { 0 },
            group: wrap(g.group),
            state_pitch: wrap(call.state.map_or(0, |s| s.pitch)),
            state_plane: wrap(call.state.map_or(0, |s| s.plane)),
            from_step: wrap(steps.start),
            to_step: wrap(steps.end),
            saved: first_saved(slab.seqs.start),
            saved_row: match call.save {
                Save::H => wrap(d),
                _ => wrap(g.seq_len(slab.seqs.start).div_ceil(g.chunk).wrapping_mul(saved_pitch)),
            },
            saved_pitch: wrap(saved_pitch),
            width: wrap(w),
        };
        let key = Key {
            body: call.body,
            slots: call.slots,
            dtype: self.problem.dtype(),
            out_dtype: self.problem.out_dtype(),
            packed: g.is_packed(),
            save: call.save,
            paused: call.paused,
            chunk: wrap(g.chunk),
        };
        let walked =
            slab.seqs.clone().map(|s| steps.end.min(g.seq_len(s)).saturating_sub(steps.start)).sum::<u64>();
        let dispatch = Dispatch { key, windows, params, channels: w, aligned_rows: d % 2 == 0, table };
        let state_touched = call.state.map_or((0, 0), |s| s.touched(seqs, w, call.flags));
        self.push(dispatch, |slot| {
            let elements = w * match slot {
                Slot::Saved if call.save != Save::H => chunks.end - chunks.start,
                Slot::State | Slot::H0 => seqs,
                Slot::Agg => items,
                _ => walked,
            };
            match slot {
                Slot::Agg if key.writes(slot) => (0, AGGREGATE * elements),
                Slot::Agg => (CARRY * elements, 0),
                Slot::State => state_touched,
                _ if key.writes(slot) => (0, elements),
                _ => (elements, 0),
            }
        });
    }

    /// Folds the groups of a slab.
    pub(crate) fn carry(&mut self, call: &Call, tile: &Tile, slab: &Slab) {
        let (g, w, Call { agg, flags, state, .. }) = (self.grid, tile.width, *call);
        let groups = g.slab_groups(slab);
        let (seqs, count) = (slab.seqs.len() as u64, groups.end - groups.start);
        let at = (slab.seqs.start - tile.seqs.start) as u64;
        let start = agg + (groups.start - g.groups_before(tile.seqs.start)) * AGGREGATE * w;
        // Sequences without a step still hand their state through; there is an aggregate's room for them to bind.
        let mut windows = vec![Window {
            slot: Slot::Agg,
            operand: Operand::Workspace,
            start,
            len: count.max(1) * AGGREGATE * w,
        }];
        windows.extend(state.map(|s| Window {
            slot: Slot::State,
            operand: s.operand,
            start: s.base + at * s.pitch,
            len: (seqs - 1) * s.pitch + s.row(w),
        }));
        let table = g.is_packed().then(|| {
            let begin = self.begin_table();
            for s in slab.seqs.clone() {
                let before = g.groups_before(s).saturating_sub(groups.start);
                let own =
                    if slab.steps.is_some() { count } else { g.groups_before(s + 1) - g.groups_before(s) };
                self.out.table.push([wrap(before * AGGREGATE * w), wrap(own), 0, 0]);
            }
            begin..self.out.table.len()
        });
        let key = Key {
            body: Body::Carry,
            slots: Slots::of(&[(Slot::Agg, true), (Slot::State, state.is_some())]),
            packed: g.is_packed(),
            paused: call.paused,
            chunk: CARRY_BATCH,
            ..plain_key()
        };
        let params = Params {
            items: wrap(seqs),
            flags,
            row: wrap(count / seqs * AGGREGATE * w),
            len: wrap(count / seqs),
            groups: 1,
            state_pitch: wrap(state.map_or(0, |s| s.pitch)),
            state_plane: wrap(state.map_or(0, |s| s.plane)),
            width: wrap(w),
            ..Params::default()
        };
        self.push(
            Dispatch { key, windows, params, channels: w, aligned_rows: true, table },
            |slot| match slot {
                Slot::Agg => (AGGREGATE * count * w, CARRY * count * w),
                _ => state.map_or((0, 0), |s| s.touched(seqs, w, flags)),
            },
        );
    }
}

const fn full_operand(slot: Slot) -> Operand {
    match slot {
        Slot::X => Operand::X,
        Slot::A => Operand::A,
        Slot::B => Operand::B,
        Slot::C => Operand::C,
        Slot::Dy => Operand::Dy,
        Slot::Y => Operand::Y,
        Slot::Dx => Operand::Dx,
        Slot::Da => Operand::Da,
        Slot::Db => Operand::Db,
        Slot::Dc => Operand::Dc,
        Slot::Saved | Slot::State | Slot::Agg | Slot::H0 => Operand::Workspace,
    }
}

/// The key of a kernel that no option of the problem changes.
fn plain_key() -> Key {
    Key {
        body: Body::CopyState,
        slots: Slots::default(),
        dtype: DType::F32,
        out_dtype: DType::F32,
        packed: false,
        save: Save::Nothing,
        paused: false,
        chunk: 1,
    }
}
