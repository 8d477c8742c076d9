//! Plans on devices that are not here.

use ssm_core::{Algorithm, Checkpoint, DType, GatedScan, Grads, MemoryTile, PlanError, PlanOptions, Report};

use crate::DeviceLimits;
use crate::kernels::{Direction, Entry, Target, Walk};
use crate::plan::{Detail, GRID_MAX, backward, forward, step};

const H200: DeviceLimits = DeviceLimits {
    capability: (9, 0),
    multiprocessors: 132,
    shared_per_multiprocessor: 228 << 10,
    shared_per_block: 227 << 10,
    threads_per_multiprocessor: 2048,
    blocks_per_multiprocessor: 32,
};
const A100: DeviceLimits = DeviceLimits {
    capability: (8, 0),
    multiprocessors: 108,
    shared_per_multiprocessor: 164 << 10,
    shared_per_block: 163 << 10,
    ..H200
};
/// A consumer Ampere: the A100's kernels, less shared memory, fewer threads and blocks.
const RTX3080: DeviceLimits = DeviceLimits {
    capability: (8, 6),
    multiprocessors: 68,
    shared_per_multiprocessor: 100 << 10,
    shared_per_block: 99 << 10,
    threads_per_multiprocessor: 1536,
    blocks_per_multiprocessor: 16,
};
const T4: DeviceLimits = DeviceLimits {
    capability: (7, 5),
    multiprocessors: 40,
    shared_per_multiprocessor: 64 << 10,
    shared_per_block: 64 << 10,
    threads_per_multiprocessor: 1024,
    blocks_per_multiprocessor: 16,
};
const DEVICES: [DeviceLimits; 4] = [H200, A100, RTX3080, T4];
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Sequential, Algorithm::March, Algorithm::Chunked];

fn scan(b: usize, l: usize, d: usize) -> ssm_core::GatedScan {
    GatedScan::builder(b, l, d).build().unwrap()
}

fn with(algorithm: Algorithm) -> PlanOptions {
    PlanOptions { algorithm: Some(algorithm) }
}

fn plan_backward(p: &GatedScan, limits: &DeviceLimits) -> (Report, Detail) {
    backward(&p.backward(Grads::all(p)).unwrap(), limits, &PlanOptions::default()).unwrap()
}

#[test]
fn every_plan_names_an_entry_and_stays_within_the_device() {
    let entries = Entry::all();
    let shapes =
        [(1, 1, 1), (8, 2048, 4096), (1, 1 << 20, 64), (70_000, 3, 5), (4, 2048, 16), (3, 0, 7), (0, 5, 5)];
    for limits in DEVICES {
        for (b, l, d) in shapes {
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                for out in [dtype, DType::F32] {
                    let p = GatedScan::builder(b, l, d)
                        .dtype(dtype)
                        .out_dtype(out)
                        .checkpoint(Checkpoint::Nothing)
                        .build()
                        .unwrap();
                    for options in ALGORITHMS.map(with).into_iter().chain([PlanOptions::default()]) {
                        let f = forward(&p.forward(), &limits, &options).unwrap();
                        let b = backward(&p.backward(Grads::all(&p)).unwrap(), &limits, &options).unwrap();
                        if let Some(asked) = options.algorithm {
                            assert_eq!((f.0.algorithm, b.0.algorithm), (asked, asked));
                        }
                        let passes = [f.1.pass, b.1.pass, b.1.carry.unwrap()];
                        for pass in passes.iter().flat_map(crate::plan::Passes::both) {
                            assert!(entries.contains(&pass.entry));
                            assert!(pass.shared <= limits.shared_per_block, "{pass:?}");
                            assert!(pass.threads <= 1024 && pass.threads % 32 == 0);
                            let columns = (d as u64).div_ceil(pass.lanes);
                            assert!(f.1.tile * columns * u64::from(pass.workers) <= GRID_MAX);
                        }
                    }
                    assert!(entries.contains(
                        &step(&p.step().unwrap(), &limits, &Default::default()).unwrap().1.pass.wide.entry
                    ));
                }
            }
        }
    }
}

#[test]
fn march_where_rows_fill_the_chip_and_chunks_where_they_do_not() {
    let choice = |limits: &DeviceLimits, p: &GatedScan| {
        limits.report(&p.forward(), &PlanOptions::default()).unwrap().algorithm
    };
    for limits in DEVICES {
        assert_eq!(choice(&limits, &scan(8, 65_536, 1536 * 8)), Algorithm::March);
        assert_eq!(choice(&limits, &scan(1, 1 << 20, 64)), Algorithm::Chunked);
        assert_eq!(choice(&limits, &scan(1, 5, 64)), Algorithm::March, "one chunk leaves nothing to split");
    }
    // One long sequence among short ones would keep one block busy long after the others are done.
    let mut cu: Vec<usize> = (0..=500).map(|i| i * 10).collect();
    cu.push(65_536);
    let uneven = GatedScan::builder(1, 65_536, 1024).cu_seqlens(&cu).build().unwrap();
    assert_eq!(choice(&H200, &uneven), Algorithm::Chunked);
}

