//! The gates around a scan, each as one op with a backward of its own.
//!
//! As a chain of burn's ops a gate is several passes over (B, L, S), each into fresh memory, and on the CPU those passes
//! take longer than the scan. An op a gate keeps for backward what backward reads and nothing else; flex computes it in
//! one pass on all threads and in the memory of its inputs where nobody else holds them.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, FloatDType, Tensor};

/// σ(z). The device is one that a scan runs on.
pub(crate) fn sigmoid_gate(z: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::sigmoid_gate(z.into_dispatch()))
}

/// silu(p)·q, of one shape and type. The device is one that a scan runs on.
pub(crate) fn swish_gate(p: Tensor<3>, q: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::swish_gate(p.into_dispatch(), q.into_dispatch()))
}

/// exp(u) − 1 to the last digits next to u = 0 too, u ≤ 0. Nothing is recorded for backward.
pub(crate) fn expm1(u: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::expm1(u.detach().into_dispatch()))
}

/// The gates on whichever backend the tensors live on; by burn's own ops where the backend has nothing better.
#[backend_extension(Flex, Cube: cfg(any(feature = "wgpu", feature = "cuda")), Autodiff)]
pub(crate) trait GateDispatch: Backend {
    /// σ(z).
    fn sigmoid_gate(z: FloatTensor<Self>) -> FloatTensor<Self> {
        sigmoid_by_ops::<Self>(z)
    }

    /// silu(p)·q.
    fn swish_gate(p: FloatTensor<Self>, q: FloatTensor<Self>) -> FloatTensor<Self> {
        swish_by_ops::<Self>(p, q)
    }

    /// exp(u) − 1.
    fn expm1(u: FloatTensor<Self>) -> FloatTensor<Self> {
        expm1_by_ops::<Self>(u)
    }
}

/// Their gradients.
pub(crate) trait GateGradients: GateDispatch {
    /// dz from σ(z) and its gradient.
    fn sigmoid_gradient(gate: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::sigmoid_backward(gate, gradient)
    }

    /// dp and dq.
    fn swish_gradients(
        p: FloatTensor<Self>,
        q: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        swish_gradients_by_ops::<Self>(p, q, gradient)
    }
}

/// `1 / (1 + exp(−z))`, in f32 or wider. burn's default, `exp(−ln(1 + exp(−z)))`, loses digits as −z grows.
pub(crate) fn sigmoid_by_ops<B: Backend>(z: FloatTensor<B>) -> FloatTensor<B> {
    let own = z.dtype();
    let wide = if own == DType::F64 { DType::F64 } else { DType::F32 };
    let z = if own == wide { z } else { B::float_cast(z, FloatDType::from(wide)) };
    let gate = B::float_recip(B::float_add_scalar(B::float_exp(B::float_neg(z)), 1.0.into()));
    if own == wide { gate } else { B::float_cast(gate, FloatDType::from(own)) }
}

pub(crate) fn swish_by_ops<B: Backend>(p: FloatTensor<B>, q: FloatTensor<B>) -> FloatTensor<B> {
    B::float_mul(B::float_mul(sigmoid_by_ops::<B>(p.clone()), p), q)
}

pub(crate) fn swish_gradients_by_ops<B: Backend>(
    p: FloatTensor<B>,
    q: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> [FloatTensor<B>; 2] {
    // With s = σ(p): d silu/dp = s + p·s·(1 − s).
    let s = sigmoid_by_ops::<B>(p.clone());
    let silu = B::float_mul(p, s.clone());
    let dq = B::float_mul(gradient.clone(), silu.clone());
    let off = B::float_add_scalar(B::float_neg(s.clone()), 1.0.into());
    let slope = B::float_add(s, B::float_mul(silu, off));
    [B::float_mul(B::float_mul(gradient, q), slope), dq]
}

/// By its series down to −1/2, and what is left of u through burn's exp: what a GPU's exp and tanh are off by is of the size
/// of 1's last digits, however close to 0 the result is.
pub(crate) fn expm1_by_ops<B: Backend>(u: FloatTensor<B>) -> FloatTensor<B> {
    let near = B::float_clamp_min(u.clone(), (-0.5).into());
    let rest = B::float_exp(B::float_sub(u, near.clone()));
    // v·(1 + v/2·(1 + v/3·(…))): the first term left out is 2e-8 of the sum.
    let mut series = B::float_add_scalar(B::float_mul_scalar(near.clone(), 0.125.into()), 1.0.into());
    for n in (2..8).rev() {
        let term = B::float_mul_scalar(near.clone(), (1.0 / f64::from(n)).into());
        series = B::float_add_scalar(B::float_mul(term, series), 1.0.into());
    }
    let series = B::float_mul(near, series);
    // exp(v + w) − 1 = exp(w)·(exp(v) − 1) + exp(w) − 1, where exp(0) is 1 everywhere.
    B::float_add(B::float_mul(rest.clone(), series), B::float_add_scalar(rest, (-1.0).into()))
}

impl<B: GateGradients, C: CheckpointStrategy> GateDispatch for Autodiff<B, C> {
    fn sigmoid_gate(z: FloatTensor<Self>) -> FloatTensor<Self> {
        let (z, node) = z.into_parts();
        let gate = B::sigmoid_gate(z);
        match Sigmoid.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(gate.clone(), gate),
            OpsKind::UnTracked(prep) => prep.finish(gate),
        }
    }

    fn swish_gate(p: FloatTensor<Self>, q: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((p, p_node), (q, q_node)) = (p.into_parts(), q.into_parts());
        match Swish.prepare::<C>([p_node, q_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let gate = B::swish_gate(p.clone(), q.clone());
                prep.finish([p, q], gate)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::swish_gate(p, q)),
        }
    }

    fn expm1(u: FloatTensor<Self>) -> FloatTensor<Self> {
        FloatTensor::<Self>::new(B::expm1(u.into_primitive()))
    }
}

#[derive(Debug)]
struct Sigmoid;

impl<B: GateGradients> Backward<B, 1> for Sigmoid {
    /// σ(z).
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(z)] = ops.parents {
            grads.register::<B>(z.id, B::sigmoid_gradient(ops.state, gradient));
        }
    }
}

#[derive(Debug)]
struct Swish;

impl<B: GateGradients> Backward<B, 2> for Swish {
    /// p and q.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let [p, q] = ops.state;
        for (parent, gradient) in ops.parents.into_iter().zip(B::swish_gradients(p, q, gradient)) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}
