//! Every backend through the conformance suite. `SSM_REQUIRE=cpu,wgpu,cuda` fails where one of those has no device,
//! `SSM_SEED` repeats a run, `SSM_GOLDEN_DIR` reads the golden vectors from elsewhere.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use ssm_testkit::{Harness, golden_trials, required, trials};
use ssm_tests::{Visitor, each_backend};

struct Collect(Vec<Trial>);

impl Visitor for Collect {
    fn visit<H: Harness + 'static>(&mut self, name: &'static str, harness: Result<Arc<H>, String>) {
        self.0.extend(trials(name, harness, required(name)));
    }
}

fn main() -> ExitCode {
    let mut collect = Collect(golden_trials());
    each_backend(&mut collect);
    libtest_mimic::run(&Arguments::from_args(), collect.0).exit_code()
}
