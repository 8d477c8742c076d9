//! The smallest backend: the plain loop in the accumulator type, on slices of the host.
//!
//! It shows what a backend has to provide, and it is what the suite is tried on. It is not fast.

use std::convert::Infallible;
use std::ops::{Add, Mul};

use half::{bf16, f16};
use ssm_core::{
    Algorithm, Backend, BackwardArgs, Bound, BoundParts, Checkpoint, DType, Element, ForwardArgs, GatedScan,
    Kernel, Op, Plan, PlanError, PlanOptions, Report, ScanBackward, ScanForward, ScanStep, Span, StepArgs,
    View,
};

use crate::rows::{Sequence, sequences, slack};

/// Steps between two saved states.
const CHUNK: usize = 64;

/// The plain loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceBackend;

/// A slice to read, tagged with its type.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each variant borrows elements of the type of that name")]
pub enum HostRef<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    F64(&'a [f64]),
}

/// A slice to write, tagged with its type.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant borrows elements of the type of that name")]
pub enum HostMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    Bf16(&'a mut [bf16]),
    F64(&'a mut [f64]),
}

macro_rules! on_slice {
    ($view:expr, $enum:ident, $s:ident => $body:expr) => {
        match $view {
            $enum::F32($s) => $body,
            $enum::F16($s) => $body,
            $enum::Bf16($s) => $body,
            $enum::F64($s) => $body,
        }
    };
}

fn span_of<E>(s: &[E]) -> Span {
    Span { memory: 0, start: s.as_ptr() as u64, bytes: size_of_val(s) as u64 }
}

fn dtype_of<E: Element>(_: &[E]) -> DType {
    E::DTYPE
}

impl View for HostRef<'_> {
    fn dtype(&self) -> DType {
        on_slice!(self, HostRef, s => dtype_of(s))
    }
    fn elements(&self) -> u64 {
        on_slice!(self, HostRef, s => s.len() as u64)
    }
    fn span(&self) -> Span {
        on_slice!(self, HostRef, s => span_of(s))
    }
}

impl View for HostMut<'_> {
    fn dtype(&self) -> DType {
        on_slice!(self, HostMut, s => dtype_of(s))
    }
    fn elements(&self) -> u64 {
        on_slice!(self, HostMut, s => s.len() as u64)
    }
    fn span(&self) -> Span {
        on_slice!(self, HostMut, s => span_of(s))
    }
}

impl HostRef<'_> {
    /// One element, exact.
    pub fn get(&self, i: usize) -> f64 {
        on_slice!(self, HostRef, s => Element::to_f64(s[i]))
    }
}

impl HostMut<'_> {
    /// One element, exact.
    pub fn get(&self, i: usize) -> f64 {
        on_slice!(self, HostMut, s => Element::to_f64(s[i]))
    }

    /// One element, rounded once.
    pub fn set(&mut self, i: usize, value: f64) {
        on_slice!(self, HostMut, s => s[i] = Element::from_f64(value));
    }
}

impl Backend for ReferenceBackend {
    const NAME: &'static str = "reference";
    type Ref<'a> = HostRef<'a>;
    type Mut<'a> = HostMut<'a>;
    type Queue<'q> = ();
    type Error = Infallible;
}

/// What every op's report says of the plain loop.
///
/// # Errors
///
/// [`PlanError::Overflow`] where chunks or saved elements leave 64 bits.
pub fn report<O: Op>(
    op: &O,
    backend: &'static str,
    algorithm: Algorithm,
    saves: bool,
) -> Result<Report, PlanError> {
    let p = op.problem();
    let chunks_of = |len: usize| len.div_ceil(CHUNK) as u64;
    let chunks = match p.cu_seqlens() {
        Some(_) => sequences(p).into_iter().map(|s| chunks_of(s.rows.len())).sum(),
        None => (p.batch() as u64).checked_mul(chunks_of(p.len())).ok_or(PlanError::Overflow)?,
    };
    let d = p.channels() as u64;
    let saved = match p.checkpoint() {
        Checkpoint::ChunkStates if saves => chunks.checked_mul(d).ok_or(PlanError::Overflow)?,
        Checkpoint::FullH if saves => p.elements(),
        _ => 0,
    };
    let bytes = p.elements().saturating_mul(p.dtype().size());
    Ok(Report {
        backend,
        op: O::NAME,
        shape: [p.batch(), p.len(), p.channels()],
        dtype: p.dtype(),
        checkpoint: p.checkpoint(),
        algorithm,
        chunk_len: CHUNK,
        chunks,
        workspace_bytes: 0,
        saved,
        bytes_read: bytes.saturating_mul(4),
        bytes_written: bytes,
    })
}