/// A single warp copies two channels of f32 at a time, which rows of odd length do not begin on.
#[test]
fn a_march_goes_by_warps_only_over_whole_pieces() {
    let walk = |limits: &DeviceLimits, channels, dtype| {
        let p = GatedScan::builder(64, 2048, channels).dtype(dtype).build().unwrap();
        let (_, detail) = forward(&p.forward(), limits, &with(Algorithm::March)).unwrap();
        let Entry::Scan { walk, .. } = detail.pass.wide.entry else { panic!("a scan") };
        walk
    };
    assert_eq!(walk(&H200, 4096, DType::F32), Walk::March);
    assert_eq!(walk(&H200, 4095, DType::F32), Walk::Chunked);
    assert_eq!(walk(&H200, 4096, DType::Bf16), Walk::Chunked, "one warp is too busy");
    assert_eq!(walk(&T4, 4095, DType::F32), Walk::March, "which copies one channel at a time");
}

/// The grid along time and what forward leaves behind depend on neither the batch nor the algorithm.
#[test]
fn the_chunk_grid_is_fixed_by_length_and_type() {
    for dtype in [DType::F32, DType::F16] {
        let report = |b, d, algorithm| {
            let p = GatedScan::builder(b, 1000, d).dtype(dtype).build().unwrap();
            let r = H200.report(&p.forward(), &with(algorithm)).unwrap();
            (r.chunk_len, r.chunks / b as u64, r.saved / (b * d) as u64)
        };
        let first = report(1, 1, Algorithm::March);
        assert_eq!(first, report(7, 300, Algorithm::Chunked));
        assert_eq!(first, report(64, 4096, Algorithm::March));
    }
}

#[test]
fn a_chunked_plan_splits_time_without_crowding_the_chip() {
    let p = scan(1, 1 << 20, 64);
    for limits in DEVICES {
        let (report, detail) = forward(&p.forward(), &limits, &with(Algorithm::Chunked)).unwrap();
        let pass = detail.pass.wide;
        let columns = 64 / pass.lanes;
        let blocks = columns * u64::from(pass.workers);
        assert!(blocks >= u64::from(limits.multiprocessors), "{blocks} blocks");
        assert!(pass.work_bytes > 0 && report.workspace_bytes >= pass.work_bytes);
        let crowded = forward(&scan(4096, 1000, 64).forward(), &limits, &with(Algorithm::Chunked)).unwrap().1;
        assert_eq!((crowded.pass.wide.workers, crowded.pass.wide.work_bytes), (1, 0));
    }
}

#[test]
fn saved_states_and_workspace_follow_the_policy() {
    let base = GatedScan::builder(3, 100, 10);
    let plan = |policy| {
        let p = base.clone().checkpoint(policy).build().unwrap();
        let f = H200.report(&p.forward(), &PlanOptions::default()).unwrap();
        let (b, _) = plan_backward(&p, &H200);
        assert_eq!(f.saved, b.saved, "{policy}");
        (f, b)
    };
    let save = Target::Sm90.row(DType::F32).unwrap().save;
    let (nothing, states, full) =
        (plan(Checkpoint::Nothing), plan(Checkpoint::ChunkStates), plan(Checkpoint::FullH));
    assert_eq!(nothing.0.saved, 0);
    assert_eq!(states.0.saved, 3 * 100u64.div_ceil(save) * 10);
    assert_eq!(full.0.saved, 3000);
    assert!(nothing.1.workspace_bytes >= states.0.saved * 4);
    assert!(nothing.1.bytes_moved() > states.1.bytes_moved());
    // dx alone needs no h, so it needs no states either.
    let p = base.checkpoint(Checkpoint::Nothing).build().unwrap();
    let dx = p.backward(Grads { x: true, ..Grads::default() }).unwrap();
    assert!(backward(&dx, &H200, &PlanOptions::default()).unwrap().1.carry.is_none());
}

#[test]
fn a_memory_tile_bounds_the_workspace() {
    let base = GatedScan::builder(1000, 10_000, 64).checkpoint(Checkpoint::Nothing);
    let whole = plan_backward(&base.clone().build().unwrap(), &H200);
    let tile = MemoryTile { batch: Some(10), channels: None };
    let tiled = plan_backward(&base.tile(tile).build().unwrap(), &H200);
    assert_eq!((whole.1.tile, tiled.1.tile), (1000, 10));
    assert!(tiled.0.workspace_bytes < whole.0.workspace_bytes / 50);
}

