//! Validation under any numbers at all: typed errors, never a panic. Views on paper have a type, a length and an
//! address, and no memory.

use std::convert::Infallible;

use proptest::collection::vec;
use proptest::prelude::*;
use ssm_core::{
    Algorithm, Backend, BindError, Bound, Checkpoint, DType, Element, ForwardArgs, GatedScan, Grads, Kernel,
    MemoryTile, Op, Operand, Plan, PlanError, PlanOptions, Report, ScanBackward, ScanForward, ScanStep, Span,
    View,
};
use ssm_testkit::{AnyOp, Erased, Harness, Subject};
use ssm_tests::{Visitor, each_backend};

/// A backend without memory.
#[derive(Debug)]
struct Paper;

#[derive(Clone, Copy, Debug)]
struct PaperView {
    dtype: DType,
    elements: u64,
    start: u64,
}

impl View for PaperView {
    fn dtype(&self) -> DType {
        self.dtype
    }
    fn elements(&self) -> u64 {
        self.elements
    }
    fn span(&self) -> Span {
        Span { memory: 0, start: self.start, bytes: self.elements.saturating_mul(self.dtype.size()) }
    }
}

impl Backend for Paper {
    const NAME: &'static str = "paper";
    type Ref<'a> = PaperView;
    type Mut<'a> = PaperView;
    type Queue<'q> = ();
    type Error = Infallible;
}

impl Kernel<ScanForward> for Paper {
    type Detail = ();

    fn plan(&self, op: &ScanForward, _: &PlanOptions) -> Result<Plan<ScanForward, Self>, PlanError> {
        let problem = op.problem();
        let report = Report {
            backend: Self::NAME,
            op: ScanForward::NAME,
            shape: [problem.batch(), problem.len(), problem.channels()],
            dtype: problem.dtype(),
            checkpoint: problem.checkpoint(),
            algorithm: Algorithm::Sequential,
            chunk_len: 64,
            chunks: 0,
            workspace_bytes: 0,
            saved: 0,
            bytes_read: 0,
            bytes_written: 0,
        };
        Ok(Plan::new(op.clone(), report, ()))
    }

    fn launch<'q>(&self, _: Bound<'_, '_, ScanForward, Self>, (): ()) -> Result<(), Infallible> {
        Ok(())
    }
}

fn sizes() -> impl Strategy<Value = usize> {
    let edges = vec![
        0,
        1,
        2,
        63,
        64,
        65,
        usize::MAX,
        usize::MAX - 1,
        usize::MAX / 2,
        isize::MAX as usize,
        isize::MAX as usize / 4,
        1 << 31,
        (1 << 31) + 1,
        1 << 32,
    ];
    prop_oneof![3 => prop::sample::select(edges), 2 => 0usize..1000, 1 => any::<usize>()]
}

fn dtypes() -> impl Strategy<Value = DType> {
    prop::sample::select(DType::ALL.to_vec())
}

/// Any problem that can be written down; most are not valid.
fn anything() -> impl Strategy<Value = Result<GatedScan, ssm_core::ProblemError>> {
    let cu = prop::option::of(prop_oneof![
        vec(sizes(), 0..6),
        vec(sizes(), 0..6).prop_map(|mut cu| {
            cu.push(0);
            cu.sort_unstable();
            cu
        }),
    ]);
    let policy = prop::sample::select(Checkpoint::ALL.to_vec());
    let tile = (prop::option::of(sizes()), prop::option::of(sizes()));
    let batch = prop_oneof![sizes(), Just(1usize)];
    let types = (dtypes(), prop::option::of(dtypes()));
    ((batch, sizes(), sizes()), types, cu, policy, tile, any::<[bool; 5]>()).prop_map(
        |((batch, len, d), (dtype, out), cu, policy, tile, [b, c, h0, last, reverse])| {
            let mut builder = GatedScan::builder(batch, len, d)
                .dtype(dtype)
                .b(b)
                .c(c)
                .initial_state(h0)
                .final_state(last)
                .reverse(reverse)
                .checkpoint(policy)
                .tile(MemoryTile { batch: tile.0, channels: tile.1 });
            if let Some(out) = out {
                builder = builder.out_dtype(out);
            }
            if let Some(cu) = &cu {
                builder = builder.cu_seqlens(cu);
            }
            builder.build()
        },
    )
}

/// Plans every op on every backend; whatever comes back, it comes back.
struct PlanAll<'a>(&'a GatedScan);

