//! What is measured: one table of cases for all backends.
//!
//! A case is a problem and a direction. Its name is what `--filter` looks at and what two result files are matched by.

use std::fmt;

use ssm_core::{Algorithm, Checkpoint, DType, GatedScan, ProblemError};
use ssm_testkit::drift::{Gates, Probe};

/// Which passes one sample runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Forward as in inference: nothing is left behind for backward.
    Forward,
    /// Backward, after one forward outside the clock.
    Backward,
    /// Forward and backward.
    Train,
}

impl Direction {
    /// The name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Train => "train",
        }
    }
}

/// What sets a case apart from the plain scan with b and c.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The recurrence alone: no b, no c.
    pub h_only: bool,
    /// Time from the last step to the first.
    pub reverse: bool,
    /// This many packed sequences of mixed length in one row.
    pub packed: Option<usize>,
    /// What forward leaves for backward; the default policy when `None`.
    pub checkpoint: Option<Checkpoint>,
    /// This algorithm and no other.
    pub algorithm: Option<Algorithm>,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.h_only.then(|| "h-only".to_owned()),
            self.reverse.then(|| "reverse".to_owned()),
            self.packed.map(|n| format!("packed-{n}")),
            self.checkpoint.map(|c| format!("keep-{c}")),
            self.algorithm.map(|a| a.to_string()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "plain" } else { "" })?;
        f.write_str(&parts.join("+"))
    }
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Case {
    /// [B, L, D].
    pub shape: [usize; 3],
    /// The storage type.
    pub dtype: DType,
    /// The passes.
    pub direction: Direction,
    /// What is unlike the plain scan.
    pub variant: Variant,
}

/// How many full-size tensors one pass reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Tensors read.
    pub reads: usize,
    /// Tensors written.
    pub writes: usize,
    /// The bytes of each.
    pub tensor_bytes: u64,
}

impl Traffic {
    /// Every tensor once.
    pub fn bytes(&self) -> u64 {
        (self.reads + self.writes) as u64 * self.tensor_bytes
    }
}

impl Case {
    /// The op, as results name it.
    pub const OP: &'static str = "gated_scan";

    /// The problem behind the case.
    ///
    /// # Errors
    ///
    /// [`ProblemError`] for a shape that this address space cannot hold.
    pub fn problem(&self) -> Result<GatedScan, ProblemError> {
        let [batch, len, channels] = self.shape;
        let v = self.variant;
        let policy = match self.direction {
            Direction::Forward => v.checkpoint.unwrap_or(Checkpoint::Nothing),
            _ => v.checkpoint.unwrap_or_default(),
        };
        let mut builder = GatedScan::builder(batch, len, channels)
            .dtype(self.dtype)
            .b(!v.h_only)
            .c(!v.h_only)
            .reverse(v.reverse)
            .checkpoint(policy);
        if let Some(sequences) = v.packed {
            builder = builder.cu_seqlens(&mixed_lengths(len, sequences));
        }
        builder.build()
    }

    /// The passes of one sample: each full-size tensor counted once at its element size, states not counted.
    pub fn passes(&self) -> Vec<Traffic> {
        let operands = if self.variant.h_only { 2 } else { 4 };
        let tensor_bytes = self.shape.iter().map(|&n| n as u64).product::<u64>() * self.dtype.size();
        let forward = Traffic { reads: operands, writes: 1, tensor_bytes };
        let backward = Traffic { reads: operands + 1, writes: operands, tensor_bytes };
        match self.direction {
            Direction::Forward => vec![forward],
            Direction::Backward => vec![backward],
            Direction::Train => vec![forward, backward],
        }
    }

    /// The bytes of all passes.
    pub fn bytes(&self) -> u64 {
        self.passes().iter().map(Traffic::bytes).sum()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [b, l, d] = self.shape;
        let (op, direction) = (Self::OP, self.direction.name());
        write!(f, "{op}/{direction}/{}/{b}x{l}x{d}/{}", self.dtype, self.variant)
    }
}

