//! One run over every device: what `cargo xtask bench-all` does.

use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ssm_testkit::Failure;
use ssm_testkit::drift::{Drift, Probe};

use crate::case::{Case, cases, probes};
use crate::devices::{Device, Found};
use crate::measure::Budget;
use crate::results::{Absent, Condition, ErrorRow, Host, Results, SCHEMA, Skipped};

/// The float64 oracle of the conformance suite, as a backend: nothing to measure unless it is asked for by name.
const ORACLE: &str = "reference";

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The quick table and budget.
    pub quick: bool,
    /// These backends only; all when empty.
    pub backends: Vec<String>,
    /// Cases whose `backend/name` contains this.
    pub filter: Option<String>,
}

impl Options {
    fn wants_backend(&self, backend: &str) -> bool {
        match self.backends.as_slice() {
            [] => backend != ORACLE,
            names => names.iter().any(|name| name == backend),
        }
    }

    fn wants_case(&self, backend: &str, case: &str) -> bool {
        self.filter.as_ref().is_none_or(|text| format!("{backend}/{case}").contains(text.as_str()))
    }
}

/// Measures every case that is wanted. What fails is in `skipped`, with the reason.
pub fn run(found: Found, options: &Options) -> Results {
    // 53 bits: every reader of JSON keeps them.
    let seed = StdRng::from_os_rng().random::<u64>() >> 11;
    let mut results = Results {
        schema: SCHEMA,
        host: Host::read(options.quick, seed),
        results: Vec::new(),
        absent: found.absent,
        skipped: Vec::new(),
        errors: Vec::new(),
        curves: Vec::new(),
    };
    results.absent.retain(|a| options.wants_backend(&a.backend));
    for name in &options.backends {
        let known = found.devices.iter().any(|d| d.backend() == name);
        if !known && !results.absent.iter().any(|a| a.backend == *name) {
            let why = "no such backend in this build".to_owned();
            results.absent.push(Absent { backend: name.clone(), why });
        }
    }
    let devices = || {
        let all = found.devices.iter().map(AsRef::as_ref);
        all.filter(|device: &&dyn Device| options.wants_backend(device.backend()))
    };
    let work: Vec<(&dyn Device, Case)> = devices()
        .flat_map(|device| cases(device.scale(), options.quick).into_iter().map(move |case| (device, case)))
        .filter(|(device, case)| options.wants_case(device.backend(), &case.to_string()))
        .collect();
    let bar = progress(work.len() as u64);
    let budget = if options.quick { Budget::QUICK } else { Budget::FULL };
    for (i, (device, case)) in work.into_iter().enumerate() {
        bar.set_message(format!("{}/{case}", device.backend()));
        // Inputs differ from case to case; the blocks of one tensor count up from its seed.
        let outcome = device.measure(&case, budget, seed.wrapping_add((i as u64) << 48));
        match outcome {
            Ok(m) => results.results.push(m.row(device.backend(), &device.describe(), &case)),
            Err(why) => results.skipped.push(skipped(device, case.to_string(), &why)),
        }
        bar.inc(1);
    }
    results.host.after = Some(Condition::read());
    for device in devices() {
        errors(device, options, &bar, &mut results);
    }
    bar.finish_and_clear();
    results
}

fn skipped(device: &dyn Device, case: String, why: &Failure) -> Skipped {
    Skipped { backend: device.backend().to_owned(), case, why: why.to_string() }
}

/// The errors of one device against float64.
fn errors(device: &dyn Device, options: &Options, bar: &ProgressBar, results: &mut Results) {
    for probe in probes(device.scale(), options.quick) {
        let Probe { gates, dtype, len, .. } = probe;
        let case = format!("{}/error/{dtype}/{len}/{}", Case::OP, gates.name());
        if !options.wants_case(device.backend(), &case) {
            continue;
        }
        bar.set_message(format!("{}/{case}", device.backend()));
        let row = |drift: Drift| ErrorRow {
            backend: device.backend().to_owned(),
            device: device.describe(),
            op: Case::OP.to_owned(),
            gates: gates.name().to_owned(),
            dtype: dtype.name().to_owned(),
            algorithm: drift.algorithm.name().to_owned(),
            len,
            output: drift.operand.name().to_owned(),
            error: drift.error.is_finite().then_some(drift.error),
        };
        match device.drift(&probe) {
            Ok(measured) => results.errors.extend(measured.into_iter().map(row)),
            Err(why) => results.skipped.push(skipped(device, case, &why)),
        }
    }
}

fn progress(len: u64) -> ProgressBar {
    let bar = ProgressBar::new(len);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (left {eta}) {msg}") {
        bar.set_style(style);
    }
    bar
}
