//! Every backend against the oracle and against every other, over random shapes, types, options and values.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use ssm_core::{Backend, Checkpoint, DType, GatedScan, Grads, MemoryTile};
use ssm_testkit::oracle::run;
use ssm_testkit::tolerance::allowance;
use ssm_testkit::{Erased, Failure, Harness, Ran, Subject, Values, check_outputs, draw, rng};
use ssm_tests::{Visitor, each_backend};

#[derive(Default)]
struct Present(Vec<(&'static str, Arc<dyn Subject>)>);

impl Visitor for Present {
    fn visit<H: Harness + 'static>(&mut self, name: &'static str, harness: Result<Arc<H>, String>) {
        // A backend's second device compiles everything again; the suite covers it.
        if let (true, Ok(harness)) = (name == H::Backend::NAME, harness) {
            self.0.push((name, Arc::new(Erased(harness))));
        }
    }
}

/// A problem, whether there is a dhT, the values and a seed for them.
type Drawn = (GatedScan, bool, Values, u64);

fn lengths() -> impl Strategy<Value = usize> {
    let around = prop::sample::select(vec![
        1usize, 2, 3, 15, 16, 17, 31, 33, 61, 63, 64, 65, 67, 127, 128, 129, 131, 191, 193, 251, 256, 257,
    ]);
    prop_oneof![4 => around, 1 => 0usize..400]
}

fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![prop::sample::select(vec![1usize, 2, 3, 7, 8, 9, 16, 17, 31, 33, 64, 65]), 0usize..40]
}

fn values() -> impl Strategy<Value = Values> {
    prop::sample::select(vec![
        Values::Usual,
        Values::ZeroGates,
        Values::AllZeroGates,
        Values::OneGates,
        Values::NegativeGates,
        Values::GrowingGates,
        Values::DenormalGates,
        Values::Underflow,
        Values::Contaminated,
    ])
}

fn problems() -> impl Strategy<Value = Drawn> {
    let dtype = prop::sample::select(DType::ALL.to_vec());
    let policy = prop::sample::select(Checkpoint::ALL.to_vec());
    let flags = any::<[bool; 7]>();
    let tile = (prop::option::of(1usize..4), prop::option::of(1usize..40));
    let cu = prop::option::of((vec(lengths(), 0..5), 0usize..20));
    (dtype, policy, flags, tile, cu, (0usize..4, lengths(), channels()), values(), any::<u64>()).prop_map(
        |(
            dtype,
            policy,
            [b, c, h0, last, d_last, reverse, wide],
            tile,
            cu,
            (batch, len, d),
            values,
            seed,
        )| {
            let ends = |(lens, slack): (Vec<usize>, usize)| {
                let sum = |end: &mut usize, len: usize| {
                    *end += len;
                    Some(*end)
                };
                let cu: Vec<usize> = std::iter::once(0).chain(lens.into_iter().scan(0, sum)).collect();
                let len = cu.last().copied().unwrap_or(0) + slack;
                (cu, len)
            };
            let packed = cu.map(ends);
            let (batch, len) = packed.as_ref().map_or((batch, len), |(_, len)| (1, *len));
            let mut builder = GatedScan::builder(batch, len, d)
                .dtype(dtype)
                .checkpoint(policy)
                .b(b)
                .c(c)
                .initial_state(h0)
                .final_state(last)
                .reverse(reverse)
                .tile(MemoryTile { batch: tile.0, channels: tile.1 });
            if wide && dtype != DType::F64 {
                builder = builder.out_dtype(DType::F32);
            }
            if let Some((cu, _)) = &packed {
                builder = builder.cu_seqlens(cu);
            }
            (builder.build().expect("a valid problem"), d_last, values, seed)
        },
    )
}

/// Whether two results agree to twice what each may be off.
fn check_pair(problem: &GatedScan, one: &Ran, two: &Ran) -> Result<(), Failure> {
    for (operand, tensor) in &one.outputs {
        let Some(other) = two.get(*operand) else { return Err(format!("{operand} is missing").into()) };
        let allowed = [one, two].map(|r| allowance(tensor.dtype(), r.report.algorithm));
        let shape = [problem.batch().max(1), 1, problem.channels()];
        let allowed = allowed.iter().sum();
        ssm_testkit::tolerance::compare_within(*operand, tensor, &other.to_f64(), shape, allowed)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn backends_agree_with_the_oracle_and_each_other((problem, d_last, values, seed) in problems()) {
        let mut present = Present::default();
        each_backend(&mut present);
        let inputs = draw(values, &problem, d_last, &mut rng(&seed.to_string()));
        let reference = run(&problem, &inputs);
        let mut before: Vec<(&str, Ran)> = Vec::new();
        for (name, backend) in present.0.into_iter().filter(|(_, b)| b.supports(problem.dtype())) {
            let ran = backend
                .train(&problem, Grads::all(&problem), None, &inputs)
                .map_err(|e| TestCaseError::fail(format!("{name}: {e}")))?;
            check_outputs(&problem, &ran, &reference)
                .map_err(|e| TestCaseError::fail(format!("{name}: {e}; SSM_SEED={}", ssm_testkit::seed())))?;
            for (other, theirs) in &before {
                check_pair(&problem, &ran, theirs)
                    .map_err(|e| TestCaseError::fail(format!("{name} against {other}: {e}")))?;
            }
            before.push((name, ran));
        }
    }
}