/// `sequences + 1` boundaries over `len` rows: lengths from a third to five thirds of the mean, as they repeat.
fn mixed_lengths(len: usize, sequences: usize) -> Vec<usize> {
    let weights: Vec<usize> = (0..sequences).map(|i| 2 + (i * 7 + 3) % 9).collect();
    let total = weights.iter().sum::<usize>().max(1) as u128;
    let mut sum = 0u128;
    let ends = weights.iter().map(|&w| {
        sum += w as u128;
        (len as u128 * sum / total) as usize
    });
    std::iter::once(0).chain(ends).collect()
}

/// Which table a device is measured over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// A CPU's.
    Cpu,
    /// A GPU's: large enough to leave its caches.
    Gpu,
    /// A device emulated in software, which would take minutes over the others.
    Emulated,
}

const CPU_SHAPES: [[usize; 3]; 5] =
    [[4, 4096, 1024], [8, 2048, 512], [1, 262_144, 64], [1, 16_384, 1000], [64, 37, 300]];
const GPU_SHAPES: [[usize; 3]; 4] = [[8, 2048, 4096], [1, 1 << 20, 64], [1, 65_536, 1024], [4, 2048, 16]];
const EMULATED_SHAPES: [[usize; 3]; 3] = [[1, 2048, 256], [1, 16_384, 64], [64, 37, 300]];
const STORAGE: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// The cases of a device, the quick ones only if so asked. Cases over the same shape and type are neighbours.
pub fn cases(scale: Scale, quick: bool) -> Vec<Case> {
    let shapes: &[[usize; 3]] = match scale {
        Scale::Cpu => &CPU_SHAPES,
        Scale::Gpu => &GPU_SHAPES,
        Scale::Emulated => &EMULATED_SHAPES,
    };
    let mut cases = Vec::new();
    for &shape in shapes {
        for dtype in STORAGE {
            let directions = [Direction::Forward, Direction::Backward, Direction::Train];
            // Quick: training, which is what peers are measured at, in f32 only.
            let directions = if quick && dtype != DType::F32 { &directions[..2] } else { &directions[..] };
            let variant = Variant::default();
            cases.extend(directions.iter().map(|&direction| Case { shape, dtype, direction, variant }));
        }
    }
    cases.extend(tiny());
    // A chain on one lane of a GPU takes seconds.
    if scale == Scale::Cpu || !quick {
        cases.extend(policies(shapes[0]));
        cases.extend(shapes.iter().map(|&shape| sequential(shape, Direction::Forward)));
    }
    if !quick {
        cases.extend(shapes.iter().map(|&shape| sequential(shape, Direction::Backward)));
        cases.extend(variants(shapes[0]));
        if scale == Scale::Gpu {
            cases.extend(gpu_extra());
        }
        if scale != Scale::Emulated {
            cases.extend(sweeps(scale));
        }
    }
    cases
}

/// Problems so small that what is measured is the launch.
fn tiny() -> impl Iterator<Item = Case> {
    let variant = Variant::default();
    [[1, 1, 64], [1, 64, 64]].into_iter().flat_map(move |shape| {
        [Direction::Forward, Direction::Backward].map(|direction| Case {
            shape,
            dtype: DType::F32,
            direction,
            variant,
        })
    })
}

/// The plain loop along time, which every other algorithm has to beat.
fn sequential(shape: [usize; 3], direction: Direction) -> Case {
    let variant = Variant { algorithm: Some(Algorithm::Sequential), ..Variant::default() };
    Case { shape, dtype: DType::F32, direction, variant }
}

/// What each checkpoint policy takes in time and memory.
fn policies(shape: [usize; 3]) -> [Case; 3] {
    Checkpoint::ALL.map(|policy| {
        let variant = Variant { checkpoint: Some(policy), ..Variant::default() };
        Case { shape, dtype: DType::F32, direction: Direction::Train, variant }
    })
}

/// Every other option once, over one shape in f32.
fn variants(shape: [usize; 3]) -> Vec<Case> {
    let plain = Variant::default();
    let case = |direction, variant| Case { shape, dtype: DType::F32, direction, variant };
    let mut cases = Vec::new();
    let options = [Variant { h_only: true, ..plain }, Variant { reverse: true, ..plain }];
    for variant in options {
        cases.extend([Direction::Forward, Direction::Backward].map(|direction| case(direction, variant)));
    }
    let row = [1, shape[0] * shape[1], shape[2]];
    let packed = Variant { packed: Some(1000), ..plain };
    // Unpacked beside packed; where B = 1 the plain table has it already.
    for variant in [plain, packed].into_iter().skip(usize::from(shape[0] == 1)) {
        let of_row = |direction| Case { shape: row, ..case(direction, variant) };
        cases.extend([Direction::Forward, Direction::Backward].map(of_row));
    }
    cases
}

