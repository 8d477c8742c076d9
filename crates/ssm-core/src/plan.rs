//! Plans: what a backend is going to do, before it does it.

use crate::{Algorithm, Checkpoint, DType, Kernel, Op, PlanError, ScanBackward, ScanForward};

/// What the caller may ask of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// This algorithm and no other; the backend's choice when `None`.
    pub algorithm: Option<Algorithm>,
}

/// What a plan will take. Prints as a few lines for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The backend's name.
    pub backend: &'static str,
    /// The op's name.
    pub op: &'static str,
    /// (B, L, D).
    pub shape: [usize; 3],
    /// The inputs' storage type.
    pub dtype: DType,
    /// What forward leaves behind.
    pub checkpoint: Checkpoint,
    /// How time is walked.
    pub algorithm: Algorithm,
    /// Steps a chunk: fixed by L, the type and the backend.
    pub chunk_len: usize,
    /// Chunks in all sequences together.
    pub chunks: u64,
    /// Bytes of workspace that the launch borrows.
    pub workspace_bytes: u64,
    /// Accumulator elements that forward writes for backward; 0 for none.
    pub saved: u64,
    /// Bytes read from memory, each tensor counted as often as the algorithm reads it from beyond the caches.
    pub bytes_read: u64,
    /// Bytes written to memory.
    pub bytes_written: u64,
}

impl Report {
    /// Bytes that forward keeps for backward.
    pub fn saved_bytes(&self) -> u64 {
        self.saved.saturating_mul(self.dtype.accumulator().size())
    }

    /// Bytes moved in all.
    pub fn bytes_moved(&self) -> u64 {
        self.bytes_read.saturating_add(self.bytes_written)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [b, l, d] = self.shape;
        writeln!(f, "{} on {}: ({b}, {l}, {d}) {}", self.op, self.backend, self.dtype)?;
        writeln!(f, "  algorithm    {}", self.algorithm)?;
        writeln!(f, "  chunk grid   {} chunks of {} steps", self.chunks, self.chunk_len)?;
        writeln!(f, "  checkpoint   {}, {} bytes saved", self.checkpoint, self.saved_bytes())?;
        writeln!(f, "  workspace    {} bytes", self.workspace_bytes)?;
        write!(f, "  memory       {} bytes read, {} written", self.bytes_read, self.bytes_written)
    }
}

/// An op, what it will take, and what its backend has worked out for the launch.
#[derive(Clone, Debug)]
pub struct Plan<O: Op, B: Kernel<O>> {
    op: O,
    report: Report,
    detail: B::Detail,
}

impl<O: Op, B: Kernel<O>> Plan<O, B> {
    /// For backends: `detail` is a type that only the backend can make.
    pub fn new(op: O, report: Report, detail: B::Detail) -> Self {
        Self { op, report, detail }
    }

    /// The op.
    pub fn op(&self) -> &O {
        &self.op
    }

    /// What it will take.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// For backends: what [`Plan::new`] was given.
    pub fn detail(&self) -> &B::Detail {
        &self.detail
    }
}

/// A forward and a backward plan over one checkpoint policy.
#[derive(Clone, Debug)]
pub struct TrainPlan<B: Kernel<ScanForward> + Kernel<ScanBackward>> {
    /// Forward.
    pub forward: Plan<ScanForward, B>,
    /// Backward.
    pub backward: Plan<ScanBackward, B>,
}

impl<B: Kernel<ScanForward> + Kernel<ScanBackward>> TrainPlan<B> {
    /// Plans backward and the forward that comes before it.
    ///
    /// # Errors
    ///
    /// Those of [`Kernel::plan`].
    pub fn new(backend: &B, op: &ScanBackward) -> Result<Self, PlanError> {
        let options = PlanOptions::default();
        Ok(Self {
            forward: backend.plan(&op.problem().forward(), &options)?,
            backward: backend.plan(op, &options)?,
        })
    }

    /// The policy that both follow.
    pub fn checkpoint(&self) -> Checkpoint {
        self.forward.report().checkpoint
    }

    /// What a training step holds beyond operands and gradients: the saved state, and the larger workspace.
    pub fn bytes(&self) -> u64 {
        let (forward, backward) = (self.forward.report(), self.backward.report());
        forward.saved_bytes().saturating_add(forward.workspace_bytes.max(backward.workspace_bytes))
    }

    fn bytes_moved(&self) -> u64 {
        self.forward.report().bytes_moved().saturating_add(self.backward.report().bytes_moved())
    }
}

/// Picks the fastest checkpoint policy whose saved state and workspace fit `budget` bytes: these kernels are bound by
/// memory, so the fastest is the one that moves the fewest bytes.
///
/// # Errors
///
/// [`PlanError::OverBudget`] with the least that any policy needs, or what planning itself says.
pub fn plan_within<B>(backend: &B, op: &ScanBackward, budget: u64) -> Result<TrainPlan<B>, PlanError>
where
    B: Kernel<ScanForward> + Kernel<ScanBackward>,
{
    let mut plans = Vec::with_capacity(Checkpoint::ALL.len());
    for policy in Checkpoint::ALL {
        plans.push(TrainPlan::new(backend, &op.clone().with_checkpoint(policy)?)?);
    }
    let least = plans.iter().map(|p| (p.bytes(), p.checkpoint())).min_by_key(|(bytes, _)| *bytes);
    let fastest = plans.into_iter().filter(|p| p.bytes() <= budget).min_by_key(TrainPlan::bytes_moved);
    match (fastest, least) {
        (Some(plan), _) => Ok(plan),
        (None, Some((least, policy))) => Err(PlanError::OverBudget { budget, least, policy }),
        (None, None) => Err(PlanError::Overflow),
    }
}
