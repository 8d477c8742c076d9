//! A case's operands on a device, and its launches.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use ssm_core::{
    BackwardArgs, DType, Element, ForwardArgs, GatedScan, Grads, Kernel, Plan, PlanOptions, Report,
    ScanBackward, ScanForward,
};
use ssm_testkit::{Failure, Harness, HostTensor};

use crate::case::{Case, Direction};

/// An output held something that no kernel wrote.
#[derive(Debug)]
pub struct Unwritten {
    operand: &'static str,
}

impl std::fmt::Display for Unwritten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} holds NaN after a run over finite inputs", self.operand)
    }
}

impl std::error::Error for Unwritten {}

/// The plans of a case; backward only where the case runs it.
pub(crate) struct Plans<H: Harness> {
    pub(crate) forward: Plan<ScanForward, H::Backend>,
    pub(crate) backward: Option<Plan<ScanBackward, H::Backend>>,
}

impl<H: Harness> Plans<H> {
    pub(crate) fn new(backend: &H::Backend, case: &Case) -> Result<Self, Failure> {
        let problem = case.problem()?;
        let options = PlanOptions { algorithm: case.variant.algorithm };
        let forward = backend.plan(&problem.forward(), &options)?;
        let backward = match case.direction {
            Direction::Forward => None,
            _ => Some(backend.plan(&problem.backward(Grads::all(&problem))?, &options)?),
        };
        Ok(Self { forward, backward })
    }

    /// The report that a result row quotes: that of the pass under the clock.
    pub(crate) fn report(&self, direction: Direction) -> &Report {
        match (&self.backward, direction) {
            (Some(backward), Direction::Backward) => backward.report(),
            _ => self.forward.report(),
        }
    }

    /// The larger workspace of the two passes.
    pub(crate) fn workspace_bytes(&self) -> u64 {
        let backward = self.backward.as_ref().map_or(0, |p| p.report().workspace_bytes);
        self.forward.report().workspace_bytes.max(backward)
    }

    /// Bytes of the device that one set of operands takes.
    pub(crate) fn operand_bytes(&self) -> u64 {
        let problem = self.problem();
        let operands = 2 + u64::from(problem.has_b()) + u64::from(problem.has_c());
        let tensors = operands + 1 + if self.backward.is_some() { operands + 1 } else { 0 };
        let tensor = problem.elements() * problem.dtype().size();
        tensors * tensor + self.forward.report().saved_bytes() + self.workspace_bytes()
    }

    fn problem(&self) -> &GatedScan {
        use ssm_core::Op;
        self.forward.op().problem()
    }
}

/// One set of operands on the device.
pub(crate) struct Operands<M> {
    x: M,
    a: M,
    b: Option<M>,
    c: Option<M>,
    y: M,
    saved: Option<M>,
    workspace: Option<M>,
    backward: Option<Gradients<M>>,
}

struct Gradients<M> {
    dy: M,
    dx: M,
    da: M,
    db: Option<M>,
    dc: Option<M>,
}

impl<M> Operands<M> {
    /// Fresh inputs from `seed`: gates in (0, 1), everything else in (−1, 1). Outputs are NaN.
    pub(crate) fn upload<H: Harness<Memory = M>>(
        harness: &H,
        plans: &Plans<H>,
        seed: u64,
    ) -> Result<Self, Failure> {
        let problem = plans.problem();
        let len = usize::try_from(problem.elements())?;
        let (dtype, acc) = (problem.dtype(), problem.accumulator());
        let input = |low, salt| harness.upload(&random(dtype, len, low, seed ^ salt));
        let output = || harness.upload(&HostTensor::poison(dtype, len));
        let scratch = |bytes: u64| -> Result<Option<M>, Failure> {
            let elements = usize::try_from(bytes.div_ceil(acc.size()))?;
            (elements > 0).then(|| harness.upload(&HostTensor::poison(acc, elements))).transpose()
        };
        let gradients = || -> Result<Gradients<M>, Failure> {
            Ok(Gradients {
                dy: input(-1.0, 5 << 56)?,
                dx: output()?,
                da: output()?,
                db: problem.has_b().then(output).transpose()?,
                dc: problem.has_c().then(output).transpose()?,
            })
        };
        Ok(Self {
            x: input(-1.0, 1 << 56)?,
            a: input(0.0, 2 << 56)?,
            b: problem.has_b().then(|| input(-1.0, 3 << 56)).transpose()?,
            c: problem.has_c().then(|| input(-1.0, 4 << 56)).transpose()?,
            y: output()?,
            saved: scratch(plans.forward.report().saved_bytes())?,
            workspace: scratch(plans.workspace_bytes())?,
            backward: plans.backward.is_some().then(gradients).transpose()?,
        })
    }

