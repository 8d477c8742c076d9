//! The order in which chunks are combined, checked exactly.
//!
//! Gates of 1, -1, 2 and 1/2 and small integers for x keep every product and sum exact, in f32 too: there is no rounding
//! to hide behind. The maps h → p·h + s do not commute, so a fold that swaps, drops or repeats a chunk, or takes the
//! carry of another, gives other numbers.

use std::sync::Arc;

use ssm_core::{Algorithm, DType, GatedScan, Grads};
use ssm_cpu::CpuBackend;
use ssm_testkit::oracle::{Inputs, run};
use ssm_testkit::{Erased, HostHarness, Subject};

/// Exact inputs: each channel multiplies at other steps, and never past 2^6 either way.
fn inputs(problem: &GatedScan) -> Inputs {
    let d = problem.channels();
    let n = problem.elements() as usize;
    let hash = |i: usize| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    let mut exponent = vec![0i32; d];
    let mut a = vec![1.0; n];
    for (i, gate) in a.iter_mut().enumerate() {
        let draw = hash(i);
        let up = match draw % 29 {
            0 if exponent[i % d] < 6 => 1,
            1 if exponent[i % d] > -6 => -1,
            _ => 0,
        };
        exponent[i % d] += up;
        *gate = 2f64.powi(up) * if draw / 29 % 17 == 0 { -1.0 } else { 1.0 };
    }
    // Sparse and small: sums stay below 2^24 units of the finest product.
    let sparse = |salt: usize| -> Vec<f64> {
        let value =
            |i: usize| if hash(i + salt) % 31 == 0 { (hash(i + salt) / 31 % 7) as f64 - 3.0 } else { 0.0 };
        (0..n).map(value).collect()
    };
    let state = || Some((0..problem.state_elements() as usize).map(|i| (i % 5) as f64 - 2.0).collect());
    Inputs { x: sparse(1), a, b: None, c: None, h0: state(), dy: sparse(n + 7), d_final_state: state() }
}

#[test]
fn chunks_are_combined_in_order() {
    for dtype in [DType::F32, DType::F64] {
        for reverse in [false, true] {
            // 40,003 steps: 626 chunks, several groups for each thread, the last chunk cut short.
            let problem = GatedScan::builder(1, 40_003, 6)
                .dtype(dtype)
                .b(false)
                .c(false)
                .initial_state(true)
                .final_state(true)
                .reverse(reverse)
                .build()
                .unwrap();
            let inputs = inputs(&problem);
            let expected = run(&problem, &inputs);
            for threads in [1, 2, 3, 7] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let backend = CpuBackend::new().with_pool(Arc::new(pool));
                let subject: Arc<dyn Subject> = Arc::new(Erased(Arc::new(HostHarness { backend })));
                for algorithm in [Algorithm::March, Algorithm::Chunked] {
                    let grads = Grads { x: true, h0: true, ..Grads::default() };
                    let ran = subject.train(&problem, grads, Some(algorithm), &inputs).unwrap();
                    for (operand, tensor) in &ran.outputs {
                        let (got, expected) = (tensor.to_f64(), expected.get(*operand).unwrap());
                        let wrong = got.iter().zip(expected).position(|(got, expected)| got != expected);
                        assert_eq!(
                            wrong,
                            None,
                            "{operand} in {dtype}, {threads} threads, {algorithm}: chunk {:?}",
                            wrong.map(|i| i / 6 / 64)
                        );
                    }
                }
            }
        }
    }
}
