//! What must not change a bit: another run, the rest of the batch, tiles, the order of rows and channels, packing, and
//! whether time is marched or chunked.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use ssm_core::{Algorithm, DType, GatedScan, Grads, MemoryTile, Operand};

use super::{List, algorithm_name, check_bits, is_state};
use crate::oracle::Inputs;
use crate::rows::sequences;
use crate::{AnyOp, Failure, HostTensor, Ran, Subject, Values, draw, rng};

/// One law on one backend, type and algorithm.
struct Trial<'a> {
    subject: &'a dyn Subject,
    dtype: DType,
    algorithm: Option<Algorithm>,
    rng: StdRng,
}

type Law = fn(&mut Trial<'_>) -> Result<(), Failure>;

const LAWS: [(&str, Law); 9] = [
    ("run_to_run", run_to_run),
    ("batch_companions", batch_companions),
    ("memory_tiles", memory_tiles),
    ("channels_split", channels_split),
    ("channels_permuted", channels_permuted),
    ("rows_permuted", rows_permuted),
    ("packed_is_separate", packed_is_separate),
    ("zero_gate_cuts_the_past", zero_gate_cuts_the_past),
    ("scaled_by_two", scaled_by_two),
];

pub(super) fn list(list: &mut List) {
    let Ok(probe) = GatedScan::builder(2, 300, 8).build() else { return };
    let algorithms = list.algorithms(&probe);
    for dtype in list.dtypes() {
        for (name, law) in LAWS {
            for &algorithm in &algorithms {
                let name = format!("bitwise::{name}::{dtype}::{}", algorithm_name(algorithm));
                list.push(name, false, move |subject, name| {
                    law(&mut Trial { subject, dtype, algorithm, rng: rng(name) })
                });
            }
        }
        if [Algorithm::March, Algorithm::Chunked].iter().all(|a| algorithms.contains(&Some(*a))) {
            // The last is long enough for groups that grow with the length to have grown.
            for shape in [[2, 300, 40], [1, 4099, 5], [3, 64, 17], [1, 1000, 300], [1, 16_500, 6]] {
                let [b, l, d] = shape;
                let name = format!("bitwise::march_is_chunked_{b}_{l}_{d}::{dtype}");
                list.push(name, false, move |subject, name| {
                    march_is_chunked(&mut Trial { subject, dtype, algorithm: None, rng: rng(name) }, shape)
                });
            }
        }
    }
}

impl Trial<'_> {
    fn problem(&self, shape: [usize; 3]) -> Result<GatedScan, Failure> {
        let [b, l, d] = shape;
        let builder = GatedScan::builder(b, l, d).dtype(self.dtype).initial_state(true).final_state(true);
        Ok(builder.reverse(l % 2 == 1).build()?)
    }

    fn draw(&mut self, problem: &GatedScan) -> Inputs {
        let values = if self.rng.random() { Values::Usual } else { Values::ZeroGates };
        draw(values, problem, true, &mut self.rng)
    }

    fn train(&self, problem: &GatedScan, inputs: &Inputs) -> Result<Ran, Failure> {
        Ok(self.subject.train(problem, Grads::all(problem), self.algorithm, inputs)?)
    }
}

type Outputs = Vec<(Operand, HostTensor)>;

/// Some rows, sequences and channels of every output.
fn part(ran: &Ran, d: usize, rows: &[usize], states: &[usize], channels: &[usize]) -> Outputs {
    let rows_of = |operand| if is_state(operand) { states } else { rows };
    ran.outputs.iter().map(|(o, t)| (*o, t.gather(d, rows_of(*o), channels))).collect()
}

fn all(n: usize) -> Vec<usize> {
    (0..n).collect()
}

fn run_to_run(t: &mut Trial<'_>) -> Result<(), Failure> {
    for shape in [[3, 257, 33], [1, 3001, 2]] {
        let problem = t.problem(shape)?;
        let inputs = t.draw(&problem);
        let first = t.train(&problem, &inputs)?;
        for _ in 0..2 {
            check_bits(
                "a run is like the one before it",
                &first.outputs,
                &t.train(&problem, &inputs)?.outputs,
            )?;
        }
    }
    Ok(())
}