fn plan<O: Op>(op: &O, options: &PlanOptions, saves: bool) -> Result<Plan<O, ReferenceBackend>, PlanError>
where
    ReferenceBackend: Kernel<O, Detail = ()>,
{
    match options.algorithm {
        None | Some(Algorithm::Sequential) => {
            let report = report(op, ReferenceBackend::NAME, Algorithm::Sequential, saves)?;
            Ok(Plan::new(op.clone(), report, ()))
        }
        Some(algorithm) => {
            Err(PlanError::UnsupportedAlgorithm { backend: ReferenceBackend::NAME, algorithm })
        }
    }
}

/// Arithmetic in the accumulator type.
trait Real: Element + Add<Output = Self> + Mul<Output = Self> {}
impl Real for f32 {}
impl Real for f64 {}

fn or_one<A: Real>(view: &Option<HostRef<'_>>, i: usize) -> A {
    view.as_ref().map_or(A::from_f64(1.0), |v| A::from_f64(v.get(i)))
}

fn or_zero<A: Real>(view: &Option<HostRef<'_>>, i: usize) -> A {
    view.as_ref().map_or(A::default(), |v| A::from_f64(v.get(i)))
}

fn at<A: Real>(view: &HostRef<'_>, i: usize) -> A {
    A::from_f64(view.get(i))
}

/// Where the chunk states of a sequence begin: those of the sequences before it lie back to back.
fn first_chunks(problem: &GatedScan) -> impl Iterator<Item = (Sequence, usize)> {
    let starts = |first: &mut usize, s: Sequence| {
        let here = *first;
        *first += s.rows.len().div_ceil(CHUNK);
        Some((s, here))
    };
    sequences(problem).into_iter().scan(0, starts)
}

fn forward<A: Real>(problem: &GatedScan, args: ForwardArgs<'_, ReferenceBackend>) {
    let ForwardArgs { x, a, b, c, h0, mut y, mut final_state, mut saved } = args;
    let d = problem.channels();
    for (sequence, first) in first_chunks(problem) {
        for channel in 0..d {
            let mut h: A = or_zero(&h0, sequence.index * d + channel);
            for (t, row) in sequence.in_time(problem.is_reverse()).enumerate() {
                let i = row * d + channel;
                if let (Some(s), Checkpoint::ChunkStates, 0) = (&mut saved, problem.checkpoint(), t % CHUNK) {
                    s.set((first + t / CHUNK) * d + channel, h.to_f64());
                }
                h = at::<A>(&a, i) * h + or_one::<A>(&b, i) * at::<A>(&x, i);
                if let (Some(s), Checkpoint::FullH) = (&mut saved, problem.checkpoint()) {
                    s.set(i, h.to_f64());
                }
                y.set(i, (or_one::<A>(&c, i) * h).to_f64());
            }
            if let Some(last) = &mut final_state {
                last.set(sequence.index * d + channel, h.to_f64());
            }
        }
    }
    for i in slack(problem).flat_map(|row| row * d..(row + 1) * d) {
        y.set(i, 0.0);
    }
}

