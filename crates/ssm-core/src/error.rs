//! One error enum a stage, each variant named by what the caller can do about it.
//!
//! Problem, plan and bind errors are raised before any work is queued and before any output is touched.
//! Device errors are a backend's own type.

use crate::{Checkpoint, DType};

/// The operand that an error is about, named as in the equations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the operand of that name in the specification's tables")]
pub enum Operand {
    X,
    A,
    B,
    C,
    H0,
    Y,
    FinalState,
    Saved,
    Dy,
    DFinalState,
    Dx,
    Da,
    Db,
    Dc,
    Dh0,
    State,
    Workspace,
}

impl Operand {
    /// The name that the documentation uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X => "x",
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::H0 => "h0",
            Self::Y => "y",
            Self::FinalState => "hT",
            Self::Saved => "saved",
            Self::Dy => "dy",
            Self::DFinalState => "dhT",
            Self::Dx => "dx",
            Self::Da => "da",
            Self::Db => "db",
            Self::Dc => "dc",
            Self::Dh0 => "dh0",
            Self::State => "state",
            Self::Workspace => "workspace",
        }
    }
}

impl std::fmt::Display for Operand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A problem that makes no sense, whatever the backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemError {
    /// B·L·D elements do not fit the address space.
    #[error("a tensor of shape ({batch}, {len}, {channels}) in {dtype} is larger than the address space")]
    TooLarge {
        /// B.
        batch: usize,
        /// L.
        len: usize,
        /// D.
        channels: usize,
        /// The widest type that the problem needs at that shape.
        dtype: DType,
    },
    /// f64 and the narrower types do not mix: their accumulators differ.
    #[error("y in {out} cannot be written from operands in {storage}: f64 goes with f64 only")]
    MixedAccumulators {
        /// The inputs' type.
        storage: DType,
        /// The type asked for y.
        out: DType,
    },
    /// Packed sequences live in one row of the batch.
    #[error("packed sequences (cu_seqlens) need B = 1, got B = {batch}")]
    PackedBatch {
        /// B.
        batch: usize,
    },
    /// cu_seqlens has no first entry, or one that is not 0.
    #[error("cu_seqlens must begin with 0, got {got:?}")]
    PackedStart {
        /// The first entry, if there is one.
        got: Option<usize>,
    },
    /// cu_seqlens decreases.
    #[error("cu_seqlens must not decrease: entry {index} is {got} after {previous}")]
    PackedOrder {
        /// The index of the offending entry.
        index: usize,
        /// The entry before it.
        previous: usize,
        /// The entry.
        got: usize,
    },
    /// cu_seqlens ends past L.
    #[error("cu_seqlens must end at or before L = {len}, got {got}")]
    PackedEnd {
        /// L.
        len: usize,
        /// The last entry.
        got: usize,
    },
    /// A memory tile of nothing.
    #[error("a memory tile must hold at least one row and one channel, got {batch:?} by {channels:?}")]
    EmptyTile {
        /// Sequences a tile.
        batch: Option<usize>,
        /// Channels a tile.
        channels: Option<usize>,
    },
    /// The gradient of an operand that the problem does not have.
    #[error("the problem has no {operand}, so it has no gradient")]
    NoSuchGradient {
        /// The absent operand.
        operand: Operand,
    },
    /// A step runs forward on one state a row.
    #[error("a step cannot be {option}")]
    NotAStep {
        /// The option that does not fit.
        option: &'static str,
    },
}

/// A valid problem that this backend, or this budget, cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The backend, or the adapter behind it, lacks the element type.
    #[error("{backend} has no {dtype} here")]
    UnsupportedType {
        /// The backend's name.
        backend: &'static str,
        /// The type it lacks.
        dtype: DType,
    },
    /// The algorithm asked for does not exist on this backend.
    #[error("{backend} has no {algorithm} algorithm for this problem")]
    UnsupportedAlgorithm {
        /// The backend's name.
        backend: &'static str,
        /// What was asked for.
        algorithm: crate::Algorithm,
    },
    /// The device cannot address a buffer of this size, and the work cannot be split further.
    #[error("{operand} needs {needed} bytes in one binding, {backend} allows {limit}")]
    TooLargeForDevice {
        /// The backend's name.
        backend: &'static str,
        /// The operand.
        operand: Operand,
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// No checkpoint policy fits the budget.
    #[error("no policy fits {budget} bytes; the least is {least} bytes with {policy}")]
    OverBudget {
        /// The caller's budget.
        budget: u64,
        /// What the leanest policy needs.
        least: u64,
        /// That policy.
        policy: Checkpoint,
    },
    /// The workspace, or another size that the plan computes, leaves 64 bits or the address space.
    #[error("the plan needs more bytes than the address space holds")]
    Overflow,
    /// The problem as the plan has to see it is not valid (a policy change can make it too large).
    #[error(transparent)]
    Problem(#[from] ProblemError),
}

/// Operands that do not fit the plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The plan needs an operand that was not given.
    #[error("{operand} is missing: the problem has it")]
    Missing {
        /// The operand.
        operand: Operand,
    },
    /// An operand was given that the plan has no use for.
    #[error("{operand} was given, but the problem has none")]
    Unexpected {
        /// The operand.
        operand: Operand,
    },
    /// The wrong number of elements.
    #[error("{operand} has {got} elements, expected {expected}")]
    Length {
        /// The operand.
        operand: Operand,
        /// Elements expected.
        expected: u64,
        /// Elements given.
        got: u64,
    },
    /// The wrong element type.
    #[error("{operand} is {got}, expected {expected}")]
    Type {
        /// The operand.
        operand: Operand,
        /// Type expected.
        expected: DType,
        /// Type given.
        got: DType,
    },
    /// The first element does not lie on a multiple of what the device needs.
    #[error("{operand} starts at address {address:#x}, expected a multiple of {expected}")]
    Misaligned {
        /// The operand.
        operand: Operand,
        /// Alignment expected, in bytes.
        expected: u64,
        /// Address, or offset in its buffer, in bytes.
        address: u64,
    },
    /// An output shares memory with another operand.
    #[error("{output} overlaps {other}")]
    Overlap {
        /// The output.
        output: Operand,
        /// What it overlaps, an input or another output.
        other: Operand,
    },
    /// The memory belongs to a device that this backend value does not drive.
    #[error("{operand} lives on {got}, expected {expected}")]
    ForeignDevice {
        /// The operand.
        operand: Operand,
        /// The backend's device.
        expected: String,
        /// The operand's device.
        got: String,
    },
    /// The memory cannot be used that way (a buffer without the storage usage, say).
    #[error("{operand} cannot be used: expected {expected}, got {got}")]
    Unusable {
        /// The operand.
        operand: Operand,
        /// What the backend needs.
        expected: String,
        /// What the operand has.
        got: String,
    },
    /// The workspace is smaller than the plan said.
    #[error("the workspace has {got} bytes, the plan needs {expected}")]
    Workspace {
        /// Bytes the plan needs.
        expected: u64,
        /// Bytes given.
        got: u64,
    },
}

/// What [`crate::Plan::run`] can say: the operands did not fit, or the device failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError<E> {
    /// The operands did not fit the plan; nothing was queued.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The device failed.
    #[error("{0}")]
    Device(#[source] E),
}
