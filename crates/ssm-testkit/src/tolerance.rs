//! The error contract, and the comparison that holds a backend to it.
//!
//! A norm over a large tensor forgives one wrong element, so every element is bounded too: by half a unit in the last
//! place of its own storage, plus what accumulation may add at the scale of the tensor.

use ssm_core::{Algorithm, DType, Operand};

use crate::HostTensor;

/// The most that ‖out − ref‖ / ‖ref‖ may be for an output stored in the type.
pub const fn contract(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-6,
        DType::F16 => 6e-4,
        DType::Bf16 => 5e-3,
        DType::F64 => 1e-12,
    }
}

/// The most that an output stored in `dtype` may be off, for the algorithm that ran.
///
/// The contract, but for one allowance: accumulator outputs of the sequential loop may be off by ten times as much. It
/// rounds the state at every step, so that its error grows with the memory of the gates (2e-6 was seen at 65,537 steps
/// with gates up to 0.9997), where a fold over chunks rounds what it hands on once. Cases with a memory past that are
/// [`crate::Case::folded`].
pub fn allowance(dtype: DType, algorithm: Algorithm) -> f64 {
    match dtype {
        DType::F32 | DType::F64 if algorithm == Algorithm::Sequential => 10.0 * contract(dtype),
        _ => contract(dtype),
    }
}

/// Half a unit in the last place, relative, and the smallest step, absolute.
const fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F32 => (1.0 / (1u64 << 24) as f64, 1e-44),
        DType::F16 => (1.0 / (1u64 << 11) as f64, 6e-8),
        DType::Bf16 => (1.0 / (1u64 << 8) as f64, 1e-40),
        DType::F64 => (1.0 / (1u64 << 53) as f64, 5e-324),
    }
}

/// How a tensor differs from its reference.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// Not as many elements.
    #[error("{operand} has {got} elements, the reference {expected}")]
    Length {
        /// The output.
        operand: Operand,
        /// Elements of the reference.
        expected: usize,
        /// Elements got.
        got: usize,
    },
    /// NaN or Inf where the plain loop is finite, or the other way round. An element that nobody wrote looks so too.
    #[error(
        "{operand} at (b, t, d) = {at:?} is {got}, the plain loop gives {expected}; {count} such elements"
    )]
    NonFinite {
        /// The output.
        operand: Operand,
        /// Where first.
        at: [usize; 3],
        /// The reference.
        expected: f64,
        /// What came.
        got: f64,
        /// How many differ so.
        count: usize,
    },
    /// An element beyond its bound.
    #[error(
        "{operand} at (b, t, d) = {at:?} is {got}, expected {expected} within {allowed:e}; relative error of \
             the tensor {relative:e}"
    )]
    Element {
        /// The output.
        operand: Operand,
        /// Where worst.
        at: [usize; 3],
        /// The reference.
        expected: f64,
        /// What came.
        got: f64,
        /// How far it may be off.
        allowed: f64,
        /// ‖out − ref‖ / ‖ref‖.
        relative: f64,
    },
    /// The tensor as a whole is beyond the contract.
    #[error(
        "{operand} is off by {relative:e} relative, {allowed:e} allowed; worst at (b, t, d) = {at:?}: {got}, \
             expected {expected}"
    )]
    Norm {
        /// The output.
        operand: Operand,
        /// ‖out − ref‖ / ‖ref‖.
        relative: f64,
        /// The contract.
        allowed: f64,
        /// The worst element.
        at: [usize; 3],
        /// Its reference.
        expected: f64,
        /// What came.
        got: f64,
    },
}

/// Where element `index` lies in a tensor of shape (b, t, d); states have t = 1.
pub fn place(index: usize, shape: [usize; 3]) -> [usize; 3] {
    let [_, len, channels] = shape.map(|n| n.max(1));
    [index / channels / len, index / channels % len, index % channels]
}

/// ‖out − ref‖ / ‖ref‖ when `got` holds the contract of its own type, finite exactly where the reference is.
///
/// # Errors
///
/// [`Mismatch`], naming the worst element.
pub fn compare(
    operand: Operand,
    got: &HostTensor,
    reference: &[f64],
    shape: [usize; 3],
) -> Result<f64, Mismatch> {
    compare_within(operand, got, reference, shape, contract(got.dtype()))
}

