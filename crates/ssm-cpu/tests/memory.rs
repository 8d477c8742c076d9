//! Mistakes in live memory are told before anything is touched, and what a workspace held before changes nothing.

use std::sync::Arc;

use ssm_core::{
    Algorithm, BackwardArgs, BindError, Checkpoint, DType, ForwardArgs, GatedScan, Grads, Kernel, Operand,
    Plan, PlanOptions, RunError, ScanBackward, ScanForward,
};
use ssm_cpu::{CpuBackend, CpuMut, CpuRef};

/// Elements of x, a and y each.
const N: usize = 2 * 70 * 5;

fn plan(backend: &CpuBackend) -> Plan<ScanForward, CpuBackend> {
    let problem = GatedScan::builder(2, 70, 5).b(false).c(false).checkpoint(Checkpoint::Nothing).build();
    Kernel::<ScanForward>::plan(backend, &problem.unwrap().forward(), &PlanOptions::default()).unwrap()
}

/// Runs with x, a and y at these byte offsets of one buffer; the answer, and whether the buffer is as it was.
fn place(
    x: usize,
    a: usize,
    y: usize,
    workspace: Option<usize>,
) -> (Result<(), RunError<std::convert::Infallible>>, bool) {
    let backend = CpuBackend::new();
    let plan = plan(&backend);
    let before: Vec<f32> = (0..4 * N).map(|i| (i % 97) as f32 / 128.0).collect();
    let mut buffer = before.clone();
    let base = buffer.as_mut_ptr().cast::<u8>();
    let mut own = vec![0f64; plan.report().workspace_bytes.div_ceil(8) as usize];
    let own_len = own.len();
    // SAFETY: every view lies in the buffer, which nobody else touches; where they overlap, the call is refused before
    // any of them is read or written.
    let (args, workspace) = unsafe {
        let args = ForwardArgs {
            x: CpuRef::from_raw(base.add(x), N, DType::F32),
            a: CpuRef::from_raw(base.add(a), N, DType::F32),
            b: None,
            c: None,
            h0: None,
            y: CpuMut::from_raw(base.add(y), N, DType::F32),
            final_state: None,
            saved: None,
        };
        let workspace = match workspace {
            Some(at) => CpuMut::from_raw(base.add(at), own_len, DType::F64),
            None => CpuMut::from_raw(own.as_mut_ptr().cast(), own_len, DType::F64),
        };
        (args, workspace)
    };
    let answer = plan.run(&backend, args, Some(workspace), ());
    (answer, buffer == before)
}

#[test]
fn overlap_and_misalignment_touch_nothing() {
    let bytes = 4 * N;
    let (answer, untouched) = place(0, bytes, 2 * bytes, None);
    assert_eq!(answer, Ok(()));
    assert!(!untouched, "a call in order writes y");
    let (answer, _) = place(0, 0, 2 * bytes, None);
    assert_eq!(answer, Ok(()), "two inputs may be one");

    let overlaps = [(0, Operand::X), (4, Operand::X), (2 * bytes - 4, Operand::A), (bytes, Operand::A)];
    for (y, other) in overlaps {
        let (answer, untouched) = place(0, bytes, y, None);
        assert_eq!(answer, Err(BindError::Overlap { output: Operand::Y, other }.into()), "y at {y}");
        assert!(untouched, "y at {y}");
    }
    for odd in [1, 2, 3] {
        for (operand, x, a, y) in [
            (Operand::X, odd, bytes + 4, 3 * bytes - 8),
            (Operand::A, 0, bytes + odd, 3 * bytes - 8),
            (Operand::Y, 0, bytes, 2 * bytes + odd),
        ] {
            let (answer, untouched) = place(x, a, y, None);
            assert!(
                matches!(answer, Err(RunError::Bind(BindError::Misaligned { operand: o, expected: 4, .. })) if o == operand),
                "{operand} off by {odd}: {answer:?}"
            );
            assert!(untouched, "{operand} off by {odd}");
        }
    }
}

#[test]
fn a_workspace_over_an_operand_is_refused() {
    let bytes = 4 * N;
    for (at, other) in [(0, Operand::X), (bytes.next_multiple_of(8), Operand::A)] {
        let (answer, untouched) = place(0, bytes, 2 * bytes, Some(at));
        assert_eq!(answer, Err(BindError::Overlap { output: Operand::Workspace, other }.into()));
        assert!(untouched);
    }
}

