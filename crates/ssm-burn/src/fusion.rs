//! The scan on burn's fusing backend.
//!
//! Fusion records ops and runs them later, where an error has nowhere to go. A scan is run at once instead, on the
//! tensors that come of what was recorded before it, and its outputs are recorded as tensors that are there already.

use burn::backend::TensorMetadata;
use burn::backend::fusion::stream::StreamId;
use burn::backend::fusion::{Fusion, FusionBackend, FusionTensor, NoOp, client::GlobalFusionClient};
use burn::backend::ir::{InitOperationIr, OperationIr};
use burn::backend::tensor::FloatTensor;
use ssm_core::{GatedScan, PlanOptions, ScanBackward};

use crate::Error;
use crate::backend::{Arriving, Forward, Gradients, Operands, Outcome, ScanDispatch, ScanKernels, untracked};
use crate::gates::{GateDispatch, GateGradients};

type Tensor<B> = FusionTensor<<B as FusionBackend>::FusionRuntime>;

impl<B: FusionBackend + ScanKernels> ScanDispatch for Fusion<B> {
    fn gated_scan(operands: Operands<Self>, problem: GatedScan, options: PlanOptions) -> Outcome<Self> {
        untracked(&operands, &problem, &options).into()
    }
}

impl<B: FusionBackend + ScanKernels> ScanKernels for Fusion<B> {
    fn check(problem: &GatedScan, options: &PlanOptions, device: &Self::Device) -> Result<(), Error> {
        B::check(problem, options, device)
    }

    fn scan_forward(
        problem: &GatedScan,
        options: &PlanOptions,
        operands: &Operands<Self>,
    ) -> Result<Forward<Self>, Error> {
        let out = B::scan_forward(problem, options, &inner(operands))?;
        let record = |tensor| record::<B>(tensor, &operands.x);
        Ok(Forward {
            y: record(out.y),
            final_state: out.final_state.map(record),
            saved: out.saved.map(record),
        })
    }

    fn scan_backward(
        op: &ScanBackward,
        options: &PlanOptions,
        operands: &Operands<Self>,
        arriving: &Arriving<Self>,
    ) -> Result<Gradients<Self>, Error> {
        let arriving = Arriving::<B> {
            saved: arriving.saved.as_ref().map(resolve::<B>),
            dy: resolve::<B>(&arriving.dy),
            d_final_state: arriving.d_final_state.as_ref().map(resolve::<B>),
        };
        let out = B::scan_backward(op, options, &inner(operands), &arriving)?;
        Ok(out.map(|gradient| gradient.map(|tensor| record::<B>(tensor, &operands.x))))
    }
}

impl<B: FusionBackend> GateDispatch for Fusion<B> {}
impl<B: FusionBackend> GateGradients for Fusion<B> {}

fn inner<B: FusionBackend>(operands: &Operands<Fusion<B>>) -> Operands<B> {
    Operands {
        x: resolve::<B>(&operands.x),
        a: resolve::<B>(&operands.a),
        b: operands.b.as_ref().map(resolve::<B>).into(),
        c: operands.c.as_ref().map(resolve::<B>).into(),
        h0: operands.h0.as_ref().map(resolve::<B>).into(),
    }
}

/// The tensor, once what makes it has been queued on the device.
fn resolve<B: FusionBackend>(tensor: &Tensor<B>) -> FloatTensor<B> {
    tensor.client.resolve_tensor_float::<B>(tensor.clone())
}

/// The tensor among those that fusion knows, as burn does with one made from data.
fn record<B: FusionBackend>(tensor: FloatTensor<B>, sibling: &Tensor<B>) -> Tensor<B> {
    let client: &GlobalFusionClient<B::FusionRuntime> = &sibling.client;
    let (shape, dtype) = (tensor.shape(), tensor.dtype());
    let handle = B::float_tensor_handle(tensor);
    let made = InitOperationIr::create(shape, dtype, || client.register_tensor_handle(handle));
    let operation = NoOp::<B>::new();
    let outputs = client.register(StreamId::current(), OperationIr::Init(made), operation);
    outputs.into_iter().next().expect("an init operation has one output")
}
