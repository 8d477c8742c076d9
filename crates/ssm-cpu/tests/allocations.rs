//! A launch allocates next to nothing: all of its memory is the caller's workspace, and that is small.

use std::sync::Arc;

use ssm_core::{
    Algorithm, BackwardArgs, Checkpoint, DType, ForwardArgs, GatedScan, Grads, Kernel, Op, Plan, PlanOptions,
    ScanBackward, ScanForward,
};
use ssm_cpu::{CpuBackend, CpuMut};
use ssm_testkit::memory::{Counting, peak};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn run<O: Op>(plan: &Plan<O, CpuBackend>, backend: &CpuBackend, args: O::Args<'_, CpuBackend>) -> usize
where
    CpuBackend: Kernel<O>,
{
    let mut workspace = vec![0u64; plan.report().workspace_bytes.div_ceil(8) as usize];
    // SAFETY: the vector is that large and outlives the launch; every bit pattern is an f64.
    let view = Some(unsafe { CpuMut::from_raw(workspace.as_mut_ptr().cast(), workspace.len(), DType::F64) });
    peak(|| plan.run(backend, args, view, ()).unwrap())
}

/// What a launch may allocate for itself, however large the tensors are: a few pointers a worker.
const LAUNCH_BYTES: usize = 16 << 10;

// The only test of its process: the counters see every thread.
#[test]
fn a_launch_allocates_no_tensor() {
    for threads in [1, 4] {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
        let backend = CpuBackend::new().with_pool(pool);
        for (shape, policy) in [
            ([2, 2048, 256], Checkpoint::ChunkStates),
            ([2, 2048, 256], Checkpoint::Nothing),
            ([1, 65_536, 16], Checkpoint::ChunkStates),
            ([1, 65_536, 16], Checkpoint::Nothing),
            ([1, 65_536, 16], Checkpoint::FullH),
        ] {
            for algorithm in [Algorithm::Sequential, Algorithm::March, Algorithm::Chunked] {
                let [batch, len, d] = shape;
                let problem = GatedScan::builder(batch, len, d).checkpoint(policy).build().unwrap();
                let n = problem.elements() as usize;
                let (x, mut y) = (vec![0.5f32; n], vec![0f32; n]);
                let options = PlanOptions { algorithm: Some(algorithm) };
                let plan = Kernel::<ScanForward>::plan(&backend, &problem.forward(), &options).unwrap();
                let mut saved = vec![0f32; plan.report().saved as usize];
                let args = ForwardArgs {
                    x: x[..].into(),
                    a: x[..].into(),
                    b: Some(x[..].into()),
                    c: Some(x[..].into()),
                    h0: None,
                    y: y.as_mut_slice().into(),
                    final_state: None,
                    saved: (!saved.is_empty()).then(|| saved.as_mut_slice().into()),
                };
                let forward = run(&plan, &backend, args);
                let op = problem.backward(Grads::all(&problem)).unwrap();
                let plan = Kernel::<ScanBackward>::plan(&backend, &op, &options).unwrap();
                let mut grads: [Vec<f32>; 4] = std::array::from_fn(|_| vec![0f32; n]);
                let [dx, da, db, dc] = &mut grads;
                let args = BackwardArgs {
                    x: x[..].into(),
                    a: x[..].into(),
                    b: Some(x[..].into()),
                    c: Some(x[..].into()),
                    h0: None,
                    saved: (!saved.is_empty()).then(|| saved[..].into()),
                    dy: x[..].into(),
                    d_final_state: None,
                    dx: Some(dx.as_mut_slice().into()),
                    da: Some(da.as_mut_slice().into()),
                    db: Some(db.as_mut_slice().into()),
                    dc: Some(dc.as_mut_slice().into()),
                    dh0: None,
                };
                let backward = run(&plan, &backend, args);
                for (pass, bytes) in [("forward", forward), ("backward", backward)] {
                    assert!(
                        bytes <= LAUNCH_BYTES,
                        "{pass} {shape:?} {policy} {algorithm}, {threads} threads: {bytes} bytes"
                    );
                }
            }
        }
    }
}