fn backward<A: Real>(problem: &GatedScan, args: BackwardArgs<'_, ReferenceBackend>) {
    let BackwardArgs { x, a, b, c, h0, saved, dy, d_final_state, mut dx, mut da, mut db, mut dc, mut dh0 } =
        args;
    let (d, reverse) = (problem.channels(), problem.is_reverse());
    for (sequence, first) in first_chunks(problem) {
        let len = sequence.rows.len();
        for channel in 0..d {
            let state = sequence.index * d + channel;
            let index = |row: usize| row * d + channel;
            let step = |h: A, i: usize| at::<A>(&a, i) * h + or_one::<A>(&b, i) * at::<A>(&x, i);
            let mut back: A = or_zero(&d_final_state, state);
            for chunk in (0..len.div_ceil(CHUNK)).rev() {
                let begin = chunk * CHUNK;
                // h before each step of the chunk, and after its last.
                let mut h = [A::default(); CHUNK + 1];
                h[0] = match (&saved, problem.checkpoint()) {
                    (Some(s), Checkpoint::ChunkStates) => at(s, (first + chunk) * d + channel),
                    (Some(s), Checkpoint::FullH) if begin > 0 => {
                        sequence.in_time(reverse).nth(begin - 1).map_or(A::default(), |row| at(s, index(row)))
                    }
                    _ => sequence.in_time(reverse).take(begin).map(index).fold(or_zero(&h0, state), step),
                };
                let rows = || sequence.in_time(reverse).skip(begin).take(CHUNK).map(index);
                for (k, i) in rows().enumerate() {
                    h[k + 1] = step(h[k], i);
                }
                for (k, i) in rows().enumerate().rev() {
                    let g = or_one::<A>(&c, i) * at::<A>(&dy, i) + back;
                    let put = |out: &mut Option<HostMut<'_>>, value: A| {
                        if let Some(out) = out {
                            out.set(i, value.to_f64());
                        }
                    };
                    put(&mut dx, or_one::<A>(&b, i) * g);
                    put(&mut da, h[k] * g);
                    put(&mut db, at::<A>(&x, i) * g);
                    put(&mut dc, at::<A>(&dy, i) * h[k + 1]);
                    back = at::<A>(&a, i) * g;
                }
            }
            if let Some(dh0) = &mut dh0 {
                dh0.set(state, back.to_f64());
            }
        }
    }
    for i in slack(problem).flat_map(|row| row * d..(row + 1) * d) {
        for out in [&mut dx, &mut da, &mut db, &mut dc].into_iter().flatten() {
            out.set(i, 0.0);
        }
    }
}

fn step<A: Real>(problem: &GatedScan, args: StepArgs<'_, ReferenceBackend>) {
    let StepArgs { x, a, b, c, mut y, mut state } = args;
    let d = problem.channels();
    for sequence in sequences(problem) {
        for channel in 0..d {
            let at_state = sequence.index * d + channel;
            let mut h: A = A::from_f64(state.get(at_state));
            for i in sequence.in_time(false).map(|row| row * d + channel) {
                h = at::<A>(&a, i) * h + or_one::<A>(&b, i) * at::<A>(&x, i);
                y.set(i, (or_one::<A>(&c, i) * h).to_f64());
            }
            state.set(at_state, h.to_f64());
        }
    }
}

/// One op: its plan, and its loop in either accumulator.
macro_rules! kernel {
    ($op:ty, $loop:ident, $saves:expr) => {
        impl Kernel<$op> for ReferenceBackend {
            type Detail = ();

            fn plan(&self, op: &$op, options: &PlanOptions) -> Result<Plan<$op, Self>, PlanError> {
                plan(op, options, $saves(op))
            }

            fn launch<'q>(&self, call: Bound<'_, '_, $op, Self>, (): ()) -> Result<(), Infallible> {
                let BoundParts { plan, args, .. } = call.into_parts();
                match plan.op().problem().accumulator() {
                    DType::F64 => $loop::<f64>(plan.op().problem(), args),
                    _ => $loop::<f32>(plan.op().problem(), args),
                }
                Ok(())
            }
        }
    };
}

kernel!(ScanForward, forward, |_: &ScanForward| true);
kernel!(ScanBackward, backward, |op: &ScanBackward| op.grads().need_h());
kernel!(ScanStep, step, |_: &ScanStep| false);
