//! The suite: one named trial a backend × case × type × algorithm.

mod bitwise;
mod errors;
mod giants;
mod golden;
mod laws;
mod scan;

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use ssm_core::{Algorithm, DType, GatedScan, Operand, Report};

use crate::oracle::Outputs;
use crate::tolerance::{Mismatch, allowance, compare_within};
use crate::{AnyOp, Erased, Failure, Harness, HostTensor, Ran, ReferenceHarness, Subject, seed};

pub use golden::golden_trials;

/// One named check, before a test runner gets hold of it.
pub struct Check {
    /// `backend::group::case::type::algorithm`, as far as each applies.
    pub name: String,
    /// Too large or too long to run unasked.
    pub ignored: bool,
    /// What it does.
    pub run: Box<dyn FnOnce() -> Result<(), Failure> + Send>,
}

/// A check that found the backend wanting, apart from those that [`crate::CallError`] and
/// [`crate::tolerance::Mismatch`] name.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// Two runs that must agree in every bit do not.
    #[error("{law}: {operand} differs at element {index}: {got} against {expected}")]
    Bits {
        /// What should hold.
        law: &'static str,
        /// The output.
        operand: Operand,
        /// The first element that differs.
        index: usize,
        /// One.
        expected: f64,
        /// The other.
        got: f64,
    },
    /// A call came back with other outputs than it was asked for.
    #[error("outputs {got:?}, expected {expected:?}")]
    Outputs {
        /// Asked for.
        expected: Vec<Operand>,
        /// Written.
        got: Vec<Operand>,
    },
    /// A case does not come out as the oracle says.
    #[error("{error}\nthe case is there for: {why}")]
    Case {
        /// Why the suite has it.
        why: &'static str,
        /// What is wrong.
        error: Failure,
    },
    /// A mistake was answered otherwise than by its error.
    #[error("{mistake}: expected {expected}, got {got}")]
    Answer {
        /// The mistake.
        mistake: String,
        /// The error.
        expected: String,
        /// What came.
        got: String,
    },
}

/// The trials of one backend.
///
/// With no harness, the trials are there but ignored, and fail when they are run all the same; when the backend is
/// `required` there is one more that fails with the reason.
pub fn trials<H: Harness + 'static>(
    name: &str,
    harness: Result<Arc<H>, String>,
    required: bool,
) -> Vec<Trial> {
    match harness {
        Ok(harness) => {
            checks(name, &(Arc::new(Erased(harness)) as Arc<dyn Subject>)).into_iter().map(trial).collect()
        }
        Err(reason) => {
            // The reference stands in, for the names.
            let stand_in: Arc<dyn Subject> = Arc::new(Erased(Arc::new(ReferenceHarness::default())));
            let mut trials: Vec<Trial> = checks(name, &stand_in)
                .into_iter()
                .map(|check| {
                    let reason = reason.clone();
                    Trial::test(check.name, move || Err(Failed::from(reason))).with_ignored_flag(true)
                })
                .collect();
            if required {
                trials.push(Trial::test(format!("{name}::device"), move || Err(Failed::from(reason))));
            }
            trials
        }
    }
}

/// Whether `SSM_REQUIRE`, a list separated by commas, holds the backend's name.
pub fn required(name: &str) -> bool {
    std::env::var("SSM_REQUIRE").is_ok_and(|list| list.split(',').any(|entry| entry.trim() == name))
}

fn trial(check: Check) -> Trial {
    let run = check.run;
    Trial::test(check.name, move || run().map_err(|e| Failed::from(format!("{e}\nSSM_SEED={}", seed()))))
        .with_ignored_flag(check.ignored)
}

/// Every check of one backend, under `name`.
pub fn checks(name: &str, subject: &Arc<dyn Subject>) -> Vec<Check> {
    let mut list = List { prefix: name.to_owned(), subject: subject.clone(), checks: Vec::new() };
    scan::list(&mut list);
    golden::list(&mut list);
    bitwise::list(&mut list);
    laws::list(&mut list);
    errors::list(&mut list);
    giants::list(&mut list);
    list.checks
}

/// The checks so far, and whose they are.
struct List {
    prefix: String,
    subject: Arc<dyn Subject>,
    checks: Vec<Check>,
}

