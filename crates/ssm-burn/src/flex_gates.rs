//! The gates on burn's flex backend, in f32 (expm1 in f64 too): one pass on all threads, in place where nobody else holds
//! the memory.

use std::f32::consts::LOG2_E;

use burn::backend::ops::ActivationOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;
use rayon::prelude::*;

use crate::gates::{
    GateDispatch, GateGradients, expm1_by_ops, sigmoid_by_ops, swish_by_ops, swish_gradients_by_ops,
};

type Tensor = FloatTensor<Flex>;

/// The elements of a task: some microseconds of work on operands that fit a core's cache.
const PIECE: usize = 1 << 14;

impl GateDispatch for Flex {
    fn sigmoid_gate(z: Tensor) -> Tensor {
        if z.dtype() != DType::F32 {
            return sigmoid_by_ops::<Self>(z);
        }
        let mut z = in_order(z);
        pieces(&mut z).for_each(|z| z.iter_mut().for_each(|z| *z = sigmoid(*z)));
        z
    }

    fn swish_gate(p: Tensor, q: Tensor) -> Tensor {
        if p.dtype() != DType::F32 {
            return swish_by_ops::<Self>(p, q);
        }
        let (p, q) = (in_order(p), in_order(q));
        let mut out = Tensor::empty(p.shape(), DType::F32);
        let operands = p.storage::<f32>().par_chunks(PIECE).zip(q.storage::<f32>().par_chunks(PIECE));
        pieces(&mut out).zip(operands).for_each(|(out, (p, q))| {
            for (out, (p, q)) in out.iter_mut().zip(p.iter().zip(q)) {
                *out = p * sigmoid(*p) * q;
            }
        });
        out
    }

    fn expm1(u: Tensor) -> Tensor {
        let mut u = in_order(u);
        match u.dtype() {
            DType::F32 => pieces(&mut u).for_each(|u| u.iter_mut().for_each(|u| *u = u.exp_m1())),
            DType::F64 => {
                let pieces = u.storage_mut::<f64>().par_chunks_mut(PIECE);
                pieces.for_each(|u| u.iter_mut().for_each(|u| *u = u.exp_m1()));
            }
            _ => return expm1_by_ops::<Self>(u),
        }
        u
    }
}

impl GateGradients for Flex {
    fn sigmoid_gradient(gate: Tensor, gradient: Tensor) -> Tensor {
        if gate.dtype() != DType::F32 {
            return Self::sigmoid_backward(gate, gradient);
        }
        let (gate, mut gradient) = (in_order(gate), in_order(gradient));
        pieces(&mut gradient).zip(gate.storage::<f32>().par_chunks(PIECE)).for_each(|(gradient, gate)| {
            for (gradient, s) in gradient.iter_mut().zip(gate) {
                *gradient *= s * (1.0 - s);
            }
        });
        gradient
    }

    fn swish_gradients(p: Tensor, q: Tensor, gradient: Tensor) -> [Tensor; 2] {
        if p.dtype() != DType::F32 {
            return swish_gradients_by_ops::<Self>(p, q, gradient);
        }
        let (mut p, mut q, gradient) = (in_order(p), in_order(q), in_order(gradient));
        let gradients = gradient.storage::<f32>().par_chunks(PIECE);
        pieces(&mut p).zip(pieces(&mut q)).zip(gradients).for_each(|((p, q), gradient)| {
            for ((p, q), g) in p.iter_mut().zip(q).zip(gradient) {
                let s = sigmoid(*p);
                let silu = *p * s;
                // d silu/dp = s + p·s·(1 − s).
                (*p, *q) = (g * *q * (s + silu * (1.0 - s)), g * silu);
            }
        });
        [p, q]
    }
}

fn pieces(tensor: &mut Tensor) -> rayon::slice::ChunksMut<'_, f32> {
    tensor.storage_mut::<f32>().par_chunks_mut(PIECE)
}

/// The tensor whose memory is its elements in order and no others; a narrowed one is a part of its memory.
fn in_order(tensor: Tensor) -> Tensor {
    let whole = tensor.bytes().len() == tensor.shape().num_elements() * tensor.dtype().size();
    if whole && tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

#[inline]
fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + exp(-z))
}

/// exp(x) to two units in the last place; below f32's range it is 1e-38, above infinity, and of NaN NaN. Unlike the
/// library's, the compiler turns a loop over it into vector instructions.
#[inline]
fn exp(x: f32) -> f32 {
    // Adding this rounds to an integer, which then is in the sum's low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has so few bits that its product with n is exact. As in Cephes, and the polynomial too.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const POLYNOMIAL: [f32; 6] =
        [1.987_569_2e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
    let x = x.clamp(-87.0, 89.0);
    // x = n·ln 2 + r.
    let rounded = x * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let tail = POLYNOMIAL.iter().fold(0.0, |sum, c| sum * r + c);
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    (tail * r * r + r + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigmoid_is_exact_to_f32_everywhere() {
        for step in -1_000_000..=1_000_000 {
            let z = step as f32 * 1e-4;
            let expected = 1.0 / (1.0 + (-f64::from(z)).exp());
            let off = (f64::from(sigmoid(z)) - expected).abs();
            assert!(off <= 3e-7 * expected + 1e-38, "σ({z}) is {} and not {expected}", sigmoid(z));
        }
        assert!(sigmoid(f32::NAN).is_nan());
        assert_eq!([f32::NEG_INFINITY, f32::INFINITY].map(sigmoid), [0.0, 1.0]);
    }

    #[test]
    fn what_somebody_else_holds_stays_as_it_is() {
        let held = Tensor::from_data(burn::tensor::TensorData::new(vec![-1.0f32, 0.0, 2.0, 3.0], [2, 2]));
        let before = held.storage::<f32>().to_vec();
        let part = held.narrow(1, 1, 1);
        assert_eq!(Flex::sigmoid_gate(part).storage::<f32>(), &[0.5, sigmoid(3.0)]);
        let [dp, dq] = Flex::swish_gradients(held.clone(), held.clone(), held.clone());
        assert_eq!((dp.shape(), dq.shape()), (held.shape(), held.shape()));
        assert_eq!(held.storage::<f32>(), before);
    }
}
