//! A backend under test with its types erased, and the one way the suite runs it: every operand inside a larger buffer
//! with guards on both sides, every output poisoned, every report checked against what was asked.

use std::sync::Arc;

use ssm_core::{
    Algorithm, Backend, BackwardArgs, BindError, DType, ForwardArgs, GatedScan, Grads, Kernel, Op, Operand,
    PlanError, PlanOptions, Report, RunError, ScanBackward, ScanForward, ScanStep, StepArgs,
};

use crate::oracle::{HostInputs, Inputs};
use crate::placed::{Placed, placer};
use crate::{Failure, Harness, HostTensor};

/// One of the ops.
#[derive(Clone, Debug)]
pub enum AnyOp {
    /// Forward.
    Forward(ScanForward),
    /// Backward.
    Backward(ScanBackward),
    /// Step; the state goes in as h0 and comes out as [`Operand::State`].
    Step(ScanStep),
}

impl AnyOp {
    /// The op's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Forward(_) => <ScanForward as Op>::NAME,
            Self::Backward(_) => <ScanBackward as Op>::NAME,
            Self::Step(_) => <ScanStep as Op>::NAME,
        }
    }
}

/// A mistake to make in the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// One element too many.
    Length(Operand),
    /// Another element type.
    Type(Operand),
    /// Left out where it is wanted, given where it is not.
    Presence(Operand),
    /// A workspace one element short.
    Workspace,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// What to compute.
    pub op: &'a AnyOp,
    /// With which algorithm; the backend's choice when `None`.
    pub algorithm: Option<Algorithm>,
    /// On what.
    pub inputs: &'a HostInputs,
    /// What forward saved, for backward.
    pub saved: Option<&'a HostTensor>,
    /// With which mistake.
    pub tamper: Option<Tamper>,
    /// Elements before each operand in its buffer. 256 bytes' worth when `None`.
    pub offset: Option<usize>,
}

impl<'a> Call<'a> {
    /// A call without mistakes.
    pub fn new(op: &'a AnyOp, algorithm: Option<Algorithm>, inputs: &'a HostInputs) -> Self {
        Self { op, algorithm, inputs, saved: None, tamper: None, offset: None }
    }
}

/// What came of a call.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The plan's report.
    pub report: Report,
    /// Every output.
    pub outputs: Vec<(Operand, HostTensor)>,
}

impl Ran {
    /// The tensor of an output.
    pub fn get(&self, operand: Operand) -> Option<&HostTensor> {
        self.outputs.iter().find(|(o, _)| *o == operand).map(|(_, t)| t)
    }
}

/// Why there is no result, or not one to trust.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The plan was refused.
    #[error("plan: {0}")]
    Plan(#[from] PlanError),
    /// The operands were refused, and nothing was touched.
    #[error("bind: {0}")]
    Bind(#[from] BindError),
    /// The device failed, or the harness.
    #[error("device: {0}")]
    Device(Failure),
    /// An element outside the operand changed.
    #[error("{operand}: the launch wrote outside of it")]
    Guard {
        /// The operand beside it.
        operand: Operand,
    },
    /// An input changed.
    #[error("{operand}: the launch wrote to an input")]
    Input {
        /// The input.
        operand: Operand,
    },
    /// An output changed though the call was refused.
    #[error("{operand}: touched by a call that was refused")]
    Touched {
        /// The output.
        operand: Operand,
    },
    /// An operand that every call of the op has is not among the inputs.
    #[error("an input that the op always has was not given")]
    Incomplete,
    /// Another algorithm than the one asked for.
    #[error("asked for {asked}, the plan says {ran}")]
    Algorithm {
        /// Asked for.
        asked: Algorithm,
        /// What the report says.
        ran: Algorithm,
    },
    /// The report does not describe the problem, or forward and backward disagree about what is saved.
    #[error("the report's {field} is wrong: {report}")]
    Report {
        /// The field.
        field: &'static str,
        /// The report.
        report: Box<Report>,
    },
}

/// A backend under test, its types erased.
pub trait Subject: Send + Sync {
    /// The backend's name.
    fn name(&self) -> &'static str;
    /// The device, in words.
    fn device(&self) -> String;
    /// Whether the device has the storage type.
    fn supports(&self, dtype: DType) -> bool;
    /// Plans and reports.
    ///
    /// # Errors
    ///
    /// The backend's own.
    fn plan(&self, op: &AnyOp, algorithm: Option<Algorithm>) -> Result<Report, PlanError>;
    /// Plans, uploads, runs, waits, downloads and checks what surrounds the operands.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    fn run(&self, call: &Call<'_>) -> Result<Ran, CallError>;
}

impl dyn Subject + '_ {
    /// Forward and then backward over what it saved. The outputs of both in one list, with forward's report.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn train(
        &self,
        problem: &GatedScan,
        grads: Grads,
        algorithm: Option<Algorithm>,
        inputs: &Inputs,
    ) -> Result<Ran, CallError> {
        let host = inputs.host(problem);
        let forward = AnyOp::Forward(problem.forward());
        let mut ran = self.run(&Call::new(&forward, algorithm, &host))?;
        let backward = problem.backward(grads).map_err(PlanError::from)?;
        let backward = if inputs.d_final_state.is_some() { backward.with_final_state() } else { backward };
        let backward = AnyOp::Backward(backward);
        let saved = ran.get(Operand::Saved);
        let after = self.run(&Call { saved, ..Call::new(&backward, algorithm, &host) })?;
        ran.outputs.retain(|(operand, _)| *operand != Operand::Saved);
        ran.outputs.extend(after.outputs);
        Ok(ran)
    }

    /// Forward alone, what it saved left out.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn forward(
        &self,
        problem: &GatedScan,
        algorithm: Option<Algorithm>,
        inputs: &Inputs,
    ) -> Result<Ran, CallError> {
        let op = AnyOp::Forward(problem.forward());
        let mut ran = self.run(&Call::new(&op, algorithm, &inputs.host(problem)))?;
        ran.outputs.retain(|(operand, _)| *operand != Operand::Saved);
        Ok(ran)
    }
}