/// The largest shape, the recurrence alone, and sizes that divide nothing.
fn gpu_extra() -> Vec<Case> {
    let h_only = Variant { h_only: true, ..Variant::default() };
    let mut cases = Vec::new();
    for direction in [Direction::Forward, Direction::Backward] {
        let (dtype, variant) = (DType::F32, Variant::default());
        cases.push(Case { shape: [8, 65_536, 1536], dtype, direction, variant: h_only });
        cases.extend([1000, 4095].map(|d| Case { shape: [8, 2048, d], dtype, direction, variant }));
        cases.extend([1, 3, 100, 3001].map(|l| Case { shape: [8, l, 4096], dtype, direction, variant }));
    }
    cases
}

/// Time by L at fixed B·D and by D at fixed L: what the report draws on two logarithmic axes.
fn sweeps(scale: Scale) -> Vec<Case> {
    let most: usize = if scale == Scale::Gpu { 1 << 27 } else { 1 << 23 };
    let case =
        |shape| Case { shape, dtype: DType::F32, direction: Direction::Forward, variant: Variant::default() };
    let by_len = (4..=20).step_by(2).map(|e| [1, 1 << e, 256]);
    // (1, 1024, 256) lies on both lines and is there once.
    let by_channels = (4..=20).step_by(2).filter(|&e| e != 8).map(|e| [1, 1024, 1 << e]);
    by_len.chain(by_channels).filter(|s| s.iter().product::<usize>() <= most).map(case).collect()
}

/// What the error against float64 is measured on: every type, every second power of two from 2¹⁰.
pub fn probes(scale: Scale, quick: bool) -> Vec<Probe> {
    let longest = if quick || scale == Scale::Emulated { 14 } else { 20 };
    let lens: Vec<usize> = (10..=longest).step_by(2).map(|e| 1 << e).collect();
    let mut probes = Vec::new();
    for gates in Gates::ALL {
        for dtype in STORAGE {
            let probe = |&len: &usize| Probe { gates, dtype, len, algorithm: None, draws: 1 };
            probes.extend(lens.iter().map(probe));
        }
    }
    probes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_case_is_a_problem_and_has_a_name_of_its_own() {
        for scale in [Scale::Cpu, Scale::Gpu, Scale::Emulated] {
            let all = cases(scale, false);
            for case in &all {
                case.problem().unwrap_or_else(|e| panic!("{case}: {e}"));
            }
            let names: HashSet<String> = all.iter().map(Case::to_string).collect();
            assert_eq!(names.len(), all.len(), "{scale:?} has a case twice");
            assert!(cases(scale, true).iter().all(|c| all.contains(c)), "quick is a part of {scale:?}");
        }
    }

    #[test]
    fn bytes_count_each_full_size_tensor_once() {
        let case = cases(Scale::Cpu, true)[0];
        let tensor = 4 * 4096 * 1024 * 4;
        assert_eq!((case.direction, case.bytes()), (Direction::Forward, 5 * tensor));
        assert_eq!(Case { direction: Direction::Backward, ..case }.bytes(), 9 * tensor);
        let h_only = Case { variant: Variant { h_only: true, ..case.variant }, ..case };
        assert_eq!(h_only.bytes(), 3 * tensor);
        assert_eq!(Case { direction: Direction::Train, ..h_only }.bytes(), 8 * tensor);
    }

    #[test]
    fn packed_lengths_are_mixed_and_cover_the_row() {
        let cu = mixed_lengths(16_384, 1000);
        assert_eq!((cu.len(), cu[0], cu[1000]), (1001, 0, 16_384));
        let lengths: Vec<usize> = cu.windows(2).map(|w| w[1] - w[0]).collect();
        let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
        assert!(*least > 0 && most / least >= 4, "{least} to {most}");
        assert_eq!(mixed_lengths(7, 0), [0]);
    }
}
