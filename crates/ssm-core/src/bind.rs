//! The only place where operands meet a plan.
//!
//! A [`Bound`] call can only be made here, and a launch takes nothing else: a launch with unchecked operands does not
//! compile.

use crate::{Backend, BindError, DType, Kernel, Op, Operand, Plan, Report, RunError, Span, View};

/// What an operand must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its type.
    pub dtype: DType,
    /// How many elements.
    pub elements: u64,
}

/// The most operands that one op has, the workspace included.
const MOST_OPERANDS: usize = 16;

/// Checks operands one after the other and remembers where each lies.
#[derive(Debug)]
pub struct Checker<'b, B> {
    backend: &'b B,
    // A fixed array: binding allocates nothing.
    seen: [Option<(Operand, Span, bool)>; MOST_OPERANDS],
    count: usize,
}

impl<'b, B: Backend> Checker<'b, B> {
    fn new(backend: &'b B) -> Self {
        Self { backend, seen: [None; MOST_OPERANDS], count: 0 }
    }

    /// An operand that is read.
    ///
    /// # Errors
    ///
    /// [`BindError`] when it is missing, not wanted, of the wrong type or length, misaligned, on another device, or
    /// overlaps an output.
    pub fn input<V: View>(
        &mut self,
        operand: Operand,
        view: Option<&V>,
        wanted: bool,
        extent: Extent,
    ) -> Result<(), BindError> {
        self.operand(operand, view, wanted, extent, false)
    }

    /// An operand that is written.
    ///
    /// # Errors
    ///
    /// As [`Checker::input`], and when it overlaps anything at all.
    pub fn output<V: View>(
        &mut self,
        operand: Operand,
        view: Option<&V>,
        wanted: bool,
        extent: Extent,
    ) -> Result<(), BindError> {
        self.operand(operand, view, wanted, extent, true)
    }

    fn operand<V: View>(
        &mut self,
        operand: Operand,
        view: Option<&V>,
        wanted: bool,
        extent: Extent,
        written: bool,
    ) -> Result<(), BindError> {
        let view = match (view, wanted) {
            (Some(view), true) => view,
            (None, true) => return Err(BindError::Missing { operand }),
            (Some(_), false) => return Err(BindError::Unexpected { operand }),
            (None, false) => return Ok(()),
        };
        if view.dtype() != extent.dtype {
            return Err(BindError::Type { operand, expected: extent.dtype, got: view.dtype() });
        }
        if view.elements() != extent.elements {
            let (expected, got) = (extent.elements, view.elements());
            return Err(BindError::Length { operand, expected, got });
        }
        self.place(operand, view, written)
    }

    /// The workspace: at least so many bytes, of any type.
    fn workspace<V: View>(&mut self, view: Option<&V>, needed: u64) -> Result<(), BindError> {
        let got = view.map_or(0, |v| v.span().bytes);
        if got < needed {
            return Err(BindError::Workspace { expected: needed, got });
        }
        view.map_or(Ok(()), |v| self.place(Operand::Workspace, v, true))
    }

    fn place<V: View>(&mut self, operand: Operand, view: &V, written: bool) -> Result<(), BindError> {
        let (span, expected) = (view.span(), view.dtype().size());
        if span.bytes > 0 && span.start % expected != 0 {
            return Err(BindError::Misaligned { operand, expected, address: span.start });
        }
        view.check(operand)?;
        self.backend.check_view(operand, view)?;
        for &(other, at, other_written) in self.seen[..self.count].iter().flatten() {
            if (written || other_written) && span.overlaps(&at) {
                let (output, other) = if written { (operand, other) } else { (other, operand) };
                return Err(BindError::Overlap { output, other });
            }
        }
        debug_assert!(self.count < MOST_OPERANDS, "an op has more operands than MOST_OPERANDS");
        if let Some(slot) = self.seen.get_mut(self.count) {
            *slot = Some((operand, span, written));
            self.count += 1;
        }
        Ok(())
    }
}

/// A bound call taken apart, for a backend's launch.
#[derive(Debug)]
pub struct BoundParts<'p, 'a, O: Op, B: Kernel<O>> {
    /// The plan.
    pub plan: &'p Plan<O, B>,
    /// The operands, each checked against it.
    pub args: O::Args<'a, B>,
    /// At least as many bytes as the plan's report asks for; present when it asks for any.
    pub workspace: Option<B::Mut<'a>>,
}

/// A plan together with operands that fit it.
#[derive(Debug)]
pub struct Bound<'p, 'a, O: Op, B: Kernel<O>> {
    plan: &'p Plan<O, B>,
    args: O::Args<'a, B>,
    workspace: Option<B::Mut<'a>>,
}

impl<'p, 'a, O: Op, B: Kernel<O>> Bound<'p, 'a, O, B> {
    /// What a launch works on.
    pub fn into_parts(self) -> BoundParts<'p, 'a, O, B> {
        BoundParts { plan: self.plan, args: self.args, workspace: self.workspace }
    }

    /// The plan's report.
    pub fn report(&self) -> &'p Report {
        self.plan.report()
    }
}

impl<O: Op, B: Kernel<O>> Plan<O, B> {
    /// Checks every operand against the plan.
    ///
    /// # Errors
    ///
    /// The first [`BindError`], before any work is queued and before any output is touched.
    pub fn bind<'p, 'a>(
        &'p self,
        backend: &B,
        args: O::Args<'a, B>,
        workspace: Option<B::Mut<'a>>,
    ) -> Result<Bound<'p, 'a, O, B>, BindError> {
        let mut checker = Checker::new(backend);
        self.op().check(self.report(), &args, &mut checker)?;
        checker.workspace(workspace.as_ref(), self.report().workspace_bytes)?;
        Ok(Bound { plan: self, args, workspace })
    }

    /// Binds the operands and enqueues the work.
    ///
    /// # Errors
    ///
    /// [`RunError::Bind`] with nothing queued, or the device's own.
    pub fn run<'a>(
        &self,
        backend: &B,
        args: O::Args<'a, B>,
        workspace: Option<B::Mut<'a>>,
        queue: B::Queue<'_>,
    ) -> Result<(), RunError<B::Error>> {
        let call = self.bind(backend, args, workspace)?;
        backend.launch(call, queue).map_err(RunError::Device)
    }
}
