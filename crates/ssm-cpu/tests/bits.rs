//! Not a bit depends on the number of threads, the algorithm or the memory tile, in any type, forward and backward.

use std::sync::Arc;

use ssm_core::{Algorithm, DType, GatedScan, GatedScanBuilder, Grads, MemoryTile};
use ssm_cpu::CpuBackend;
use ssm_testkit::{Erased, HostHarness, Subject, Values, draw, rng, seed};

fn with_threads(threads: usize) -> Arc<dyn Subject> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let backend = CpuBackend::new().with_pool(Arc::new(pool));
    Arc::new(Erased(Arc::new(HostHarness { backend })))
}

/// Runs a problem in every way there is and compares all with one thread that marches.
fn check(problem: GatedScanBuilder, name: &str) {
    let backends = [1, 2, 3, 7].map(|threads| (threads, with_threads(threads)));
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let problem = problem.clone().dtype(dtype).initial_state(true).final_state(true).build().unwrap();
        let inputs = draw(Values::Usual, &problem, true, &mut rng(name));
        let grads = Grads::all(&problem);
        let expected = backends[0].1.train(&problem, grads, Some(Algorithm::March), &inputs).unwrap();
        for (threads, backend) in &backends {
            for algorithm in [None, Some(Algorithm::March), Some(Algorithm::Chunked)] {
                for (batch, channels) in [(None, None), (Some(1), Some(17))] {
                    let tile = MemoryTile { batch, channels };
                    let tiled = problem.to_builder().tile(tile).build().unwrap();
                    let ran = backend.train(&tiled, grads, algorithm, &inputs).unwrap();
                    for ((operand, one), (_, other)) in expected.outputs.iter().zip(&ran.outputs) {
                        assert!(
                            one.same_bits(other),
                            "{name}: {operand} in {dtype}, {threads} threads, {algorithm:?}, {tile:?}, SSM_SEED={}",
                            seed()
                        );
                    }
                }
            }
        }
    }
}

// More than 7 · 2^15 elements each, so that every one of seven threads is given work.

#[test]
fn few_long_rows() {
    check(GatedScan::builder(1, 12_001, 20), "few_long_rows");
}

#[test]
fn many_rows_backwards() {
    check(GatedScan::builder(7, 521, 67).reverse(true), "many_rows_backwards");
}

#[test]
fn packed_sequences() {
    check(GatedScan::builder(1, 5000, 50).cu_seqlens(&[0, 0, 1, 64, 700, 4300, 4990]), "packed_sequences");
}

#[test]
fn more_channels_than_a_tile() {
    check(GatedScan::builder(1, 100, 2500), "more_channels_than_a_tile");
}
