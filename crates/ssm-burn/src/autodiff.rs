//! The backward of the scan under burn's autodiff, for every backend with [`ScanKernels`].
//!
//! A burn step has one output, a scan has two. So the scan itself is a hidden node with an empty output, whose parents
//! are the operands; y and hT are its two children. Backward visits children before parents: each child leaves its
//! gradient in a place that it shares with the hidden node, which then runs the kernel once with whatever has arrived.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients as BurnGradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::{FloatDType, Shape};
use ssm_core::{GatedScan, Grads, PlanOptions};

use crate::backend::{Arriving, Operands, Outcome, ScanDispatch, ScanKernels, untracked};
use crate::{Error, burn_type};

type AutodiffTensor<B> = FloatTensor<Autodiff<B>>;
type Outputs<B> = (AutodiffTensor<B>, Option<AutodiffTensor<B>>);

impl<B: ScanKernels, C: CheckpointStrategy> ScanDispatch for Autodiff<B, C> {
    fn gated_scan(operands: Operands<Self>, problem: GatedScan, options: PlanOptions) -> Outcome<Self> {
        record::<B, C>(&operands, problem, options).into()
    }
}

fn record<B: ScanKernels, C: CheckpointStrategy>(
    operands: &Operands<Autodiff<B, C>>,
    problem: GatedScan,
    options: PlanOptions,
) -> Result<Outputs<B>, Error> {
    let inner = Operands::<B> {
        x: operands.x.primitive().clone(),
        a: operands.a.primitive().clone(),
        b: operands.b.as_ref().map(|t| t.primitive().clone()).into(),
        c: operands.c.as_ref().map(|t| t.primitive().clone()).into(),
        h0: operands.h0.as_ref().map(|t| t.primitive().clone()).into(),
    };
    // burn's steps have a fixed number of parents: an untracked leaf stands for each absent operand.
    let nothing = AutodiffTensor::<B>::new(empty::<B>(&inner.x.device()));
    let tensors = [
        &operands.x,
        &operands.a,
        operands.b.as_ref().unwrap_or(&nothing),
        operands.c.as_ref().unwrap_or(&nothing),
        operands.h0.as_ref().unwrap_or(&nothing),
    ];
    match Scan.prepare::<C>(tensors.map(AutodiffTensor::node)).compute_bound().stateful() {
        OpsKind::UnTracked(prep) => {
            let (y, final_state) = untracked(&inner, &problem, &options)?;
            Ok((prep.finish(y), final_state.map(AutodiffTensor::new)))
        }
        OpsKind::Tracked(mut prep) => {
            B::check(&problem, &options, &inner.x.device())?;
            let out = B::scan_forward(&problem, &options, &inner)?;
            let arrived = Arrived::<B>::default();
            let kept = Kept {
                inputs: [
                    Some(prep.checkpoint(&operands.x)),
                    Some(prep.checkpoint(&operands.a)),
                    operands.b.as_ref().map(|b| prep.checkpoint(b)),
                    operands.c.as_ref().map(|c| prep.checkpoint(c)),
                    operands.h0.as_ref().map(|h0| prep.checkpoint(h0)),
                ],
                problem,
                options,
                saved: out.saved,
                arrived: arrived.clone(),
            };
            let scan = prep.finish(kept, empty::<B>(&inner.x.device()));
            let y = child::<B, C>(&scan, Child::Y, arrived.clone(), out.y);
            let final_state =
                out.final_state.map(|state| child::<B, C>(&scan, Child::FinalState, arrived, state));
            Ok((y, final_state))
        }
    }
}

fn empty<B: Backend>(device: &B::Device) -> FloatTensor<B> {
    B::float_zeros(Shape::from([1]), device, FloatDType::F32)
}

/// Gradients on their way from the outputs to the scan: dy and dhT.
type Arrived<B> = Arc<Mutex<[Option<FloatTensor<B>>; 2]>>;

#[derive(Clone, Copy, Debug)]
enum Child {
    Y,
    FinalState,
}

fn child<B: ScanKernels, C: CheckpointStrategy>(
    scan: &AutodiffTensor<B>,
    which: Child,
    arrived: Arrived<B>,
    output: FloatTensor<B>,
) -> AutodiffTensor<B> {
    match Output(which).prepare::<C>([scan.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(arrived, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

#[derive(Debug)]
struct Output(Child);

impl<B: ScanKernels> Backward<B, 1> for Output {
    type State = Arrived<B>;

    fn backward(self, ops: Ops<Arrived<B>, 1>, grads: &mut BurnGradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let device = gradient.device();
        let mut arrived = ops.state.lock().unwrap_or_else(PoisonError::into_inner);
        arrived[self.0 as usize] = Some(gradient);
        // burn asks every visited step for a gradient of its output; the hidden output's has no meaning.
        if let [Some(scan)] = ops.parents {
            grads.register::<B>(scan.id, empty::<B>(&device));
        }
    }
}

/// What backward needs of forward. The operands are burn's to keep, or to compute again.
#[derive(Clone, Debug)]
struct Kept<B: Backend> {
    problem: GatedScan,
    options: PlanOptions,
    inputs: [Option<NodeId>; 5],
    saved: Option<FloatTensor<B>>,
    arrived: Arrived<B>,
}

#[derive(Debug)]
struct Scan;

impl<B: ScanKernels> Backward<B, 5> for Scan {
    type State = Kept<B>;

    /// # Panics
    ///
    /// When the device fails. Whatever can be foreseen was checked by forward, and burn's backward returns nothing.
    fn backward(self, ops: Ops<Kept<B>, 5>, grads: &mut BurnGradients, checkpointer: &mut Checkpointer) {
        let device = grads.consume::<B>(&ops.node).device();
        let wanted = ops.parents.each_ref().map(Option::is_some);
        match gradients(ops.state, wanted, &device, checkpointer) {
            Ok(out) => {
                for (parent, gradient) in ops.parents.into_iter().zip(out) {
                    if let (Some(parent), Some(gradient)) = (parent, gradient) {
                        grads.register::<B>(parent.id, gradient);
                    }
                }
            }
            Err(error) => panic!("the backward of a gated scan failed: {error}"),
        }
    }
}

fn gradients<B: ScanKernels>(
    kept: Kept<B>,
    wanted: [bool; 5],
    device: &B::Device,
    checkpointer: &mut Checkpointer,
) -> Result<crate::backend::Gradients<B>, Error> {
    let [x, a, b, c, h0] = kept.inputs.map(|id| id.map(|id| checkpointer.retrieve_node_output(id)));
    // x and a are always kept.
    let (Some(x), Some(a)) = (x, a) else { return Ok([const { None }; 5]) };
    let operands = Operands { x, a, b: b.into(), c: c.into(), h0: h0.into() };
    let [dy, d_final_state] =
        std::mem::take(&mut *kept.arrived.lock().unwrap_or_else(PoisonError::into_inner));
    let problem = kept.problem;
    let dy = dy.unwrap_or_else(|| {
        let shape = Shape::from([problem.batch(), problem.len(), problem.channels()]);
        B::float_zeros(shape, device, burn_type(problem.out_dtype()).into())
    });
    let [x, a, b, c, h0] = wanted;
    let mut op = problem.backward(Grads { x, a, b, c, h0 })?;
    if d_final_state.is_some() {
        op = op.with_final_state();
    }
    B::scan_backward(&op, &kept.options, &operands, &Arriving { saved: kept.saved, dy, d_final_state })
}