/// A harness as a [`Subject`].
pub struct Erased<H>(pub Arc<H>);

/// Checks a report against the op and what was asked.
fn checked(report: Report, problem: &GatedScan, algorithm: Option<Algorithm>) -> Result<Report, CallError> {
    if let Some(asked) = algorithm
        && asked != report.algorithm
    {
        return Err(CallError::Algorithm { asked, ran: report.algorithm });
    }
    let field = if report.shape != [problem.batch(), problem.len(), problem.channels()] {
        "shape"
    } else if report.dtype != problem.dtype() {
        "dtype"
    } else if report.checkpoint != problem.checkpoint() {
        "checkpoint"
    } else if report.chunk_len == 0 && report.algorithm != Algorithm::Sequential {
        "chunk_len"
    } else {
        return Ok(report);
    };
    Err(CallError::Report { field, report: Box::new(report) })
}

impl<H: Harness> Subject for Erased<H> {
    fn name(&self) -> &'static str {
        <H::Backend as Backend>::NAME
    }

    fn device(&self) -> String {
        self.0.device()
    }

    fn supports(&self, dtype: DType) -> bool {
        self.0.supports(dtype)
    }

    fn plan(&self, op: &AnyOp, algorithm: Option<Algorithm>) -> Result<Report, PlanError> {
        let (backend, options) = (self.0.backend(), PlanOptions { algorithm });
        Ok(match op {
            AnyOp::Forward(op) => backend.plan(op, &options)?.report().clone(),
            AnyOp::Backward(op) => backend.plan(op, &options)?.report().clone(),
            AnyOp::Step(op) => backend.plan(op, &options)?.report().clone(),
        })
    }

    fn run(&self, call: &Call<'_>) -> Result<Ran, CallError> {
        match call.op {
            AnyOp::Forward(op) => forward(&*self.0, op, call),
            AnyOp::Backward(op) => backward(&*self.0, op, call),
            AnyOp::Step(op) => step(&*self.0, op, call),
        }
    }
}

/// Reads and checks everything once the work is done.
fn finish<H: Harness>(
    harness: &H,
    ran: Result<(), RunError<<H::Backend as Backend>::Error>>,
    report: Report,
    inputs: &[&Option<Placed<H::Memory>>],
    outputs: Vec<Option<Placed<H::Memory>>>,
) -> Result<Ran, CallError> {
    harness.wait().map_err(CallError::Device)?;
    for input in inputs.iter().filter_map(|i| i.as_ref()) {
        input.unchanged(harness)?;
    }
    match ran {
        Ok(()) => {
            let outputs = outputs.into_iter().flatten().map(|o| o.take(harness));
            Ok(Ran { report, outputs: outputs.collect::<Result<_, _>>()? })
        }
        Err(RunError::Bind(refused)) => {
            for output in outputs.iter().flatten() {
                output.untouched(harness)?;
            }
            Err(refused.into())
        }
        Err(RunError::Device(device)) => Err(CallError::Device(Box::new(device))),
    }
}

