//! Every case against the oracle: forward, then backward over what forward saved.

use ssm_core::{DType, GatedScan, Operand};

use super::{List, Violation, algorithm_name, check_outputs};
use crate::oracle::run;
use crate::rows::slack;
use crate::tolerance::{Mismatch, place};
use crate::{Case, Ran, cases, draw, rng};

pub(super) fn list(list: &mut List) {
    for case in cases() {
        for dtype in list.dtypes() {
            let Some(problem) = case.problem(dtype).filter(|_| fits(&case, dtype)) else { continue };
            for algorithm in list.algorithms(&problem) {
                if case.only.is_some() && case.only != algorithm
                    || case.folded && list.is_plain(&problem, algorithm)
                {
                    continue;
                }
                let (case, problem) = (case.clone(), problem.clone());
                let name = format!("scan::{}::{dtype}::{}", case.name, algorithm_name(algorithm));
                list.push(name, false, move |subject, name| {
                    let inputs = draw(case.values, &problem, case.d_final_state, &mut rng(name));
                    let grads = case.asked(&problem);
                    let ran = if case.grads == [false; 5] && case.only.is_some() {
                        subject.forward(&problem, algorithm, &inputs)?
                    } else {
                        subject.train(&problem, grads, algorithm, &inputs)?
                    };
                    check_asked(&case, &problem, &ran)?;
                    check_outputs(&problem, &ran, &run(&problem, &inputs))
                        .map_err(|error| Violation::Case { why: case.why, error })?;
                    Ok(check_slack(&problem, &ran)?)
                });
            }
        }
    }
    step(list);
}

/// Sizes far past any tile say nothing new in every type.
fn fits(case: &Case, dtype: DType) -> bool {
    case.shape.iter().product::<usize>() < 60_000 || dtype == DType::F32 || dtype == DType::Bf16
}

/// One token and several, on a state.
fn step(list: &mut List) {
    for dtype in list.dtypes() {
        for (len, batch) in [(1, 1), (1, 5), (3, 2), (67, 2), (0, 2), (1, 0)] {
            let problem = GatedScan::builder(batch, len, 37).dtype(dtype).build();
            list.push(format!("step::batch_{batch}_len_{len}::{dtype}"), false, move |subject, name| {
                let problem = problem?;
                let with_state = problem.to_builder().initial_state(true).build()?;
                let inputs = draw(Default::default(), &with_state, false, &mut rng(name));
                let op = crate::AnyOp::Step(problem.step()?);
                let ran = subject.run(&crate::Call::new(&op, None, &inputs.host(&problem)))?;
                check_outputs(&problem, &ran, &run(&problem, &inputs))
            });
        }
    }
}

fn check_asked(case: &Case, problem: &GatedScan, ran: &Ran) -> Result<(), Violation> {
    let grads = case.asked(problem);
    let asked = [
        (Operand::Y, true),
        (Operand::FinalState, problem.wants_final_state()),
        (Operand::Dx, grads.x),
        (Operand::Da, grads.a),
        (Operand::Db, grads.b),
        (Operand::Dc, grads.c),
        (Operand::Dh0, grads.h0),
    ];
    let expected: Vec<Operand> = asked.into_iter().filter(|(_, is)| *is).map(|(o, _)| o).collect();
    let got: Vec<Operand> = ran.outputs.iter().map(|(o, _)| *o).collect();
    if expected == got { Ok(()) } else { Err(Violation::Outputs { expected, got }) }
}

/// The rows past the last packed sequence are 0, not merely small.
fn check_slack(problem: &GatedScan, ran: &Ran) -> Result<(), Mismatch> {
    let rows = slack(problem);
    let d = problem.channels();
    for (operand, tensor) in ran.outputs.iter().filter(|(o, _)| !super::is_state(*o)) {
        let values = tensor.to_f64();
        let Some(i) = (rows.start * d..rows.end * d).find(|&i| values[i] != 0.0) else { continue };
        let at = place(i, super::shape_of(*operand, problem));
        return Err(Mismatch::Element {
            operand: *operand,
            at,
            expected: 0.0,
            got: values[i],
            allowed: 0.0,
            relative: f64::INFINITY,
        });
    }
    Ok(())
}