fn batch_companions(t: &mut Trial<'_>) -> Result<(), Failure> {
    for shape in [[5, 150, 24], [17, 200, 3]] {
        let [batch, len, d] = shape;
        let (problem, alone) = (t.problem(shape)?, t.problem([1, len, d])?);
        let inputs = t.draw(&problem);
        let together = t.train(&problem, &inputs)?;
        for b in 0..batch {
            let rows: Vec<usize> = (b * len..(b + 1) * len).collect();
            let ran = t.train(&alone, &inputs.part(d, &rows, &[b], &all(d)))?;
            let expected = part(&together, d, &rows, &[b], &all(d));
            check_bits("a row of a batch is as it is alone", &expected, &ran.outputs)?;
        }
    }
    Ok(())
}

fn memory_tiles(t: &mut Trial<'_>) -> Result<(), Failure> {
    let problem = t.problem([4, 333, 45])?;
    let inputs = t.draw(&problem);
    let whole = t.train(&problem, &inputs)?;
    for (batch, channels) in [(Some(1), None), (None, Some(7)), (Some(3), Some(16)), (Some(9), Some(1))] {
        let tiled = problem.to_builder().tile(MemoryTile { batch, channels }).build()?;
        check_bits("a memory tile changes nothing", &whole.outputs, &t.train(&tiled, &inputs)?.outputs)?;
    }
    Ok(())
}

fn channels_split(t: &mut Trial<'_>) -> Result<(), Failure> {
    let [batch, len, d] = [2, 217, 77];
    let problem = t.problem([batch, len, d])?;
    let inputs = t.draw(&problem);
    let whole = t.train(&problem, &inputs)?;
    let cut = t.rng.random_range(1..d);
    for channels in [(0..cut).collect::<Vec<_>>(), (cut..d).collect()] {
        let some = t.problem([batch, len, channels.len()])?;
        let ran = t.train(&some, &inputs.part(d, &all(batch * len), &all(batch), &channels))?;
        let expected = part(&whole, d, &all(batch * len), &all(batch), &channels);
        check_bits("some channels are as among all", &expected, &ran.outputs)?;
    }
    Ok(())
}

fn channels_permuted(t: &mut Trial<'_>) -> Result<(), Failure> {
    let [batch, len, d] = [2, 140, 51];
    let problem = t.problem([batch, len, d])?;
    let inputs = t.draw(&problem);
    let mut order = all(d);
    order.shuffle(&mut t.rng);
    let expected = part(&t.train(&problem, &inputs)?, d, &all(batch * len), &all(batch), &order);
    let ran = t.train(&problem, &inputs.part(d, &all(batch * len), &all(batch), &order))?;
    check_bits("permuting channels permutes results", &expected, &ran.outputs)
}

fn rows_permuted(t: &mut Trial<'_>) -> Result<(), Failure> {
    let [batch, len, d] = [7, 131, 10];
    let problem = t.problem([batch, len, d])?;
    let inputs = t.draw(&problem);
    let mut states = all(batch);
    states.shuffle(&mut t.rng);
    let rows: Vec<usize> = states.iter().flat_map(|b| b * len..(b + 1) * len).collect();
    let expected = part(&t.train(&problem, &inputs)?, d, &rows, &states, &all(d));
    let ran = t.train(&problem, &inputs.part(d, &rows, &states, &all(d)))?;
    check_bits("permuting rows permutes results", &expected, &ran.outputs)
}

fn packed_is_separate(t: &mut Trial<'_>) -> Result<(), Failure> {
    let d = 13;
    let cu = [0, 64, 64, 65, 200, 457, 520];
    for reverse in [false, true] {
        let problem = t.problem([1, 530, d])?.to_builder().cu_seqlens(&cu).reverse(reverse).build()?;
        let inputs = t.draw(&problem);
        let packed = t.train(&problem, &inputs)?;
        for sequence in sequences(&problem) {
            let rows: Vec<usize> = sequence.rows.clone().collect();
            let alone = t.problem([1, rows.len(), d])?.to_builder().reverse(reverse).build()?;
            let ran = t.train(&alone, &inputs.part(d, &rows, &[sequence.index], &all(d)))?;
            let expected = part(&packed, d, &rows, &[sequence.index], &all(d));
            check_bits("a packed sequence is as it is alone", &expected, &ran.outputs)?;
        }
    }
    Ok(())
}

