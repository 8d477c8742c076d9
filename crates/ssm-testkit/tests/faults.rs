//! A suite that cannot fail proves nothing: each of these faults, put into a backend that otherwise passes, is reported.
//!
//! The gradient of an operand that nobody asked for cannot be among them: its view is not there to write to.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ssm_core::{
    Algorithm, Backend, Bound, DType, GatedScan, Kernel, Op, Plan, PlanError, PlanOptions, ScanBackward,
    ScanForward, ScanStep, View,
};
use ssm_testkit::oracle::{Inputs, Outputs, run};
use ssm_testkit::rows::{sequences, slack};
use ssm_testkit::{
    Check, Erased, Failure, Harness, HostMut, HostRef, HostTensor, Subject, checks, host_mut, host_ref,
    report,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The last element of y is not written.
    MissingElement,
    /// One step of y is the step before it.
    WrongStep,
    /// da from h[t] instead of h[t-1].
    SwappedH,
    /// The carry into the second chunk is lost.
    CarryDropped,
    /// Carry and gate products are rounded to f32 at every chunk.
    CarryInF32,
    /// Rows past the last sequence are not written.
    SlackUnwritten,
    /// Packed sequences begin with the state that the one before them ended with.
    BoundaryCrossed,
    FinalGradientIgnored,
    InitialStateIgnored,
    ReverseIgnored,
    /// A gate of 0 gives NaN: 0 times an infinity somewhere.
    ZeroGateNan,
    /// One NaN spoils all of y.
    NanSpreads,
    /// NaN and Inf are read as 0.
    NanSwallowed,
    /// Results as coarse as f16.
    Coarse,
    /// The element after an output is written.
    WritesPastTheEnd,
    /// Whatever is asked for, another algorithm runs.
    OtherAlgorithm,
    /// The state comes back as it went in.
    StateNotWritten,
    /// The last bits depend on how often it ran.
    DependsOnTheRun,
    /// The last bits depend on the size of the batch.
    DependsOnTheBatch,
    /// The last bits depend on the memory tile.
    DependsOnTheTile,
    /// The last bits depend on the number of channels.
    DependsOnTheChannels,
    /// The last bits depend on whether time is chunked.
    DependsOnTheAlgorithm,
}

/// The oracle as a backend, with a fault.
#[derive(Debug)]
struct Faulty {
    fault: Option<Fault>,
    runs: AtomicUsize,
}

impl Backend for Faulty {
    const NAME: &'static str = "faulty";
    type Ref<'a> = HostRef<'a>;
    type Mut<'a> = HostMut<'a>;
    type Queue<'q> = ();
    type Error = Infallible;
}

impl Faulty {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn plan<O: Op>(&self, op: &O, options: &PlanOptions) -> Result<Plan<O, Self>, PlanError>
    where
        Self: Kernel<O, Detail = ()>,
    {
        let asked = options.algorithm.unwrap_or(Algorithm::March);
        let algorithm = if self.has(Fault::OtherAlgorithm) { Algorithm::Sequential } else { asked };
        let mut report = report(op, Self::NAME, algorithm, false)?;
        report.workspace_bytes = 64;
        Ok(Plan::new(op.clone(), report, ()))
    }

    fn compute(&self, problem: &GatedScan, mut inputs: Inputs, algorithm: Algorithm) -> Outputs {
        let (len, d) = (problem.len(), problem.channels());
        let mut problem = problem.clone();
        let none = inputs.x.is_empty();
        match self.fault {
            Some(Fault::FinalGradientIgnored) => inputs.d_final_state = None,
            Some(Fault::InitialStateIgnored) => inputs.h0 = None,
            Some(Fault::ReverseIgnored) => problem = problem.to_builder().reverse(false).build().unwrap(),
            Some(Fault::CarryDropped) if len > 64 => inputs.a[64 * d..65 * d].fill(0.0),
            Some(Fault::NanSwallowed) => {
                inputs.x.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = 0.0);
            }
            _ => {}
        }
        let mut out = run(&problem, &inputs);
        match self.fault {
            Some(Fault::MissingElement) if !none => *out.y.last_mut().unwrap() = f64::NAN,
            Some(Fault::WrongStep) if len > 40 => out.y.copy_within(39 * d..40 * d, 40 * d),
            Some(Fault::SwappedH) => {
                (0..out.da.len()).for_each(|i| out.da[i] = out.h[i] * out.g[i]);
            }
            Some(Fault::CarryInF32) => {
                out.y = fold_in_f32(&problem, &inputs);
            }
            Some(Fault::SlackUnwritten) => {
                slack(&problem).for_each(|row| out.y[row * d..(row + 1) * d].fill(f64::NAN));
            }
            Some(Fault::BoundaryCrossed) if problem.cu_seqlens().is_some() => {
                for s in sequences(&problem).into_iter().filter(|s| s.rows.start > 0 && !s.rows.is_empty()) {
                    for i in s.rows.start * d..(s.rows.start + 1) * d {
                        out.y[i] += inputs.a[i] * out.h[i - d];
                    }
                }
            }
            Some(Fault::ZeroGateNan) => {
                (0..out.y.len()).filter(|&i| inputs.a[i] == 0.0).for_each(|i| out.y[i] = f64::NAN);
            }
            Some(Fault::NanSpreads) if inputs.x.iter().any(|v| v.is_nan()) => out.y.fill(f64::NAN),
            Some(Fault::Coarse) => out.y = HostTensor::from_f64(DType::F16, &out.y).to_f64(),
            Some(Fault::StateNotWritten) => out.final_state = inputs.h0.unwrap_or_default(),
            _ => {}
        }
        let third_run = self.runs.fetch_add(1, Ordering::Relaxed).is_multiple_of(3);
        let nudged = match self.fault {
            Some(Fault::DependsOnTheRun) => third_run,
            Some(Fault::DependsOnTheBatch) => problem.batch() > 1,
            Some(Fault::DependsOnTheTile) => problem.tile().channels.is_some(),
            Some(Fault::DependsOnTheChannels) => d > 50,
            Some(Fault::DependsOnTheAlgorithm) => algorithm == Algorithm::Chunked,
            _ => false,
        };
        if nudged {
            out.final_state.iter_mut().for_each(|v| *v *= 1.0 + 2f64.powi(-21));
        }
        out
    }
}

