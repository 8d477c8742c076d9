//! The ops: forward, backward and step of a gated scan. An op is a problem together with what is asked of it.

use crate::{Backend, BindError, Checker, Checkpoint, Extent, GatedScan, Operand, ProblemError, Report};

/// Something a backend can be asked to compute.
pub trait Op: Clone + std::fmt::Debug {
    /// The name in reports and benchmark rows.
    const NAME: &'static str;
    /// The operands, as views of one backend's memory.
    type Args<'a, B: Backend>;

    /// The problem behind it.
    fn problem(&self) -> &GatedScan;

    /// Names every operand with the extent that the problem and the plan's report ask for.
    ///
    /// # Errors
    ///
    /// The first [`BindError`] that the checker finds.
    fn check<B: Backend>(
        &self,
        report: &Report,
        args: &Self::Args<'_, B>,
        checker: &mut Checker<'_, B>,
    ) -> Result<(), BindError>;
}

/// h, y, and what was asked for besides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScanForward {
    problem: GatedScan,
}

/// The gradients that were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScanBackward {
    problem: GatedScan,
    grads: Grads,
    final_state: bool,
}

/// The next L tokens on a state (B, D) that the caller holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScanStep {
    problem: GatedScan,
}

/// Which gradients backward computes and writes. What is not asked for is neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each flag asks for the gradient of the operand of that name")]
pub struct Grads {
    pub x: bool,
    pub a: bool,
    pub b: bool,
    pub c: bool,
    pub h0: bool,
}

impl Grads {
    /// The gradient of every operand that the problem has.
    pub fn all(problem: &GatedScan) -> Self {
        Self { x: true, a: true, b: problem.has_b(), c: problem.has_c(), h0: problem.has_initial_state() }
    }

    /// How many (B, L, D) gradients are asked for.
    pub fn tensors(self) -> u64 {
        [self.x, self.a, self.b, self.c].map(u64::from).into_iter().sum()
    }

    /// Whether backward needs h for what is asked: da = h[t-1]·g, dc = dy·h.
    pub const fn need_h(self) -> bool {
        self.a || self.c
    }
}

impl GatedScan {
    /// The forward op.
    pub fn forward(&self) -> ScanForward {
        ScanForward { problem: self.clone() }
    }

    /// The backward op for these gradients.
    ///
    /// # Errors
    ///
    /// [`ProblemError::NoSuchGradient`] for the gradient of an operand that the problem does not have.
    pub fn backward(&self, grads: Grads) -> Result<ScanBackward, ProblemError> {
        let absent = [
            (grads.b && !self.has_b(), Operand::B),
            (grads.c && !self.has_c(), Operand::C),
            (grads.h0 && !self.has_initial_state(), Operand::H0),
        ];
        match absent.into_iter().find(|(bad, _)| *bad) {
            Some((_, operand)) => Err(ProblemError::NoSuchGradient { operand }),
            None => Ok(ScanBackward { problem: self.clone(), grads, final_state: false }),
        }
    }

    /// The step op: L tokens a sequence, state (B, D) read and written in place.
    ///
    /// # Errors
    ///
    /// [`ProblemError::NotAStep`] for a problem that is reversed or packed, or that has an h0 or hT of its own: the
    /// state is both.
    pub fn step(&self) -> Result<ScanStep, ProblemError> {
        let option = if self.is_reverse() {
            "reversed"
        } else if self.cu_seqlens().is_some() {
            "packed"
        } else if self.has_initial_state() {
            "given an h0 beside its state"
        } else if self.wants_final_state() {
            "asked for an hT beside its state"
        } else {
            return Ok(ScanStep { problem: self.clone() });
        };
        Err(ProblemError::NotAStep { option })
    }
}

impl ScanBackward {
    /// With the gradient dhT (N, D) of the final state as one more input.
    #[must_use]
    pub fn with_final_state(mut self) -> Self {
        self.final_state = true;
        self
    }