#[test]
fn sizes_past_32_bits_are_ordinary() {
    let p = GatedScan::builder(1 << 16, 1 << 14, 64).checkpoint(Checkpoint::Nothing).build().unwrap();
    let (report, detail) = plan_backward(&p, &H200);
    assert!(report.workspace_bytes > 1 << 32);
    assert!(
        detail.workspace.bytes == report.workspace_bytes && detail.workspace.work <= report.workspace_bytes
    );
    // More rows than one grid holds take several launches.
    let (_, detail) = forward(&scan(1 << 33, 1, 64).forward(), &H200, &PlanOptions::default()).unwrap();
    assert!(detail.tile <= GRID_MAX && detail.tile >= GRID_MAX / 2);
}

#[test]
fn what_cannot_be_is_an_error() {
    let f64 = GatedScan::builder(1, 1, 1).dtype(DType::F64).build().unwrap();
    let error = forward(&f64.forward(), &H200, &PlanOptions::default()).unwrap_err();
    assert_eq!(error, PlanError::UnsupportedType { backend: "cuda", dtype: DType::F64 });
    let p = scan(1, 1, 1);
    let error = step(&p.step().unwrap(), &H200, &with(Algorithm::Chunked)).unwrap_err();
    assert!(matches!(error, PlanError::UnsupportedAlgorithm { .. }));
    let small = DeviceLimits { shared_per_block: 1 << 10, ..H200 };
    let error = forward(&p.forward(), &small, &PlanOptions::default()).unwrap_err();
    assert!(matches!(error, PlanError::UnsupportedAlgorithm { .. }));
    let wide = GatedScan::builder(1, 0, 1 << 40).build().unwrap();
    let error = forward(&wide.forward(), &H200, &with(Algorithm::March)).unwrap_err();
    assert!(matches!(error, PlanError::TooLargeForDevice { .. }));
}

#[test]
fn stages_fit_the_sequence_and_the_device() {
    let pass = |limits: &DeviceLimits, l| {
        backward(
            &scan(1000, l, 64).backward(Grads { x: true, ..Grads::default() }).unwrap(),
            limits,
            &with(Algorithm::March),
        )
        .unwrap()
        .1
        .pass
        .wide
    };
    let row = Target::Sm90.row(DType::F32).unwrap();
    assert_eq!(u64::from(pass(&H200, 1).stages), row.least_stages(Direction::Backward, Walk::March));
    assert_eq!(u64::from(pass(&H200, 1 << 20).stages), row.stages(Direction::Backward, Walk::March));
}

/// What benches/peers launches from Python is what a plan would: the file has every launch of its shapes. Where a plan
/// changed on purpose, `SSM_WRITE_LAUNCHES=1` writes it anew.
#[test]
fn the_peers_script_launches_as_plans_do() {
    let shapes = [
        [8, 2048, 4096],
        [1, 1 << 20, 64],
        [1, 65_536, 1024],
        [8, 65_536, 1536],
        [4, 2048, 16],
        [2, 300, 64],
    ];
    let mut lines = Vec::new();
    for limits in [H200, A100] {
        for [b, l, d] in shapes {
            let variants = [("plain", true), ("h-only", false)];
            let types = [DType::F32, DType::F16, DType::Bf16];
            for (dtype, (variant, gates)) in types.iter().flat_map(|t| variants.map(|v| (*t, v))) {
                let p = GatedScan::builder(b, l, d).dtype(dtype).b(gates).c(gates).build().unwrap();
                let forward = forward(&p.forward(), &limits, &PlanOptions::default()).unwrap();
                for (op, (report, detail)) in [("forward", forward), ("backward", plan_backward(&p, &limits))]
                {
                    let pass = detail.pass.wide;
                    assert!(detail.tile >= b as u64, "one launch");
                    let columns = (d as u64).div_ceil(pass.lanes);
                    let (major, minor) = limits.capability;
                    lines.push(format!(
                        "{{\"capability\": [{major}, {minor}], \"multiprocessors\": {}, \"op\": \"{op}\", \
                         \"dtype\": \"{dtype}\", \"shape\": [{b}, {l}, {d}], \"variant\": \"{variant}\", \"algorithm\": \"{}\", \
                         \"entry\": \"{}\", \"grid\": {}, \"threads\": {}, \"shared\": {}, \"stages\": {}, \
                         \"workers\": {}, \"work_bytes\": {}}}",
                        limits.multiprocessors,
                        report.algorithm,
                        pass.entry.name(),
                        columns * b as u64 * u64::from(pass.workers),
                        pass.threads,
                        pass.shared,
                        pass.stages,
                        pass.workers,
                        pass.work_bytes,
                    ));
                }
            }
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/peers/launches.json");
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    if std::env::var_os("SSM_WRITE_LAUNCHES").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let stands = std::fs::read_to_string(path).unwrap();
    for (stands, planned) in stands.lines().zip(text.lines()) {
        assert_eq!(stands, planned, "SSM_WRITE_LAUNCHES=1 writes the file anew");
    }
    assert_eq!(stands.len(), text.len(), "SSM_WRITE_LAUNCHES=1 writes the file anew");
}