fn forward<H: Harness>(h: &H, op: &ScanForward, call: &Call<'_>) -> Result<Ran, CallError> {
    let problem = call.problem();
    let plan = h.backend().plan(op, &PlanOptions { algorithm: call.algorithm })?;
    let report = checked(plan.report().clone(), problem, call.algorithm)?;
    let place = placer(h, call, &report);
    let (x, a) = (place.input(Operand::X)?, place.input(Operand::A)?);
    let (b, c, h0) = (place.input(Operand::B)?, place.input(Operand::C)?, place.input(Operand::H0)?);
    let mut y = place.output(Operand::Y, true)?;
    let mut last = place.output(Operand::FinalState, problem.wants_final_state())?;
    let mut saved = place.output(Operand::Saved, report.saved > 0)?;
    let mut work = place.workspace()?;
    let args = ForwardArgs {
        x: place.required(&x)?.read(h),
        a: place.required(&a)?.read(h),
        b: b.as_ref().map(|p| p.read(h)),
        c: c.as_ref().map(|p| p.read(h)),
        h0: h0.as_ref().map(|p| p.read(h)),
        y: place.required_mut(&mut y)?.write(h),
        final_state: last.as_mut().map(|p| p.write(h)),
        saved: saved.as_mut().map(|p| p.write(h)),
    };
    let work_view = work.as_mut().map(|p| p.write(h));
    let ran = h.submit(|queue| plan.run(h.backend(), args, work_view, queue));
    finish(h, ran, report, &[&x, &a, &b, &c, &h0], vec![y, last, saved]).and_then(|r| place.guarded(r, work))
}

fn backward<H: Harness>(h: &H, op: &ScanBackward, call: &Call<'_>) -> Result<Ran, CallError> {
    let (problem, grads) = (call.problem(), op.grads());
    let plan = h.backend().plan(op, &PlanOptions { algorithm: call.algorithm })?;
    let report = checked(plan.report().clone(), problem, call.algorithm)?;
    let given = call.saved.map_or(0, |s| s.len() as u64);
    if report.saved > 0 && report.saved != given && call.tamper.is_none() {
        return Err(CallError::Report { field: "saved (not what forward saved)", report: Box::new(report) });
    }
    let place = placer(h, call, &report);
    let (x, a) = (place.input(Operand::X)?, place.input(Operand::A)?);
    let (b, c, h0) = (place.input(Operand::B)?, place.input(Operand::C)?, place.input(Operand::H0)?);
    let (dy, d_last) = (place.input(Operand::Dy)?, place.input(Operand::DFinalState)?);
    let saved = place.input(Operand::Saved)?;
    let mut dx = place.output(Operand::Dx, grads.x)?;
    let mut da = place.output(Operand::Da, grads.a)?;
    let mut db = place.output(Operand::Db, grads.b)?;
    let mut dc = place.output(Operand::Dc, grads.c)?;
    let mut dh0 = place.output(Operand::Dh0, grads.h0)?;
    let mut work = place.workspace()?;
    let args = BackwardArgs {
        x: place.required(&x)?.read(h),
        a: place.required(&a)?.read(h),
        b: b.as_ref().map(|p| p.read(h)),
        c: c.as_ref().map(|p| p.read(h)),
        h0: h0.as_ref().map(|p| p.read(h)),
        saved: saved.as_ref().map(|p| p.read(h)),
        dy: place.required(&dy)?.read(h),
        d_final_state: d_last.as_ref().map(|p| p.read(h)),
        dx: dx.as_mut().map(|p| p.write(h)),
        da: da.as_mut().map(|p| p.write(h)),
        db: db.as_mut().map(|p| p.write(h)),
        dc: dc.as_mut().map(|p| p.write(h)),
        dh0: dh0.as_mut().map(|p| p.write(h)),
    };
    let work_view = work.as_mut().map(|p| p.write(h));
    let ran = h.submit(|queue| plan.run(h.backend(), args, work_view, queue));
    let inputs = [&x, &a, &b, &c, &h0, &saved, &dy, &d_last];
    finish(h, ran, report, &inputs, vec![dx, da, db, dc, dh0]).and_then(|r| place.guarded(r, work))
}

fn step<H: Harness>(h: &H, op: &ScanStep, call: &Call<'_>) -> Result<Ran, CallError> {
    let problem = call.problem();
    let plan = h.backend().plan(op, &PlanOptions { algorithm: call.algorithm })?;
    let report = checked(plan.report().clone(), problem, call.algorithm)?;
    let place = placer(h, call, &report);
    let (x, a) = (place.input(Operand::X)?, place.input(Operand::A)?);
    let (b, c) = (place.input(Operand::B)?, place.input(Operand::C)?);
    let mut y = place.output(Operand::Y, true)?;
    let mut state = place.state()?;
    let mut work = place.workspace()?;
    let args = StepArgs {
        x: place.required(&x)?.read(h),
        a: place.required(&a)?.read(h),
        b: b.as_ref().map(|p| p.read(h)),
        c: c.as_ref().map(|p| p.read(h)),
        y: place.required_mut(&mut y)?.write(h),
        state: place.required_mut(&mut state)?.write(h),
    };
    let work_view = work.as_mut().map(|p| p.write(h));
    let ran = h.submit(|queue| plan.run(h.backend(), args, work_view, queue));
    finish(h, ran, report, &[&x, &a, &b, &c], vec![y, state]).and_then(|r| place.guarded(r, work))
}