/// [`compare`] with another bound than the contract's on ‖out − ref‖ / ‖ref‖.
///
/// # Errors
///
/// [`Mismatch`], naming the worst element.
pub fn compare_within(
    operand: Operand,
    got: &HostTensor,
    reference: &[f64],
    shape: [usize; 3],
    allowed: f64,
) -> Result<f64, Mismatch> {
    let dtype = got.dtype();
    let values = got.to_f64();
    if values.len() != reference.len() {
        return Err(Mismatch::Length { operand, expected: reference.len(), got: values.len() });
    }
    // A reference beyond the storage type's range is an infinity there, rightly.
    let stored = HostTensor::from_f64(dtype, reference).to_f64();
    let differs = |i: &usize| {
        values[*i].is_finite() != stored[*i].is_finite() && !at_the_edge(dtype, reference[*i], values[*i])
    };
    if let Some(first) = (0..values.len()).find(differs) {
        return Err(Mismatch::NonFinite {
            operand,
            at: place(first, shape),
            expected: reference[first],
            got: values[first],
            count: (first..values.len()).filter(differs).count(),
        });
    }

    let finite = || (0..values.len()).filter(|&i| values[i].is_finite());
    let scale = finite().map(|i| reference[i].abs()).fold(0.0, f64::max);
    let (unit, smallest) = rounding(dtype);
    // Twice, for what a rounding tie or the accumulation just before it can move.
    let bound =
        |i: usize| 2.0 * unit * reference[i].abs() + smallest + 20.0 * contract(dtype.accumulator()) * scale;
    // Scaled, so that squares neither overflow nor underflow.
    let norm = if scale > 0.0 { scale } else { 1.0 };
    let (mut error, mut size) = (0.0, 0.0);
    let mut worst: Option<(usize, f64)> = None;
    for i in finite() {
        let off = (values[i] - reference[i]).abs();
        error += (off / norm) * (off / norm);
        size += (reference[i] / norm) * (reference[i] / norm);
        let share = off / bound(i);
        if worst.is_none_or(|(_, most)| share > most) {
            worst = Some((i, share));
        }
    }
    let relative = if error == 0.0 { 0.0 } else { (error / size).sqrt() };
    let Some((i, share)) = worst else { return Ok(0.0) };
    let (at, expected, got) = (place(i, shape), reference[i], values[i]);
    if share > 1.0 {
        return Err(Mismatch::Element { operand, at, expected, got, allowed: bound(i), relative });
    }
    // An output that is zero or below the smallest step throughout has no relative error to speak of.
    if relative > allowed && scale > smallest / unit {
        return Err(Mismatch::Norm { operand, relative, allowed, at, expected, got });
    }
    Ok(relative)
}

/// Whether the reference lies so close to where the type overflows that what accumulation may add decides between its
/// largest value and infinity. Then either is right, with the reference's sign.
fn at_the_edge(dtype: DType, reference: f64, got: f64) -> bool {
    let slack = 20.0 * contract(dtype.accumulator());
    let around =
        HostTensor::from_f64(dtype, &[reference * (1.0 - slack), reference * (1.0 + slack)]).to_f64();
    let decides = around.iter().any(|v| v.is_finite()) && around.iter().any(|v| v.is_infinite());
    decides && !got.is_nan() && got.is_sign_negative() == reference.is_sign_negative()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn against(values: &[f64], reference: &[f64]) -> Result<f64, Mismatch> {
        compare(
            Operand::Y,
            &HostTensor::F32(values.iter().map(|&v| v as f32).collect()),
            reference,
            [1, 2, 2],
        )
    }

    #[test]
    fn equal_tensors_pass_and_the_error_is_zero() {
        assert_eq!(against(&[1.0, -2.0, 0.0, 4.0], &[1.0, -2.0, 0.0, 4.0]), Ok(0.0));
    }

    #[test]
    fn an_element_that_nobody_wrote_is_named() {
        let missing = against(&[1.0, 2.0, f64::NAN, 4.0], &[1.0, 2.0, 3.0, 4.0]);
        assert!(matches!(missing, Err(Mismatch::NonFinite { at: [0, 1, 0], count: 1, .. })), "{missing:?}");
    }

    #[test]
    fn the_norm_is_held_where_every_element_is_near() {
        let off: Vec<f64> = (0..4).map(|i| (i + 1) as f64 * (1.0 + 3e-6)).collect();
        assert!(matches!(against(&off, &[1.0, 2.0, 3.0, 4.0]), Err(Mismatch::Norm { .. })));
    }

    #[test]
    fn one_wrong_element_of_many_is_caught_in_every_type() {
        for dtype in DType::ALL {
            let reference: Vec<f64> = (0..1 << 20).map(|i| 1.0 + f64::from(i % 7)).collect();
            let mut values = reference.clone();
            values[777_777] *= 1.1;
            let got = HostTensor::from_f64(dtype, &values);
            let result = compare(Operand::Dx, &got, &reference, [1, 1 << 20, 1]);
            assert!(
                matches!(result, Err(Mismatch::Element { at: [0, 777_777, 0], .. })),
                "{dtype}: {result:?}"
            );
        }
    }

    #[test]
    fn infinities_where_the_type_ends_are_right() {
        let got = HostTensor::from_f64(DType::F16, &[1e6, 1.0]);
        assert!(compare(Operand::Y, &got, &[1e6, 1.0], [1, 2, 1]).is_ok());
    }

    #[test]
    fn a_wrong_length_is_not_compared() {
        assert!(matches!(against(&[1.0], &[1.0, 2.0]), Err(Mismatch::Length { .. })));
    }

    #[test]
    fn only_at_the_edge_of_the_type_may_a_finite_value_stand_for_infinity() {
        let compare = |value: f64, reference: f64| {
            compare(Operand::Y, &HostTensor::from_f64(DType::F16, &[value]), &[reference], [1, 1, 1])
        };
        // 65,520 is where f16 rounds to infinity.
        assert!(compare(65504.0, 65520.002).is_ok());
        assert!(compare(f64::INFINITY, 65519.998).is_ok());
        for (value, reference) in [
            (65504.0, 65560.0),
            (f64::INFINITY, 65500.0),
            (f64::NAN, 65519.998),
            (f64::NEG_INFINITY, 65519.998),
        ] {
            assert!(
                matches!(compare(value, reference), Err(Mismatch::NonFinite { .. })),
                "{value} {reference}"
            );
        }
    }
}
