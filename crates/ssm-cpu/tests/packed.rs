//! More packed sequences than 16 bits count.

use std::sync::Arc;

use ssm_core::{Algorithm, GatedScan, Grads};
use ssm_cpu::CpuBackend;
use ssm_testkit::oracle::run;
use ssm_testkit::{Erased, HostHarness, Subject, Values, check_outputs, draw, rng};

#[test]
fn seventy_thousand_sequences() {
    // Lengths 0, 1, 2, 3 and back; a few rows of slack.
    let cu: Vec<usize> = std::iter::once(0)
        .chain((0..70_001usize).scan(0, |end, i| {
            *end += [0, 1, 2, 3, 1][i % 5];
            Some(*end)
        }))
        .collect();
    let len = cu[cu.len() - 1] + 5;
    let problem = GatedScan::builder(1, len, 3).cu_seqlens(&cu).initial_state(true).final_state(true);
    let problem = problem.build().unwrap();
    assert_eq!(problem.sequences(), 70_001);
    let inputs = draw(Values::Usual, &problem, true, &mut rng("seventy_thousand_sequences"));
    let expected = run(&problem, &inputs);
    let backend = CpuBackend::new();
    let subject: Arc<dyn Subject> = Arc::new(Erased(Arc::new(HostHarness { backend })));
    for algorithm in [Algorithm::March, Algorithm::Chunked] {
        let ran = subject.train(&problem, Grads::all(&problem), Some(algorithm), &inputs).unwrap();
        check_outputs(&problem, &ran, &expected).unwrap();
    }
}
