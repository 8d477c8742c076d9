//! Every backend through the conformance suite. `SSM_REQUIRE=cpu,wgpu,cuda` fails where one of those has no device,
//! `SSM_SEED` repeats a run, `SSM_GOLDEN_DIR` reads the golden vectors from elsewhere.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use ssm_core::Backend;
use ssm_testkit::{Harness, golden_trials, required, trials};
use ssm_tests::{Visitor, each_backend, is_put_through};

struct Collect(Vec<Trial>);

impl Visitor for Collect {
    fn visit<H: Harness + 'static>(&mut self, name: &'static str, harness: Result<Arc<H>, String>) {
        // A second device of a backend is required with it.
        let absent = harness.is_err();
        let needed = required(name) || required(H::Backend::NAME);
        let all = trials(name, harness, needed);
        let before = types_and_algorithms(&all);
        let device = format!("{name}::device");
        let part: Vec<Trial> =
            all.into_iter().filter(|t| t.name() == device || is_put_through(name, t.name())).collect();
        let left_out: Vec<String> = before.difference(&types_and_algorithms(&part)).cloned().collect();
        self.0.extend(part);
        let whole = Trial::test(format!("{name}::meets_every_type_and_algorithm"), move || {
            if left_out.is_empty() { Ok(()) } else { Err(Failed::from(left_out.join(", "))) }
        });
        self.0.push(whole.with_ignored_flag(absent));
    }
}

/// The ends of the names of the cases: `type::algorithm`.
fn types_and_algorithms(trials: &[Trial]) -> BTreeSet<String> {
    let ends = |name: &str| name.splitn(4, "::").nth(3).map(str::to_owned);
    trials.iter().map(Trial::name).filter(|name| name.contains("::scan::")).filter_map(ends).collect()
}

fn main() -> ExitCode {
    let mut collect = Collect(golden_trials());
    each_backend(&mut collect);
    libtest_mimic::run(&Arguments::from_args(), collect.0).exit_code()
}