impl Visitor for PlanAll<'_> {
    fn visit<H: Harness + 'static>(&mut self, _: &'static str, harness: Result<std::sync::Arc<H>, String>) {
        let Ok(harness) = harness else { return };
        let subject = Erased(harness);
        let problem = self.0;
        let mut ops = vec![AnyOp::Forward(problem.forward())];
        let grads = [Grads::all(problem), Grads::default(), Grads { x: true, ..Grads::default() }];
        ops.extend(grads.into_iter().filter_map(|g| problem.backward(g).ok()).map(AnyOp::Backward));
        ops.extend(problem.step().ok().map(AnyOp::Step));
        for op in &ops {
            for algorithm in
                [None, Some(Algorithm::Sequential), Some(Algorithm::March), Some(Algorithm::Chunked)]
            {
                if let Ok(report) = subject.plan(op, algorithm) {
                    assert_eq!(report.shape, [problem.batch(), problem.len(), problem.channels()]);
                    assert!(algorithm.is_none_or(|asked| asked == report.algorithm));
                    let _ = report.to_string();
                    let _ = (report.saved_bytes(), report.bytes_moved());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_problem_is_built_and_planned_or_refused(problem in anything()) {
        if let Ok(problem) = problem {
            prop_assert!(problem.cu_seqlens().is_none_or(|cu| problem.batch() == 1 && cu[0] == 0));
            each_backend(&mut PlanAll(&problem));
        }
    }

    #[test]
    fn any_operands_are_bound_or_refused(
        problem in anything(),
        views in vec((dtypes(), prop_oneof![3 => Just(None), 1 => any::<u64>().prop_map(Some)], any::<u64>()), 7),
        given in any::<[bool; 4]>(),
        right in any::<bool>(),
    ) {
        let Ok(problem) = problem else { return Ok(()) };
        let plan = Paper.plan(&problem.forward(), &PlanOptions::default()).expect("paper plans everything");
        let view = |k: usize, dtype: DType, elements: u64| {
            let (other, length, start) = views[k];
            let dtype = if right { dtype } else { other };
            PaperView { dtype, elements: if right { elements } else { length.unwrap_or(elements) }, start }
        };
        let present = |k: usize, has: bool| if right { has } else { given[k] };
        let (n, s, t) = (problem.elements(), problem.state_elements(), problem.dtype());
        let acc = t.accumulator();
        let args = ForwardArgs::<Paper> {
            x: view(0, t, n),
            a: view(1, t, n),
            b: present(0, problem.has_b()).then(|| view(2, t, n)),
            c: present(1, problem.has_c()).then(|| view(3, t, n)),
            h0: present(2, problem.has_initial_state()).then(|| view(4, acc, s)),
            y: view(5, problem.out_dtype(), n),
            final_state: present(3, problem.wants_final_state()).then(|| view(6, acc, s)),
            saved: None,
        };
        let all = [Some(args.x), Some(args.a), args.b, args.c, args.h0, Some(args.y), args.final_state];
        let inputs_then_outputs: Vec<(bool, PaperView)> =
            all.into_iter().enumerate().filter_map(|(k, v)| v.map(|v| (k >= 5, v))).collect();
        let bound = plan.bind(&Paper, args, None);
        if right {
            // With types and lengths right, what is left to refuse is the addresses, and exactly those.
            let misaligned = inputs_then_outputs.iter().any(|(_, v)| v.elements > 0 && v.start % v.dtype.size() != 0);
            let overlap = inputs_then_outputs.iter().enumerate().any(|(i, (written, v))| {
                inputs_then_outputs[..i].iter().any(|(w, u)| (*written || *w) && v.span().overlaps(&u.span()))
            });
            match bound {
                Ok(_) => prop_assert!(!misaligned && !overlap),
                Err(BindError::Misaligned { .. }) => prop_assert!(misaligned),
                Err(BindError::Overlap { .. }) => prop_assert!(overlap),
                Err(other) => prop_assert!(false, "{other}"),
            }
        } else if bound.is_ok() {
            prop_assert!(inputs_then_outputs[0].1.elements == n);
        }
    }
}

/// An output over each operand in turn.
#[test]
fn overlap_and_alignment_name_their_operands() {
    let problem = GatedScan::builder(1, 4, 4).build().expect("a valid problem");
    let plan = Paper.plan(&problem.forward(), &PlanOptions::default()).expect("paper plans everything");
    let bind = |y: u64, c: u64| {
        let at = |start| PaperView { dtype: f32::DTYPE, elements: 16, start };
        let args = ForwardArgs::<Paper> {
            x: at(0),
            a: at(64),
            b: Some(at(128)),
            c: Some(at(c)),
            h0: None,
            y: at(y),
            final_state: None,
            saved: None,
        };
        plan.bind(&Paper, args, None).map(|_| ())
    };
    assert_eq!(bind(256, 192), Ok(()));
    assert_eq!(bind(256, 128), Ok(()), "two inputs may be one");
    for (y, other) in [(0, Operand::X), (100, Operand::A), (188, Operand::B), (252, Operand::C)] {
        assert_eq!(bind(y, 192), Err(BindError::Overlap { output: Operand::Y, other }));
    }
    let expected = BindError::Misaligned { operand: Operand::Y, expected: 4, address: 258 };
    assert_eq!(bind(258, 192), Err(expected));
}

/// Ops that the problem does not have are refused when they are made.
#[test]
fn ops_that_do_not_fit_are_refused() {
    let bare = GatedScan::builder(1, 4, 4).b(false).reverse(true).build().expect("a valid problem");
    let backward: Result<ScanBackward, _> = bare.backward(Grads { b: true, ..Grads::default() });
    assert!(matches!(backward, Err(ssm_core::ProblemError::NoSuchGradient { operand: Operand::B })));
    let step: Result<ScanStep, _> = bare.step();
    assert!(matches!(step, Err(ssm_core::ProblemError::NotAStep { .. })));
}
