//! Every mistake in the operands of a live backend is its own typed error, and touches nothing.
//!
//! Overlap cannot be got wrong through safe views of a host, nor can alignment: views on paper check those.

use ssm_core::{BindError, DType, GatedScan, Grads, Operand, PlanError};

use super::{List, Violation};
use crate::{AnyOp, Call, CallError, Failure, Subject, Tamper, draw, rng};

pub(super) fn list(list: &mut List) {
    list.push("errors::operands".to_owned(), false, operands);
    list.push("errors::workspace".to_owned(), false, workspace);
    list.push("errors::odd_offset".to_owned(), false, odd_offset);
    let supported = list.dtypes();
    for dtype in DType::ALL.into_iter().filter(|dtype| !supported.contains(dtype)) {
        list.push(format!("errors::unsupported_type::{dtype}"), false, move |subject, _| {
            let problem = GatedScan::builder(1, 2, 3).dtype(dtype).build()?;
            match subject.plan(&AnyOp::Forward(problem.forward()), None) {
                Err(PlanError::UnsupportedType { dtype: named, .. }) if named == dtype => Ok(()),
                other => Err(answer(&format!("planning {dtype}"), "UnsupportedType", &format!("{other:?}"))),
            }
        });
    }
}

fn answer(mistake: &str, expected: &str, got: &str) -> Failure {
    Violation::Answer { mistake: mistake.to_owned(), expected: expected.to_owned(), got: got.to_owned() }
        .into()
}

fn operands(subject: &dyn Subject, name: &str) -> Result<(), Failure> {
    let problem = GatedScan::builder(2, 70, 5).initial_state(true).final_state(true).build()?;
    let bare = GatedScan::builder(2, 70, 5).b(false).c(false).build()?;
    let host = draw(Default::default(), &problem, true, &mut rng(name)).host(&problem);
    let forward = AnyOp::Forward(problem.forward());
    let saved = subject.run(&Call::new(&forward, None, &host))?.get(Operand::Saved).cloned();
    let full = problem.backward(Grads::all(&problem))?.with_final_state();
    let (backward, step) =
        (AnyOp::Backward(full), AnyOp::Step(GatedScan::builder(2, 70, 5).build()?.step()?));
    let (bare_forward, bare_backward) = (
        AnyOp::Forward(bare.forward()),
        AnyOp::Backward(bare.backward(Grads { x: true, ..Grads::default() })?),
    );

    use Operand as O;
    let required: [(&AnyOp, &[O]); 3] = [
        (&forward, &[O::X, O::A, O::B, O::C, O::H0, O::Y, O::FinalState]),
        (
            &backward,
            &[O::X, O::A, O::B, O::C, O::H0, O::Dy, O::DFinalState, O::Dx, O::Da, O::Db, O::Dc, O::Dh0],
        ),
        (&step, &[O::X, O::A, O::B, O::C, O::Y, O::State]),
    ];
    for (op, operands) in required {
        for &operand in operands {
            for tamper in [Tamper::Length(operand), Tamper::Type(operand)] {
                refused(
                    subject,
                    &Call { saved: saved.as_ref(), tamper: Some(tamper), ..Call::new(op, None, &host) },
                )?;
            }
        }
    }
    let optional: [(&AnyOp, &[O]); 5] = [
        (&forward, &[O::B, O::C, O::H0, O::FinalState]),
        (&backward, &[O::B, O::C, O::H0, O::DFinalState, O::Dx, O::Da, O::Db, O::Dc, O::Dh0]),
        (&step, &[O::B, O::C]),
        (&bare_forward, &[O::B, O::C, O::H0, O::FinalState]),
        (&bare_backward, &[O::B, O::C, O::H0, O::DFinalState, O::Da, O::Db, O::Dc, O::Dh0]),
    ];
    for (op, operands) in optional {
        for &operand in operands {
            let tamper = Some(Tamper::Presence(operand));
            let saved = saved.as_ref();
            refused(subject, &Call { saved, tamper, ..Call::new(op, None, &host) })?;
        }
    }
    Ok(())
}

/// Runs a call with a mistake, and holds the answer to it.
fn refused(subject: &dyn Subject, call: &Call<'_>) -> Result<(), Failure> {
    let mistake = format!("{:?} of {}", call.tamper, call.op.name());
    let ran = subject.run(call);
    let right = match (&ran, call.tamper) {
        (Err(CallError::Bind(BindError::Length { operand, .. })), Some(Tamper::Length(o))) => *operand == o,
        (Err(CallError::Bind(BindError::Type { operand, .. })), Some(Tamper::Type(o))) => *operand == o,
        (Err(CallError::Bind(BindError::Missing { operand })), Some(Tamper::Presence(o))) => *operand == o,
        (Err(CallError::Bind(BindError::Unexpected { operand })), Some(Tamper::Presence(o))) => *operand == o,
        (Err(CallError::Bind(BindError::Workspace { .. })), Some(Tamper::Workspace)) => true,
        _ => false,
    };
    if right {
        return Ok(());
    }
    let got = match ran {
        Ok(_) => "a result".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(answer(&mistake, "its own BindError", &got))
}

/// A workspace one element short, wherever a plan asks for one.
fn workspace(subject: &dyn Subject, name: &str) -> Result<(), Failure> {
    for shape in [[2, 300, 5], [1, 5000, 3]] {
        let [b, l, d] = shape;
        let problem = GatedScan::builder(b, l, d).checkpoint(ssm_core::Checkpoint::Nothing).build()?;
        let host = draw(Default::default(), &problem, false, &mut rng(name)).host(&problem);
        let ops =
            [AnyOp::Forward(problem.forward()), AnyOp::Backward(problem.backward(Grads::all(&problem))?)];
        for op in &ops {
            if subject.plan(op, None)?.workspace_bytes > 0 {
                refused(subject, &Call { tamper: Some(Tamper::Workspace), ..Call::new(op, None, &host) })?;
            }
        }
    }
    Ok(())
}

/// Operands one element into their buffers are served, or refused for their alignment.
fn odd_offset(subject: &dyn Subject, name: &str) -> Result<(), Failure> {
    for dtype in DType::ALL.into_iter().filter(|dtype| subject.supports(*dtype)) {
        let problem = GatedScan::builder(2, 131, 17).dtype(dtype).final_state(true).build()?;
        let inputs = draw(Default::default(), &problem, false, &mut rng(name));
        let op = AnyOp::Forward(problem.forward());
        let host = inputs.host(&problem);
        match subject.run(&Call { offset: Some(1), ..Call::new(&op, None, &host) }) {
            Ok(ran) => super::check_outputs(&problem, &ran, &crate::oracle::run(&problem, &inputs))?,
            Err(CallError::Bind(BindError::Misaligned { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