fn zero_gate_cuts_the_past(t: &mut Trial<'_>) -> Result<(), Failure> {
    let [batch, len, d] = [2, 300, 9];
    let problem = t.problem([batch, len, d])?;
    let mut inputs = t.draw(&problem);
    let cut = t.rng.random_range(1..len);
    let rows = |from: usize, to: usize| -> Vec<usize> {
        (0..batch).flat_map(|b| b * len + from..b * len + to).collect()
    };
    rows(cut, cut + 1).into_iter().for_each(|row| inputs.a[row * d..(row + 1) * d].fill(0.0));
    let first = t.train(&problem, &inputs)?;
    let other = t.draw(&problem);
    let mut changed = inputs.clone();
    for i in rows(0, cut).into_iter().flat_map(|row| row * d..(row + 1) * d) {
        changed.x[i] = other.x[i];
    }
    changed.h0 = other.h0;
    let second = t.train(&problem, &changed)?;
    let after = |ran: &Ran| -> Outputs {
        let mut kept = part(ran, d, &rows(cut, len), &all(batch), &all(d));
        // da at the cut itself is h before it times g: the past, rightly.
        kept.retain(|(o, _)| matches!(o, Operand::Y | Operand::FinalState | Operand::Dx | Operand::Db));
        kept
    };
    check_bits("nothing before a gate of 0 is remembered", &after(&first), &after(&second))
}

/// Twice the signal is twice the result: doubling is exact, whatever the order of additions.
fn scaled_by_two(t: &mut Trial<'_>) -> Result<(), Failure> {
    if t.dtype == DType::F16 {
        // Results below the smallest normal number do not scale; the law of sums holds f16 to linearity.
        return linear_in_f16(t);
    }
    let problem = t.problem([2, 321, 21])?;
    let inputs = draw(Values::Usual, &problem, true, &mut t.rng);
    let twice = |v: &[f64]| v.iter().map(|v| 2.0 * v).collect::<Vec<_>>();
    let doubled = Inputs { x: twice(&inputs.x), h0: inputs.h0.as_deref().map(twice), ..inputs.clone() };
    let forward = |inputs: &Inputs| t.subject.forward(&problem, t.algorithm, inputs);
    let mut expected = forward(&inputs)?.outputs;
    for (_, tensor) in &mut expected {
        *tensor = HostTensor::from_f64(tensor.dtype(), &twice(&tensor.to_f64()));
    }
    check_bits("twice the input is twice the output", &expected, &forward(&doubled)?.outputs)
}

/// f16 by its accumulator: hT is f32 and scales.
fn linear_in_f16(t: &mut Trial<'_>) -> Result<(), Failure> {
    let problem = t.problem([2, 321, 21])?;
    let inputs = draw(Values::Usual, &problem, false, &mut t.rng);
    let twice = |v: &[f64]| v.iter().map(|v| 2.0 * v).collect::<Vec<_>>();
    let doubled = Inputs { x: twice(&inputs.x), h0: inputs.h0.as_deref().map(twice), ..inputs.clone() };
    let last = |inputs: &Inputs| -> Result<Outputs, Failure> {
        let mut ran = t.subject.forward(&problem, t.algorithm, inputs)?;
        ran.outputs.retain(|(o, _)| *o == Operand::FinalState);
        Ok(ran.outputs)
    };
    let mut expected = last(&inputs)?;
    for (_, tensor) in &mut expected {
        *tensor = HostTensor::from_f64(tensor.dtype(), &twice(&tensor.to_f64()));
    }
    check_bits("twice the input is twice the state", &expected, &last(&doubled)?)
}

fn march_is_chunked(t: &mut Trial<'_>, shape: [usize; 3]) -> Result<(), Failure> {
    let problem = t.problem(shape)?;
    let inputs = t.draw(&problem);
    let mut run = |algorithm| {
        t.algorithm = Some(algorithm);
        t.train(&problem, &inputs)
    };
    let (march, chunked) = (run(Algorithm::March)?, run(Algorithm::Chunked)?);
    check_bits("marched is chunked", &march.outputs, &chunked.outputs)?;
    // What forward saved too: backward may follow with the other algorithm.
    let host = inputs.host(&problem);
    let op = AnyOp::Forward(problem.forward());
    let saved = |algorithm| -> Result<Outputs, Failure> {
        let call = crate::Call::new(&op, Some(algorithm), &host);
        Ok(t.subject.run(&call)?.outputs.into_iter().filter(|(o, _)| *o == Operand::Saved).collect())
    };
    check_bits("marched saves what chunked saves", &saved(Algorithm::March)?, &saved(Algorithm::Chunked)?)
}