impl List {
    /// One more, whose function is given its full name to draw values by.
    fn push(
        &mut self,
        name: String,
        ignored: bool,
        run: impl FnOnce(&dyn Subject, &str) -> Result<(), Failure> + Send + 'static,
    ) {
        let name = format!("{}::{name}", self.prefix);
        let subject = self.subject.clone();
        let full = name.clone();
        self.checks.push(Check { name, ignored, run: Box::new(move || run(&*subject, &full)) });
    }

    fn dtypes(&self) -> Vec<DType> {
        DType::ALL.into_iter().filter(|dtype| self.subject.supports(*dtype)).collect()
    }

    /// The backend's own choice, and every algorithm that it can be asked for.
    fn algorithms(&self, problem: &GatedScan) -> Vec<Option<Algorithm>> {
        let forward = AnyOp::Forward(problem.forward());
        let unsupported = |algorithm: &Option<Algorithm>| {
            let planned = self.subject.plan(&forward, *algorithm);
            matches!(planned, Err(ssm_core::PlanError::UnsupportedAlgorithm { .. }))
        };
        let explicit = [Algorithm::Sequential, Algorithm::March, Algorithm::Chunked].map(Some);
        std::iter::once(None).chain(explicit.into_iter().filter(|a| !unsupported(a))).collect()
    }

    /// Whether asking for the algorithm, or for none, comes to the plain loop.
    fn is_plain(&self, problem: &GatedScan, algorithm: Option<Algorithm>) -> bool {
        let planned = self.subject.plan(&AnyOp::Forward(problem.forward()), algorithm);
        planned.is_ok_and(|report| report.algorithm == Algorithm::Sequential)
    }
}

fn algorithm_name(algorithm: Option<Algorithm>) -> &'static str {
    algorithm.map_or("default", Algorithm::name)
}

/// One output against its reference, within the contract.
fn hold(
    problem: &GatedScan,
    report: &Report,
    operand: Operand,
    tensor: &HostTensor,
    expected: &[f64],
) -> Result<(), Mismatch> {
    let allowed = allowance(tensor.dtype(), report.algorithm);
    compare_within(operand, tensor, expected, shape_of(operand, problem), allowed).map(|_| ())
}

/// Every output against its reference, within the contract.
///
/// # Errors
///
/// [`Mismatch`], naming the output and its worst element.
pub fn check_outputs(problem: &GatedScan, ran: &Ran, reference: &Outputs) -> Result<(), Failure> {
    for (operand, tensor) in &ran.outputs {
        if let Some(expected) = reference.get(*operand) {
            hold(problem, &ran.report, *operand, tensor, expected)?;
        }
    }
    Ok(())
}

fn is_state(operand: Operand) -> bool {
    matches!(operand, Operand::FinalState | Operand::Dh0 | Operand::State)
}

fn shape_of(operand: Operand, problem: &GatedScan) -> [usize; 3] {
    match is_state(operand) {
        true => [problem.sequences(), 1, problem.channels()],
        false => [problem.batch(), problem.len(), problem.channels()],
    }
}

/// Two lists of outputs, equal in every bit.
fn check_bits(
    law: &'static str,
    expected: &[(Operand, HostTensor)],
    got: &[(Operand, HostTensor)],
) -> Result<(), Failure> {
    let names = |list: &[(Operand, HostTensor)]| list.iter().map(|(o, _)| *o).collect::<Vec<_>>();
    if names(expected) != names(got) {
        return Err(Violation::Outputs { expected: names(expected), got: names(got) }.into());
    }
    for ((operand, expected), (_, got)) in expected.iter().zip(got) {
        if expected.same_bits(got) {
            continue;
        }
        let (e, g) = (expected.to_f64(), got.to_f64());
        let index = (0..e.len().min(g.len())).find(|&i| e[i].to_bits() != g[i].to_bits()).unwrap_or(e.len());
        let at = |v: &[f64]| v.get(index).copied().unwrap_or(f64::NAN);
        let (expected, got) = (at(&e), at(&g));
        return Err(Violation::Bits { law, operand: *operand, index, expected, got }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_ignored_and_a_required_one_fails() {
        let missing = || Err::<Arc<ReferenceHarness>, _>("no device".to_owned());
        let optional = trials("gone", missing(), false);
        assert!(optional.len() > 1000 && optional.iter().all(Trial::has_ignored_flag));
        let needed = trials("gone", missing(), true);
        let live: Vec<&str> = needed.iter().filter(|t| !t.has_ignored_flag()).map(Trial::name).collect();
        assert_eq!(live, ["gone::device"]);
    }
}