/// y of an unpacked forward problem, exact but for the carry from chunk to chunk.
fn fold_in_f32(problem: &GatedScan, inputs: &Inputs) -> Vec<f64> {
    let (len, d) = (problem.len(), problem.channels());
    let mut y = vec![0.0; inputs.x.len()];
    let at = |v: &Option<Vec<f64>>, i: usize| v.as_ref().map_or(1.0, |v| v[i]);
    for (row, channel) in (0..problem.batch()).flat_map(|b| (0..d).map(move |c| (b, c))) {
        let mut carry = inputs.h0.as_ref().map_or(0.0, |h| h[row * d + channel]) as f32;
        for chunk in (0..len).step_by(64) {
            let (mut h, mut s, mut p) = (f64::from(carry), 0.0, 1.0);
            for t in chunk..(chunk + 64).min(len) {
                let i = (row * len + t) * d + channel;
                let u = at(&inputs.b, i) * inputs.x[i];
                (h, s, p) = (inputs.a[i] * h + u, inputs.a[i] * s + u, inputs.a[i] * p);
                y[i] = at(&inputs.c, i) * h;
            }
            carry = p as f32 * carry + s as f32;
        }
    }
    y
}

fn read(view: &HostRef<'_>) -> Vec<f64> {
    (0..view.elements() as usize).map(|i| view.get(i)).collect()
}

fn write(view: Option<HostMut<'_>>, values: &[f64]) {
    if let Some(mut view) = view {
        values.iter().enumerate().for_each(|(i, v)| view.set(i, *v));
    }
}

macro_rules! kernel {
    ($op:ty, |$faulty:ident, $problem:ident, $algorithm:ident, $args:ident| $launch:expr) => {
        impl Kernel<$op> for Faulty {
            type Detail = ();

            fn plan(&self, op: &$op, options: &PlanOptions) -> Result<Plan<$op, Self>, PlanError> {
                Faulty::plan(self, op, options)
            }

            fn launch<'q>(&self, call: Bound<'_, '_, $op, Self>, (): ()) -> Result<(), Infallible> {
                let parts = call.into_parts();
                let $algorithm = parts.plan.report().algorithm;
                let ($faulty, $problem, $args) = (self, parts.plan.op().problem(), parts.args);
                $launch;
                Ok(())
            }
        }
    };
}

kernel!(ScanForward, |faulty, problem, algorithm, args| {
    let inputs = Inputs {
        x: read(&args.x),
        a: read(&args.a),
        b: args.b.as_ref().map(read),
        c: args.c.as_ref().map(read),
        h0: args.h0.as_ref().map(read),
        dy: vec![0.0; args.x.elements() as usize],
        d_final_state: None,
    };
    let out = faulty.compute(problem, inputs, algorithm);
    write(Some(args.y), &out.y);
    write(args.final_state, &out.final_state);
});

kernel!(ScanBackward, |faulty, problem, algorithm, args| {
    let inputs = Inputs {
        x: read(&args.x),
        a: read(&args.a),
        b: args.b.as_ref().map(read),
        c: args.c.as_ref().map(read),
        h0: args.h0.as_ref().map(read),
        dy: read(&args.dy),
        d_final_state: args.d_final_state.as_ref().map(read),
    };
    let out = faulty.compute(problem, inputs, algorithm);
    write(args.dx, &out.dx);
    write(args.da, &out.da);
    write(args.db, &out.db);
    write(args.dc, &out.dc);
    write(args.dh0, &out.dh0);
});

