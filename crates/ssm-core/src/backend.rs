//! What a backend is: views of memory that the caller owns, a queue, and one cell of the table ops × backends a kernel.

use crate::{BindError, Bound, DType, Op, Operand, Plan, PlanError, PlanOptions};

/// Where a view lies, so that overlap can be told without touching memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The allocation or address space; spans in different memories never overlap.
    pub memory: u64,
    /// The first byte in it.
    pub start: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Span {
    /// Whether the two share a byte. An empty span shares none.
    pub fn overlaps(&self, other: &Self) -> bool {
        // Widened, so that a span at the top of the address space does not wrap.
        let end = |s: &Self| u128::from(s.start) + u128::from(s.bytes);
        self.memory == other.memory
            && self.bytes > 0
            && other.bytes > 0
            && u128::from(self.start) < end(other)
            && u128::from(other.start) < end(self)
    }
}

/// A borrowed, contiguous run of elements, tagged with its type at run time.
pub trait View {
    /// The element type.
    fn dtype(&self) -> DType;
    /// How many elements.
    fn elements(&self) -> u64;
    /// Where they lie.
    fn span(&self) -> Span;

    /// Whether the memory behind the view can be used at all: it is as large as the view says, and made for this.
    ///
    /// # Errors
    ///
    /// [`BindError::Unusable`] or [`BindError::Misaligned`].
    fn check(&self, operand: Operand) -> Result<(), BindError> {
        let _ = operand;
        Ok(())
    }
}

/// Memory, queue and errors of one kind of device.
pub trait Backend: Sized {
    /// The name in reports, test names and benchmark rows.
    const NAME: &'static str;
    /// A view to read.
    type Ref<'a>: View;
    /// A view to write. What it holds before is never read, unless the operand says so (a step's state).
    type Mut<'a>: View;
    /// Where a launch is enqueued: a stream, an encoder, nothing.
    type Queue<'q>;
    /// What the device can say while work is enqueued.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Whether this backend value can use the view: its device, its usage, more alignment than the type's.
    ///
    /// # Errors
    ///
    /// [`BindError::ForeignDevice`], [`BindError::Unusable`] or [`BindError::Misaligned`].
    fn check_view(&self, operand: Operand, view: &dyn View) -> Result<(), BindError> {
        let _ = (operand, view);
        Ok(())
    }
}

/// One op on one backend.
pub trait Kernel<O: Op>: Backend {
    /// What the plan has worked out for the launch; private to the backend, so that only it can make a plan.
    type Detail: Clone + std::fmt::Debug + Send + Sync;

    /// Picks the algorithm and tiles. Launches nothing, allocates nothing on the device.
    ///
    /// # Errors
    ///
    /// [`PlanError`] when the backend cannot serve the problem.
    fn plan(&self, op: &O, options: &PlanOptions) -> Result<Plan<O, Self>, PlanError>;

    /// Enqueues the work of a bound call.
    ///
    /// # Errors
    ///
    /// The device's own. Nothing that [`Plan::bind`] can foresee comes up here.
    fn launch<'q>(&self, call: Bound<'_, '_, O, Self>, queue: Self::Queue<'q>) -> Result<(), Self::Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_overlap_only_where_they_share_a_byte() {
        let span = |memory, start, bytes| Span { memory, start, bytes };
        assert!(span(0, 0, 8).overlaps(&span(0, 7, 1)));
        assert!(!span(0, 0, 8).overlaps(&span(0, 8, 8)));
        assert!(!span(0, 0, 8).overlaps(&span(1, 0, 8)));
        assert!(!span(0, 4, 0).overlaps(&span(0, 0, 8)), "an empty span inside another");
        assert!(span(0, u64::MAX - 4, 8).overlaps(&span(0, u64::MAX - 1, 8)), "no wrap at the top");
    }
}
