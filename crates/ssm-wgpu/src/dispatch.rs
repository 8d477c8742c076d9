//! One dispatch: its kernel, its windows into the operands and its parameters.

use std::ops::Range;

use ssm_core::Operand;

use crate::shader::{Key, Slot};

pub(crate) const READ_STATE: u32 = 1;
pub(crate) const WRITE_STATE: u32 = 2;
pub(crate) const BACKWARD: u32 = 4;
pub(crate) const RESUME: u32 = 8;
pub(crate) const FOLD: u32 = 16;

/// Elements of an operand that a dispatch binds, without the offset alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) slot: Slot,
    pub(crate) operand: Operand,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// `Params` of common.wgsl, less what is known at launch: offsets, lanes and grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params {
    pub(crate) items: u32,
    pub(crate) flags: u32,
    pub(crate) base: u32,
    pub(crate) step: u32,
    pub(crate) row: u32,
    pub(crate) len: u32,
    pub(crate) groups: u32,
    pub(crate) first: u32,
    pub(crate) group: u32,
    pub(crate) state_pitch: u32,
    pub(crate) state_plane: u32,
    pub(crate) from_step: u32,
    pub(crate) to_step: u32,
    pub(crate) saved: u32,
    pub(crate) saved_row: u32,
    pub(crate) saved_pitch: u32,
    pub(crate) width: u32,
}

impl Params {
    /// The words of the uniform, in the order of common.wgsl.
    pub(crate) fn words(&self, offsets: &[u32; 16], lanes: u32, grid: u32) -> [u32; 36] {
        let mut words = [0; 36];
        let tail = [
            self.items,
            lanes,
            grid,
            self.flags,
            self.base,
            self.step,
            self.row,
            self.len,
            self.groups,
            self.first,
            self.group,
            self.state_pitch,
            self.state_plane,
            self.from_step,
            self.to_step,
            self.saved,
            self.saved_row,
            self.saved_pitch,
            self.width,
        ];
        words[..16].copy_from_slice(offsets);
        words[16..16 + tail.len()].copy_from_slice(&tail);
        words
    }
}

/// One dispatch.
#[derive(Clone, Debug)]
pub(crate) struct Dispatch {
    pub(crate) key: Key,
    pub(crate) windows: Vec<Window>,
    pub(crate) params: Params,
    /// Channels an item: lanes follow from them once the form is known.
    pub(crate) channels: u64,
    /// Whether rows of 16-bit elements keep to whole words: D is even.
    pub(crate) aligned_rows: bool,
    /// Its entries in the schedule's table.
    pub(crate) table: Option<Range<usize>>,
}

/// All dispatches of a plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    pub(crate) dispatches: Vec<Dispatch>,
    pub(crate) table: Vec<[u32; 4]>,
    /// Accumulator elements of workspace.
    pub(crate) workspace: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
}

/// Wraps on purpose: indices are computed modulo 2^32 on the device, where windows are smaller than that.
pub(crate) fn wrap(v: u64) -> u32 {
    v as u32
}