kernel!(ScanStep, |faulty, problem, algorithm, args| {
    let inputs = Inputs {
        x: read(&args.x),
        a: read(&args.a),
        b: args.b.as_ref().map(read),
        c: args.c.as_ref().map(read),
        h0: Some((0..args.state.elements() as usize).map(|i| args.state.get(i)).collect()),
        dy: vec![0.0; args.x.elements() as usize],
        d_final_state: None,
    };
    let out = faulty.compute(problem, inputs, algorithm);
    write(Some(args.y), &out.y);
    write(Some(args.state), &out.final_state);
});

impl Harness for Faulty {
    type Backend = Self;
    type Memory = HostTensor;

    fn backend(&self) -> &Self {
        self
    }

    fn device(&self) -> String {
        format!("{:?}", self.fault)
    }

    fn supports(&self, dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::F64)
    }

    fn upload(&self, host: &HostTensor) -> Result<HostTensor, Failure> {
        Ok(host.clone())
    }

    fn download(&self, memory: &HostTensor) -> Result<HostTensor, Failure> {
        Ok(memory.clone())
    }

    fn view<'a>(&self, memory: &'a HostTensor, range: Range<usize>) -> HostRef<'a> {
        host_ref(memory, range)
    }

    fn view_mut<'a>(&self, memory: &'a mut HostTensor, range: Range<usize>) -> HostMut<'a> {
        if self.has(Fault::WritesPastTheEnd) {
            host_mut(memory, range.end..range.end + 1).set(0, 0.0);
        }
        host_mut(memory, range)
    }

    fn submit<R>(&self, enqueue: impl FnOnce(()) -> R) -> R {
        enqueue(())
    }

    fn wait(&self) -> Result<(), Failure> {
        Ok(())
    }
}

fn suite(fault: Option<Fault>) -> Vec<Check> {
    let subject: Arc<dyn Subject> = Arc::new(Erased(Arc::new(Faulty { fault, runs: AtomicUsize::new(0) })));
    checks("faulty", &subject).into_iter().filter(|check| !check.ignored).collect()
}

#[test]
fn without_a_fault_the_suite_passes() {
    // The unsupported types are planned all the same here, which only their own check minds.
    for check in suite(None).into_iter().filter(|c| !c.name.contains("unsupported_type")) {
        if let Err(error) = (check.run)() {
            panic!("{}: {error}", check.name);
        }
    }
}

#[test]
fn every_fault_is_reported() {
    let table = [
        (Fault::MissingElement, "scan::len_1::f32"),
        (Fault::MissingElement, "scan::channels_1000::f32"),
        (Fault::WrongStep, "scan::len_1000::f32"),
        (Fault::WrongStep, "golden::readme::f32"),
        (Fault::SwappedH, "scan::grads_a::f32"),
        (Fault::CarryDropped, "scan::len_65::f32"),
        (Fault::CarryDropped, "law::split_anywhere"),
        (Fault::CarryInF32, "scan::million_steps::f32::march"),
        (Fault::SlackUnwritten, "scan::packed_slack::f32"),
        (Fault::SlackUnwritten, "scan::packed_none::f32"),
        (Fault::BoundaryCrossed, "scan::packed_off_grid::f32"),
        (Fault::BoundaryCrossed, "bitwise::packed_is_separate"),
        (Fault::FinalGradientIgnored, "scan::len_3::f32"),
        (Fault::FinalGradientIgnored, "scan::no_steps::f32"),
        (Fault::InitialStateIgnored, "scan::len_3::f32"),
        (Fault::ReverseIgnored, "law::reverse_of_reversed"),
        (Fault::ReverseIgnored, "golden::reverse"),
        (Fault::ZeroGateNan, "scan::zero_gates::f32"),
        (Fault::NanSpreads, "scan::contaminated"),
        (Fault::NanSwallowed, "scan::contaminated"),
        (Fault::Coarse, "scan::len_64::f32"),
        (Fault::WritesPastTheEnd, "scan::len_64::f32"),
        (Fault::WritesPastTheEnd, "errors::operands"),
        (Fault::OtherAlgorithm, "scan::len_64::f32::march"),
        (Fault::StateNotWritten, "step::batch_5_len_1::f32"),
        (Fault::StateNotWritten, "law::step_by_step"),
        (Fault::DependsOnTheRun, "bitwise::run_to_run"),
        (Fault::DependsOnTheBatch, "bitwise::batch_companions"),
        (Fault::DependsOnTheTile, "bitwise::memory_tiles"),
        (Fault::DependsOnTheChannels, "bitwise::channels_split"),
        (Fault::DependsOnTheAlgorithm, "bitwise::march_is_chunked"),
    ];
    for (fault, name) in table {
        let picked: Vec<Check> = suite(Some(fault)).into_iter().filter(|c| c.name.contains(name)).collect();
        assert!(!picked.is_empty(), "no check is called {name}");
        let reported = picked.into_iter().filter_map(|check| (check.run)().err()).count();
        assert!(reported > 0, "{fault:?} passes {name}");
    }
}