    pub(crate) fn forward<H: Harness<Memory = M>>(
        &mut self,
        harness: &H,
        plans: &Plans<H>,
    ) -> Result<(), Failure> {
        let (n, acc) = elements(plans)?;
        let report = plans.forward.report();
        let args = ForwardArgs {
            x: harness.view(&self.x, 0..n),
            a: harness.view(&self.a, 0..n),
            b: self.b.as_ref().map(|m| harness.view(m, 0..n)),
            c: self.c.as_ref().map(|m| harness.view(m, 0..n)),
            h0: None,
            y: harness.view_mut(&mut self.y, 0..n),
            final_state: None,
            saved: some_of(&mut self.saved, report.saved).map(|(m, n)| harness.view_mut(m, 0..n)),
        };
        let words = report.workspace_bytes.div_ceil(acc.size());
        let workspace = some_of(&mut self.workspace, words).map(|(m, n)| harness.view_mut(m, 0..n));
        harness.submit(|queue| plans.forward.run(harness.backend(), args, workspace, queue))?;
        Ok(())
    }

    pub(crate) fn backward<H: Harness<Memory = M>>(
        &mut self,
        harness: &H,
        plans: &Plans<H>,
    ) -> Result<(), Failure> {
        let (Some(plan), Some(grads)) = (&plans.backward, &mut self.backward) else { return Ok(()) };
        let (n, acc) = elements(plans)?;
        let report = plan.report();
        let args = BackwardArgs {
            x: harness.view(&self.x, 0..n),
            a: harness.view(&self.a, 0..n),
            b: self.b.as_ref().map(|m| harness.view(m, 0..n)),
            c: self.c.as_ref().map(|m| harness.view(m, 0..n)),
            h0: None,
            saved: some_of(&mut self.saved, report.saved).map(|(m, n)| harness.view(m, 0..n)),
            dy: harness.view(&grads.dy, 0..n),
            d_final_state: None,
            dx: Some(harness.view_mut(&mut grads.dx, 0..n)),
            da: Some(harness.view_mut(&mut grads.da, 0..n)),
            db: grads.db.as_mut().map(|m| harness.view_mut(m, 0..n)),
            dc: grads.dc.as_mut().map(|m| harness.view_mut(m, 0..n)),
            dh0: None,
        };
        let words = report.workspace_bytes.div_ceil(acc.size());
        let workspace = some_of(&mut self.workspace, words).map(|(m, n)| harness.view_mut(m, 0..n));
        harness.submit(|queue| plan.run(harness.backend(), args, workspace, queue))?;
        Ok(())
    }

    /// That no output holds the NaN it began with.
    pub(crate) fn check_written<H: Harness<Memory = M>>(&self, harness: &H) -> Result<(), Failure> {
        let grads = self.backward.iter().flat_map(|g| {
            [("dx", Some(&g.dx)), ("da", Some(&g.da)), ("db", g.db.as_ref()), ("dc", g.dc.as_ref())]
        });
        for (operand, memory) in std::iter::once(("y", Some(&self.y))).chain(grads) {
            if memory.map(|m| harness.download(m)).transpose()?.is_some_and(|t| has_nan(&t)) {
                return Err(Unwritten { operand }.into());
            }
        }
        Ok(())
    }
}

fn elements<H: Harness>(plans: &Plans<H>) -> Result<(usize, DType), Failure> {
    let problem = plans.problem();
    Ok((usize::try_from(problem.elements())?, problem.accumulator()))
}

/// The memory with the length to view, where the plan asks for any.
fn some_of<M>(memory: &mut Option<M>, elements: u64) -> Option<(&mut M, usize)> {
    // What was allocated from the same report fits the address space.
    memory.as_mut().filter(|_| elements > 0).map(|m| (m, elements as usize))
}

/// Uniform values in (low, 1), fast enough that drawing them is not what a benchmark spends its time on.
fn random(dtype: DType, len: usize, low: f32, seed: u64) -> HostTensor {
    const BLOCK: usize = 1 << 16;
    fn fill<E: Element>(len: usize, low: f32, seed: u64) -> Vec<E> {
        let mut values = vec![E::default(); len];
        values.par_chunks_mut(BLOCK).enumerate().for_each(|(i, block)| {
            let mut rng = StdRng::seed_from_u64(seed.wrapping_add(i as u64));
            // Kept off both ends by more than bf16 rounds.
            block.fill_with(|| E::from_f64(f64::from(rng.random_range(low + 0.005..0.995))));
        });
        values
    }
    match dtype {
        DType::F32 => HostTensor::F32(fill(len, low, seed)),
        DType::F16 => HostTensor::F16(fill(len, low, seed)),
        DType::Bf16 => HostTensor::Bf16(fill(len, low, seed)),
        DType::F64 => HostTensor::F64(fill(len, low, seed)),
    }
}

fn has_nan(tensor: &HostTensor) -> bool {
    match tensor {
        HostTensor::F32(v) => v.par_iter().any(|e| e.is_nan()),
        HostTensor::F16(v) => v.par_iter().any(|e| e.is_nan()),
        HostTensor::Bf16(v) => v.par_iter().any(|e| e.is_nan()),
        HostTensor::F64(v) => v.par_iter().any(|e| e.is_nan()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_lie_inside_their_range_and_differ_by_seed() {
        for dtype in DType::ALL {
            let gates = random(dtype, 100_000, 0.0, 7);
            assert!(gates.to_f64().iter().all(|&v| v > 0.0 && v < 1.0), "{dtype}");
            assert_ne!(gates, random(dtype, 100_000, 0.0, 8));
        }
    }
}
