//! The quick table under criterion, for those who want its statistics and plots: `cargo bench -p ssm-benches`.
//!
//! Throughput counts every full-size tensor once. `cargo xtask bench-all` measures the same cases beside the memory's
//! own bandwidth.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ssm_benches::case::cases;
use ssm_benches::devices::find;

fn scan(criterion: &mut Criterion) {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.as_nanos() as u64);
    // The oracle of the conformance suite is a backend too, but nothing to measure.
    for device in find().devices.into_iter().filter(|d| d.backend() != "reference") {
        let mut group = criterion.benchmark_group(device.backend());
        for case in cases(device.scale(), true).into_iter().filter(|c| device.supports(c.dtype)) {
            group.throughput(Throughput::Bytes(case.bytes()));
            // Inputs are made only for cases that criterion's filter lets through.
            group.bench_function(case.to_string(), |bencher| match device.timer(&case, seed) {
                Ok(mut timer) => bencher.iter_custom(|launches| {
                    let seconds = timer(usize::try_from(launches).unwrap_or(usize::MAX));
                    Duration::from_secs_f64(seconds.unwrap_or_else(|why| panic!("{case}: {why}")))
                }),
                Err(why) => panic!("{case}: {why}"),
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(300));
    targets = scan
}
criterion_main!(benches);
