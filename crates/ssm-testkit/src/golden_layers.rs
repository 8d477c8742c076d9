//! The layers' golden vectors, in float64 over the oracle: what shows that the files are read as they were meant.

use ssm_core::{DType, GatedScan, Operand};

use crate::golden::{Golden, GoldenError};
use crate::oracle::{Inputs, run};
use crate::tolerance::compare_within;
use crate::{Failure, HostTensor};

fn sigmoid(v: f64) -> f64 {
    1.0 / (1.0 + (-v).exp())
}

fn batch_len_channels(golden: &Golden) -> Result<[usize; 3], GoldenError> {
    match golden.tensor("x")?.shape[..] {
        [b, l, d] => Ok([b, l, d]),
        _ => golden.shaped("x", &[0; 3]).map(|_| [0; 3]),
    }
}

fn hold(operand: Operand, got: &[f64], expected: &[f64], shape: [usize; 3]) -> Result<(), Failure> {
    compare_within(operand, &HostTensor::from_f64(DType::F64, got), expected, shape, 1e-11)?;
    Ok(())
}

/// y and hT of the RG-LRU; a reset sets a = 0 and m = 1.
pub(crate) fn check_rg_lru(golden: &Golden) -> Result<(), Failure> {
    let [batch, len, d] = batch_len_channels(golden)?;
    let heads = golden.tensor("b_a")?.shape.first().copied().unwrap_or(1).max(1);
    let k = d / heads;
    let full = [batch, len, d];
    let x = golden.shaped("x", &full)?;
    let gate = |weight: &str, bias: &str| -> Result<Vec<f64>, GoldenError> {
        let (w, beta) = (golden.shaped(weight, &[heads, k, k])?, golden.shaped(bias, &[heads, k])?);
        let at = |i: usize| {
            let (row, head, j) = (i / d, i % d / k, i % k);
            let sum = (0..k).map(|n| x[row * d + head * k + n] * w[(head * k + n) * k + j]).sum::<f64>();
            sigmoid(sum + beta[head * k + j])
        };
        Ok((0..x.len()).map(at).collect())
    };
    let (r, input) = (gate("w_a", "b_a")?, gate("w_input", "b_input")?);
    let lambda = golden.shaped("a_param", &[d])?;
    let reset = golden.shaped("reset", &[batch, len])?;
    let log_a: Vec<f64> = (0..x.len()).map(|i| -8.0 * r[i] * lambda[i % d].exp().ln_1p()).collect();
    let is_reset = |i: usize| reset[i / d] != 0.0;
    let a = (0..x.len()).map(|i| if is_reset(i) { 0.0 } else { log_a[i].exp() }).collect();
    let m = |i: usize| if is_reset(i) { 1.0 } else { (-(2.0 * log_a[i]).exp_m1()).sqrt() };
    let problem = GatedScan::builder(batch, len, d).dtype(DType::F64).build()?;
    let inputs = Inputs {
        x: x.to_vec(),
        a,
        b: Some((0..x.len()).map(|i| m(i) * input[i]).collect()),
        h0: Some(golden.shaped("h0", &[batch, d])?.to_vec()),
        dy: golden.shaped("dy", &full)?.to_vec(),
        ..Inputs::default()
    };
    let out = run(&problem, &inputs);
    hold(Operand::Y, &out.y, golden.shaped("y", &full)?, full)?;
    hold(Operand::FinalState, &out.final_state, golden.shaped("hT", &[batch, d])?, [batch, 1, d])?;
    hold(Operand::Dh0, &out.dh0, golden.shaped("dh0", &[batch, d])?, [batch, 1, d])?;
    let gradients: [(&str, &[usize]); 6] = [
        ("dx", &full),
        ("da_param", &[d]),
        ("dw_a", &[heads, k, k]),
        ("db_a", &[heads, k]),
        ("dw_input", &[heads, k, k]),
        ("db_input", &[heads, k]),
    ];
    present(golden, &gradients)
}

/// y of the gated SSM layer.
pub(crate) fn check_gated_ssm(golden: &Golden) -> Result<(), Failure> {
    let [batch, len, d] = batch_len_channels(golden)?;
    let full = [batch, len, d];
    let state = golden.tensor("a_bias")?.values.len();
    let x = golden.shaped("x", &full)?;
    let norm = golden.shaped("norm_weight", &[d])?;
    let mean_square = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>() / d as f64;
    let normed: Vec<f64> = x
        .chunks(d)
        .flat_map(|row| {
            let scale = (mean_square(row) + 1e-5).sqrt();
            row.iter().zip(norm).map(move |(v, w)| v * w / scale)
        })
        .collect();
    // (rows, n) times the transpose of a (out, n) weight.
    let linear = |rows: &[f64], weight: &str, out: usize, n: usize| -> Result<Vec<f64>, GoldenError> {
        let w = golden.shaped(weight, &[out, n])?;
        let dot = |row: &[f64], o: usize| row.iter().zip(&w[o * n..]).map(|(v, w)| v * w).sum::<f64>();
        Ok(rows.chunks(n).flat_map(|row| (0..out).map(move |o| dot(row, o))).collect())
    };
    let project = |weight: &str| linear(&normed, weight, state, d);
    let bias = golden.shaped("a_bias", &[state])?;
    let (ca, cb) = (project("c_a_weight")?, project("c_b_weight")?);
    let inputs = Inputs {
        x: project("b_weight")?,
        a: project("a_weight")?.iter().enumerate().map(|(i, v)| sigmoid(v + bias[i % state])).collect(),
        b: Some(project("d_weight")?.into_iter().map(sigmoid).collect()),
        c: Some(ca.iter().zip(&cb).map(|(u, v)| u * sigmoid(*u) * v).collect()),
        dy: vec![0.0; batch * len * state],
        ..Inputs::default()
    };
    let problem = GatedScan::builder(batch, len, state).dtype(DType::F64).build()?;
    let out_bias = golden.shaped("out_bias", &[d])?;
    let projected = linear(&run(&problem, &inputs).y, "out_weight", d, state)?;
    let y: Vec<f64> =
        projected.iter().zip(x).enumerate().map(|(i, (p, x))| p + out_bias[i % d] + x).collect();
    hold(Operand::Y, &y, golden.shaped("y", &full)?, full)?;
    let gradients: [(&str, &[usize]); 10] = [
        ("dx", &full),
        ("dnorm_weight", &[d]),
        ("da_weight", &[state, d]),
        ("da_bias", &[state]),
        ("db_weight", &[state, d]),
        ("dc_a_weight", &[state, d]),
        ("dc_b_weight", &[state, d]),
        ("dd_weight", &[state, d]),
        ("dout_weight", &[d, state]),
        ("dout_bias", &[d]),
    ];
    present(golden, &gradients)
}

/// The gradients that a layer's own tests will need, there in their shapes.
fn present(golden: &Golden, tensors: &[(&str, &[usize])]) -> Result<(), Failure> {
    for (tensor, shape) in tensors {
        golden.shaped(tensor, shape)?;
    }
    Ok(())
}