    /// The same op over another checkpoint policy.
    ///
    /// # Errors
    ///
    /// [`ProblemError`] as from building the problem.
    pub fn with_checkpoint(mut self, policy: Checkpoint) -> Result<Self, ProblemError> {
        self.problem = self.problem.to_builder().checkpoint(policy).build()?;
        Ok(self)
    }

    /// The gradients asked for.
    pub fn grads(&self) -> Grads {
        self.grads
    }

    /// Whether there is a dhT.
    pub fn has_final_state(&self) -> bool {
        self.final_state
    }
}

/// Operands of [`ScanForward`].
#[derive(Debug)]
pub struct ForwardArgs<'a, B: Backend> {
    /// (B, L, D), storage.
    pub x: B::Ref<'a>,
    /// (B, L, D), storage.
    pub a: B::Ref<'a>,
    /// (B, L, D), storage.
    pub b: Option<B::Ref<'a>>,
    /// (B, L, D), storage.
    pub c: Option<B::Ref<'a>>,
    /// (N, D), accumulator.
    pub h0: Option<B::Ref<'a>>,
    /// (B, L, D), the output type.
    pub y: B::Mut<'a>,
    /// hT (N, D), accumulator.
    pub final_state: Option<B::Mut<'a>>,
    /// As many accumulator elements as the report's `saved` says; none when that is 0.
    pub saved: Option<B::Mut<'a>>,
}

/// Operands of [`ScanBackward`].
#[derive(Debug)]
pub struct BackwardArgs<'a, B: Backend> {
    /// (B, L, D), storage.
    pub x: B::Ref<'a>,
    /// (B, L, D), storage.
    pub a: B::Ref<'a>,
    /// (B, L, D), storage.
    pub b: Option<B::Ref<'a>>,
    /// (B, L, D), storage.
    pub c: Option<B::Ref<'a>>,
    /// (N, D), accumulator.
    pub h0: Option<B::Ref<'a>>,
    /// What forward saved.
    pub saved: Option<B::Ref<'a>>,
    /// (B, L, D), the output type.
    pub dy: B::Ref<'a>,
    /// dhT (N, D), accumulator.
    pub d_final_state: Option<B::Ref<'a>>,
    /// (B, L, D), storage.
    pub dx: Option<B::Mut<'a>>,
    /// (B, L, D), storage.
    pub da: Option<B::Mut<'a>>,
    /// (B, L, D), storage.
    pub db: Option<B::Mut<'a>>,
    /// (B, L, D), storage.
    pub dc: Option<B::Mut<'a>>,
    /// (N, D), accumulator.
    pub dh0: Option<B::Mut<'a>>,
}

/// Operands of [`ScanStep`].
#[derive(Debug)]
pub struct StepArgs<'a, B: Backend> {
    /// (B, L, D), storage.
    pub x: B::Ref<'a>,
    /// (B, L, D), storage.
    pub a: B::Ref<'a>,
    /// (B, L, D), storage.
    pub b: Option<B::Ref<'a>>,
    /// (B, L, D), storage.
    pub c: Option<B::Ref<'a>>,
    /// (B, L, D), the output type.
    pub y: B::Mut<'a>,
    /// (B, D), accumulator: read, then written.
    pub state: B::Mut<'a>,
}

/// The extents that the operands of one problem have.
struct Extents {
    full: Extent,
    out: Extent,
    state: Extent,
    saved: Extent,
}

impl Extents {
    fn of(problem: &GatedScan, report: &Report) -> Self {
        let full = Extent { dtype: problem.dtype(), elements: problem.elements() };
        let acc = problem.accumulator();
        Self {
            full,
            out: Extent { dtype: problem.out_dtype(), ..full },
            state: Extent { dtype: acc, elements: problem.state_elements() },
            saved: Extent { dtype: acc, elements: report.saved },
        }
    }
}

