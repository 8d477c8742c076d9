//! The golden vectors against a backend, and against the oracle.

use libtest_mimic::Trial;
use ssm_core::{DType, Grads, Operand};

use super::{Check, List, algorithm_name, check_outputs, hold, shape_of, trial};
use crate::golden::{Golden, ScanVector, load};
use crate::oracle::run;
use crate::tolerance::compare_within;
use crate::{Failure, HostTensor, Ran, golden_layers};

const SCAN: &str = "gated_scan";

pub(super) fn list(list: &mut List) {
    let vectors = match load() {
        Ok(vectors) => vectors,
        Err(error) => return list.push("golden::load".to_owned(), false, move |_, _| Err(error.into())),
    };
    for golden in vectors.into_iter().filter(|g| g.kind == SCAN) {
        let vector = match golden.scan() {
            Ok(vector) => vector,
            Err(error) => {
                list.push(format!("golden::{}", golden.name), false, move |_, _| Err(error.into()));
                continue;
            }
        };
        for dtype in list.dtypes() {
            for algorithm in list.algorithms(&vector.problem) {
                let vector = vector.clone();
                let name = format!("golden::{}::{dtype}::{}", golden.name, algorithm_name(algorithm));
                list.push(name, false, move |subject, _| {
                    let (problem, inputs) = vector.stored(dtype)?;
                    let ran = subject.train(&problem, Grads::all(&problem), algorithm, &inputs)?;
                    // Rounding moves the inputs, and with them the right answer; what it leaves alone is golden.
                    if inputs == vector.inputs { against(&vector, &ran) } else { Ok(()) }?;
                    check_outputs(&problem, &ran, &run(&problem, &inputs))
                });
            }
        }
    }
}

/// A backend's results against the file's.
fn against(vector: &ScanVector, ran: &Ran) -> Result<(), Failure> {
    for (operand, expected) in vector.results() {
        if let Some(got) = ran.get(operand) {
            hold(&vector.problem, &ran.report, operand, got, expected)?;
        }
    }
    Ok(())
}

/// Every vector against the oracle itself, the layers included.
pub fn golden_trials() -> Vec<Trial> {
    let check = |name: String, run: Box<dyn FnOnce() -> Result<(), Failure> + Send>| {
        trial(Check { name: format!("oracle::golden::{name}"), ignored: false, run })
    };
    match load() {
        Ok(vectors) => {
            vectors.into_iter().map(|g| check(g.name.clone(), Box::new(move || hold_oracle(&g)))).collect()
        }
        Err(error) => vec![check("load".to_owned(), Box::new(move || Err(error.into())))],
    }
}

/// The oracle against one vector, to float64 rounding.
///
/// # Errors
///
/// What the file lacks, or where the oracle differs from it.
fn hold_oracle(golden: &Golden) -> Result<(), Failure> {
    match golden.kind.as_str() {
        SCAN => {
            let vector = golden.scan()?;
            let outputs = run(&vector.problem, &vector.inputs);
            for (operand, expected) in vector.results().chain([(Operand::X, &vector.outputs.h[..])]) {
                let got = if operand == Operand::X { Some(&outputs.h[..]) } else { outputs.get(operand) };
                let got = HostTensor::from_f64(DType::F64, got.unwrap_or_default());
                if !expected.is_empty() {
                    compare_within(operand, &got, expected, shape_of(operand, &vector.problem), 1e-12)?;
                }
            }
            Ok(())
        }
        "rg_lru" => golden_layers::check_rg_lru(golden),
        "gated_ssm_layer" => golden_layers::check_gated_ssm(golden),
        other => Err(crate::golden::GoldenError::Metadata {
            name: golden.name.clone(),
            key: "kind",
            got: Some(other.to_owned()),
        }
        .into()),
    }
}
