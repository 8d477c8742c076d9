//! Tile sizes, and when to march. All of it data: the rows are those that the kernels were compiled with, and the
//! thresholds decide between two algorithms that give the same bits.

use ssm_core::DType;

use crate::kernels::{Direction, Walk};

/// The tile sizes of one architecture and storage type; scan_tuning.h says what each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) arch: u32,
    pub(crate) dtype: DType,
    pub(crate) sub: u64,
    pub(crate) chunk: u64,
    pub(crate) chunkb: u64,
    pub(crate) save: u64,
    pub(crate) stage: u64,
    pub(crate) vm: u64,
    pub(crate) vc: u64,
    pub(crate) vcb: u64,
    pub(crate) sf: u64,
    pub(crate) sb: u64,
    pub(crate) fold: u64,
    pub(crate) foldb: u64,
}

pub(crate) const ROWS: &[Row] = include!("../ptx/tuning.rs");

/// March where every multiprocessor gets at least so many of the longest column's equals ...
pub(crate) const MARCH_COLUMNS_PER_MULTIPROCESSOR: u64 = 2;
/// ... and at least this share of them is busy in the last wave, in percent.
pub(crate) const MARCH_BALANCE_PERCENT: u64 = 80;

/// A march in f32 with fewer warps than this goes by blocks of many warps instead.
pub(crate) const MARCH_WARPS_PER_MULTIPROCESSOR: u64 = 3;
/// The same from compute capability 7.5 on.
pub(crate) const REGISTERS_PER_MULTIPROCESSOR: u64 = 65_536;

/// Registers a thread of the chunked kernels, about; kernels/ptx/resources.md has them.
pub(crate) const fn registers(direction: Direction) -> u64 {
    match direction {
        Direction::Forward => 128,
        Direction::Backward => 200,
    }
}

impl Row {
    /// The row of the `_any` entries: one channel a lane.
    pub(crate) const fn narrow(self) -> Self {
        Self { vm: 1, vc: 1, vcb: 1, ..self }
    }

    /// Steps a chunk.
    pub(crate) const fn chunk(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Forward => self.chunk,
            Direction::Backward => self.chunkb,
        }
    }

    /// Channels that one warp covers.
    pub(crate) const fn lanes(&self, direction: Direction, walk: Walk) -> u64 {
        32 * match (direction, walk) {
            (_, Walk::March) => self.vm,
            (Direction::Forward, Walk::Chunked) => self.vc,
            (Direction::Backward, Walk::Chunked) => self.vcb,
        }
    }

    /// Threads a block.
    pub(crate) const fn threads(&self, direction: Direction, walk: Walk) -> u64 {
        match walk {
            Walk::March => 32,
            Walk::Chunked => 32 * self.chunk(direction) / self.sub,
        }
    }

    /// Stages of a march's copy ring, for long sequences.
    pub(crate) const fn stages(&self, direction: Direction, walk: Walk) -> u64 {
        match (direction, walk) {
            (Direction::Forward, Walk::March) => self.sf,
            (Direction::Backward, Walk::March) => self.sb,
            (_, Walk::Chunked) => 1,
        }
    }

    /// The fewest stages that work.
    pub(crate) const fn least_stages(&self, direction: Direction, walk: Walk) -> u64 {
        match (direction, walk) {
            (Direction::Backward, Walk::March) => self.save / self.stage + 1,
            _ => 1,
        }
    }

    /// Bytes of dynamic shared memory: scan_march_smem and scan_chunked_smem of scan_abi.h. `out` is the size of an
    /// element of dy.
    pub(crate) const fn shared(&self, direction: Direction, walk: Walk, out: u64, stages: u64) -> u64 {
        let (lanes, chunk) = (self.lanes(direction, walk), self.chunk(direction));
        let backward = matches!(direction, Direction::Backward);
        let row = lanes * (4 * self.dtype.size() + if backward { out } else { 0 });
        match walk {
            Walk::March => {
                stages * self.stage * row + if backward { self.save / self.stage * lanes * 4 } else { 0 }
            }
            Walk::Chunked => {
                let warps = chunk / self.sub;
                let (kinds, fold) = if backward { (2, self.foldb) } else { (1, self.fold) };
                chunk * row + (kinds * warps + fold) * lanes * 16 + kinds * warps * lanes * 4 + 512
            }
        }
    }
}