impl Op for ScanForward {
    const NAME: &'static str = "scan_forward";
    type Args<'a, B: Backend> = ForwardArgs<'a, B>;

    fn problem(&self) -> &GatedScan {
        &self.problem
    }

    fn check<B: Backend>(
        &self,
        report: &Report,
        args: &ForwardArgs<'_, B>,
        checker: &mut Checker<'_, B>,
    ) -> Result<(), BindError> {
        let p = &self.problem;
        let e = Extents::of(p, report);
        checker.input(Operand::X, Some(&args.x), true, e.full)?;
        checker.input(Operand::A, Some(&args.a), true, e.full)?;
        checker.input(Operand::B, args.b.as_ref(), p.has_b(), e.full)?;
        checker.input(Operand::C, args.c.as_ref(), p.has_c(), e.full)?;
        checker.input(Operand::H0, args.h0.as_ref(), p.has_initial_state(), e.state)?;
        checker.output(Operand::Y, Some(&args.y), true, e.out)?;
        checker.output(Operand::FinalState, args.final_state.as_ref(), p.wants_final_state(), e.state)?;
        checker.output(Operand::Saved, args.saved.as_ref(), report.saved > 0, e.saved)
    }
}

impl Op for ScanBackward {
    const NAME: &'static str = "scan_backward";
    type Args<'a, B: Backend> = BackwardArgs<'a, B>;

    fn problem(&self) -> &GatedScan {
        &self.problem
    }

    fn check<B: Backend>(
        &self,
        report: &Report,
        args: &BackwardArgs<'_, B>,
        checker: &mut Checker<'_, B>,
    ) -> Result<(), BindError> {
        let (p, g) = (&self.problem, self.grads);
        let e = Extents::of(p, report);
        checker.input(Operand::X, Some(&args.x), true, e.full)?;
        checker.input(Operand::A, Some(&args.a), true, e.full)?;
        checker.input(Operand::B, args.b.as_ref(), p.has_b(), e.full)?;
        checker.input(Operand::C, args.c.as_ref(), p.has_c(), e.full)?;
        checker.input(Operand::H0, args.h0.as_ref(), p.has_initial_state(), e.state)?;
        checker.input(Operand::Saved, args.saved.as_ref(), report.saved > 0, e.saved)?;
        checker.input(Operand::Dy, Some(&args.dy), true, e.out)?;
        checker.input(Operand::DFinalState, args.d_final_state.as_ref(), self.final_state, e.state)?;
        checker.output(Operand::Dx, args.dx.as_ref(), g.x, e.full)?;
        checker.output(Operand::Da, args.da.as_ref(), g.a, e.full)?;
        checker.output(Operand::Db, args.db.as_ref(), g.b, e.full)?;
        checker.output(Operand::Dc, args.dc.as_ref(), g.c, e.full)?;
        checker.output(Operand::Dh0, args.dh0.as_ref(), g.h0, e.state)
    }
}

impl Op for ScanStep {
    const NAME: &'static str = "scan_step";
    type Args<'a, B: Backend> = StepArgs<'a, B>;

    fn problem(&self) -> &GatedScan {
        &self.problem
    }

    fn check<B: Backend>(
        &self,
        report: &Report,
        args: &StepArgs<'_, B>,
        checker: &mut Checker<'_, B>,
    ) -> Result<(), BindError> {
        let p = &self.problem;
        let e = Extents::of(p, report);
        checker.input(Operand::X, Some(&args.x), true, e.full)?;
        checker.input(Operand::A, Some(&args.a), true, e.full)?;
        checker.input(Operand::B, args.b.as_ref(), p.has_b(), e.full)?;
        checker.input(Operand::C, args.c.as_ref(), p.has_c(), e.full)?;
        checker.output(Operand::Y, Some(&args.y), true, e.out)?;
        checker.output(Operand::State, Some(&args.state), true, e.state)
    }
}