/// Forward and backward with every byte of the workspace, and of the outputs, set before.
fn train(fill: u8, algorithm: Algorithm, policy: Checkpoint, offset: usize) -> Vec<Vec<f32>> {
    let backend = CpuBackend::new();
    let problem = GatedScan::builder(2, 9000, 30).checkpoint(policy).build().unwrap();
    let n = problem.elements() as usize;
    let ramp = |k: usize| -> Vec<f32> { (0..n).map(|i| (i * k % 101) as f32 / 101.0).collect() };
    let (x, a, b, c, dy) = (ramp(3), ramp(7), ramp(11), ramp(13), ramp(17));
    let options = PlanOptions { algorithm: Some(algorithm) };
    let filled = |len: usize| vec![f32::from_bits(u32::from_ne_bytes([fill; 4])); len];
    let mut out: Vec<Vec<f32>> = (0..5).map(|_| filled(n)).collect();
    let [y, dx, da, db, dc] = &mut out[..] else { unreachable!("five were made") };

    let plan = Kernel::<ScanForward>::plan(&backend, &problem.forward(), &options).unwrap();
    let mut saved = filled(plan.report().saved as usize);
    let mut workspace = filled(offset + plan.report().workspace_bytes.div_ceil(4) as usize);
    let args = ForwardArgs {
        x: x[..].into(),
        a: a[..].into(),
        b: Some(b[..].into()),
        c: Some(c[..].into()),
        h0: None,
        y: y.as_mut_slice().into(),
        final_state: None,
        saved: (!saved.is_empty()).then(|| saved.as_mut_slice().into()),
    };
    plan.run(&backend, args, Some((&mut workspace[offset..]).into()), ()).unwrap();

    let op = problem.backward(Grads::all(&problem)).unwrap();
    let plan = Kernel::<ScanBackward>::plan(&backend, &op, &options).unwrap();
    let mut workspace = filled(offset + plan.report().workspace_bytes.div_ceil(4) as usize);
    let args = BackwardArgs {
        x: x[..].into(),
        a: a[..].into(),
        b: Some(b[..].into()),
        c: Some(c[..].into()),
        h0: None,
        saved: (!saved.is_empty()).then(|| saved[..].into()),
        dy: dy[..].into(),
        d_final_state: None,
        dx: Some(dx.as_mut_slice().into()),
        da: Some(da.as_mut_slice().into()),
        db: Some(db.as_mut_slice().into()),
        dc: Some(dc.as_mut_slice().into()),
        dh0: None,
    };
    plan.run(&backend, args, Some((&mut workspace[offset..]).into()), ()).unwrap();
    out
}

#[test]
fn what_the_workspace_held_changes_nothing() {
    for algorithm in [Algorithm::Sequential, Algorithm::March, Algorithm::Chunked] {
        for policy in Checkpoint::ALL {
            let clean = train(0, algorithm, policy, 0);
            assert!(clean.iter().flatten().all(|v| v.is_finite()));
            // 0xFF bytes are NaN in every type, and a count that no relay expects; the offset is a view's least alignment.
            for (fill, offset) in [(0xFF, 0), (0xFF, 1), (0x7F, 3)] {
                let dirty = train(fill, algorithm, policy, offset);
                assert!(clean == dirty, "{algorithm} {policy} filled with {fill:#x} at {offset}");
            }
        }
    }
}

/// The workspace grows with the threads and the width of a tile, not with the tensor.
#[test]
fn the_workspace_is_far_below_a_tensor() {
    for threads in [1, 2, 7] {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
        let backend = CpuBackend::new().with_pool(pool);
        for [batch, len, d] in
            [[4, 4096, 1024], [8, 2048, 512], [1, 262_144, 64], [1, 16_384, 1000], [1, 1 << 20, 64]]
        {
            let problem = GatedScan::builder(batch, len, d).build().unwrap();
            let tensor = 4 * problem.elements();
            let options = PlanOptions::default();
            let forward = Kernel::<ScanForward>::plan(&backend, &problem.forward(), &options).unwrap();
            let op = problem.backward(Grads::all(&problem)).unwrap();
            let backward = Kernel::<ScanBackward>::plan(&backend, &op, &options).unwrap();
            for report in [forward.report(), backward.report()] {
                let bytes = report.workspace_bytes;
                assert!(bytes <= threads as u64 * (1 << 19), "{threads} threads: {report}");
                assert!(bytes <= tensor / 8, "{threads} threads: {report}");
            }
        }
    }
}
