//! results.json: what was measured, on what, under which conditions. `docs/benchmarks.md` explains every field.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Whatever went wrong with a file.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The version of the format that this code writes. It reads every version up to it.
pub const SCHEMA: u32 = 2;

/// One file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The version of the format.
    pub schema: u32,
    /// The machine and the conditions of the run.
    pub host: Host,
    /// One row a case and device.
    pub results: Vec<Row>,
    /// Backends that were looked for and not found.
    #[serde(default)]
    pub absent: Vec<Absent>,
    /// Cases that a device could not run.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// How far each device is from float64. Since schema 2.
    #[serde(default)]
    pub errors: Vec<ErrorRow>,
    /// Training runs. Since schema 2.
    #[serde(default)]
    pub curves: Vec<Curve>,
}

/// Where and under which conditions results were measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Host {
    /// The processor's name.
    pub cpu: String,
    /// Logical processors that this process may run on.
    pub cores: usize,
    /// Threads of the pool that CPU kernels ran on.
    pub threads: usize,
    /// Bytes of main memory.
    pub memory_bytes: Option<u64>,
    /// Operating system and kernel.
    pub os: String,
    /// GPUs that the driver's own tool lists.
    pub gpu: Option<String>,
    /// Their driver's version.
    pub driver: Option<String>,
    /// GPU clocks, temperature and power limit at the start.
    pub gpu_state: Option<String>,
    /// The commit that was measured.
    pub commit: Option<String>,
    /// Whether tracked files differed from it.
    pub dirty: Option<bool>,
    /// When the run began, in seconds since 1970, UTC.
    pub unix_time: u64,
    /// The same as a date, `YYYY-MM-DDThh:mm:ssZ`.
    pub date: String,
    /// The load average of the last minute at the start, in runnable threads; null where the system has none.
    pub load: Option<f64>,
    /// Whether that load was more than a quarter of the cores: something else was running.
    pub busy: bool,
    /// The global allocator.
    pub allocator: String,
    /// The compiler.
    pub rustc: String,
    /// Optimisation level, target and extra flags.
    pub flags: String,
    /// The clock of the first core in MHz at the start.
    pub cpu_mhz: Option<f64>,
    /// The frequency governor or power profile.
    pub power: Option<String>,
    /// The first thermal zone in °C at the start.
    pub cpu_celsius: Option<f64>,
    /// The seed of the inputs.
    pub seed: u64,
    /// Whether the quick table and budget were used.
    pub quick: bool,
    /// Clocks and temperatures when the run ended. Since schema 2.
    #[serde(default)]
    pub after: Option<Condition>,
}

/// What a run may have changed about its machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Condition {
    /// The clock of the first core in MHz.
    pub cpu_mhz: Option<f64>,
    /// The first thermal zone in °C.
    pub cpu_celsius: Option<f64>,
    /// GPU clocks, temperature and power limit.
    pub gpu_state: Option<String>,
}

/// One case on one device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The backend, or the peer.
    pub backend: String,
    /// The device, in words.
    pub device: String,
    /// The op.
    pub op: String,
    /// forward, backward or train (both).
    pub direction: String,
    /// The storage type.
    pub dtype: String,
    /// [B, L, D].
    pub shape: [usize; 3],
    /// What is unlike the plain scan; `plain` for nothing.
    #[serde(default = "plain")]
    pub variant: String,
    /// How time was walked.
    pub algorithm: String,
    /// Half of the samples took less.
    pub median_ns: f64,
    /// A tenth of the samples took less.
    pub p10_ns: f64,
    /// A tenth of the samples took more.
    pub p90_ns: f64,
    /// Each full-size tensor once at its element size.
    pub bytes: u64,
    /// `bytes / median_ns`.
    pub gb_per_s: f64,
    /// The same for the reference that moved as many bytes in the same run; null where none was measured.
    pub reference_gb_per_s: Option<f64>,
    /// The median of the paired ratios reference time / kernel time; null where none was measured.
    pub fraction: Option<f64>,
    /// A tenth of the paired ratios is smaller. Since schema 2.
    #[serde(default)]
    pub fraction_p10: Option<f64>,
    /// A tenth of the paired ratios is larger. Since schema 2.
    #[serde(default)]
    pub fraction_p90: Option<f64>,
    /// The reference, in words.
    #[serde(default)]
    pub reference: Option<String>,
    /// What forward left for backward.
    #[serde(default)]
    pub checkpoint: Option<String>,
    /// Bytes that forward keeps for backward.
    #[serde(default)]
    pub saved_bytes: Option<u64>,
    /// Bytes of workspace.
    #[serde(default)]
    pub workspace_bytes: Option<u64>,
    /// The most bytes that were held at once beyond what was there before, counted in the allocator; null where that was
    /// not counted.
    #[serde(default)]
    pub peak_bytes: Option<u64>,
    /// How many samples.
    pub samples: usize,
    /// Launches a sample.
    #[serde(default = "one")]
    pub launches: usize,
    /// Whether the samples spread so far that the row is not to be quoted: (p90 − p10) / median above [`NOISY`].
    pub noisy: bool,
}

/// The spread above which a row calls itself noisy.
pub const NOISY: f64 = 0.2;

/// A backend that was looked for and not found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Absent {
    /// The backend.
    pub backend: String,
    /// Why.
    pub why: String,
}

/// A case that a device could not run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// The backend.
    pub backend: String,
    /// The case's name.
    pub case: String,
    /// Why.
    pub why: String,
}

/// How far one output of one backend is from the float64 recurrence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorRow {
    /// The backend.
    pub backend: String,
    /// The device, in words.
    pub device: String,
    /// The op.
    pub op: String,
    /// The inputs: `sigmoid` gates forget within hundreds of steps, `slow` ones remember ten thousand.
    pub gates: String,
    /// The storage type.
    pub dtype: String,
    /// How time was walked.
    pub algorithm: String,
    /// Time steps.
    pub len: usize,
    /// The output or gradient.
    pub output: String,
    /// ‖out − ref‖ / ‖ref‖; null where that is no finite number.
    pub error: Option<f64>,
}

/// One training run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curve {
    /// What is learnt.
    pub task: String,
    /// What learns it.
    pub model: String,
    /// The backend.
    pub backend: String,
    /// The device, in words.
    pub device: String,
    /// The type that the scan ran in.
    pub dtype: String,
    /// The seed of weights and data.
    pub seed: u64,
    /// In order of step.
    pub points: Vec<CurvePoint>,
}

/// One evaluation of a training run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Optimiser steps so far.
    pub step: u64,
    /// The loss; null where that is no finite number.
    pub loss: Option<f64>,
    /// The share that was right, 0 to 1; null where it was not measured.
    #[serde(default)]
    pub accuracy: Option<f64>,
}

fn plain() -> String {
    "plain".to_owned()
}

fn one() -> usize {
    1
}

impl Row {
    /// What two files match rows by: everything that was chosen, nothing that was measured.
    pub fn key(&self) -> String {
        let [b, l, d] = self.shape;
        let Self { backend, op, direction, dtype, variant, .. } = self;
        format!("{backend}/{op}/{direction}/{dtype}/{b}x{l}x{d}/{variant}")
    }

    /// (p90 − p10) / median of the paired ratios, where they were kept.
    pub fn fraction_spread(&self) -> Option<f64> {
        Some((self.fraction_p90? - self.fraction_p10?) / self.fraction?)
    }

    /// Whether the row is a peer's, measured by benches/peers.
    pub fn is_peer(&self) -> bool {
        self.algorithm == "peer"
    }

    /// Whether both did the same work: op, direction, type and shape.
    pub fn same_work(&self, other: &Self) -> bool {
        let work = |row: &Self| (row.op.clone(), row.direction.clone(), row.dtype.clone(), row.shape);
        work(self) == work(other)
    }

    /// Whether this is a peer's row of the same case as `ours`, both on the CPU or both off it.
    pub fn is_peer_of(&self, ours: &Self) -> bool {
        let on_cpu = (self.device == "cpu") == (ours.backend == "cpu");
        self.is_peer() && !ours.is_peer() && on_cpu && self.same_work(ours) && self.variant == ours.variant
    }

    /// (p90 − p10) / median.
    pub fn spread(&self) -> f64 {
        (self.p90_ns - self.p10_ns) / self.median_ns
    }
}

/// A file from a version that this code does not know.
#[derive(Debug)]
pub struct UnknownSchema {
    got: u32,
}

impl std::fmt::Display for UnknownSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "results of schema {}, this reads up to {SCHEMA}", self.got)
    }
}

impl std::error::Error for UnknownSchema {}

impl Results {
    /// Reads a file of any version up to [`SCHEMA`].
    ///
    /// # Errors
    ///
    /// When it cannot be read, is no results file, or is of a later version.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let results: Self = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        if results.schema > SCHEMA {
            return Err(UnknownSchema { got: results.schema }.into());
        }
        Ok(results)
    }

    /// What a reader has to know before quoting anything from the file; empty for a quiet run of a clean commit.
    pub fn cautions(&self) -> Vec<String> {
        let Host { load, cores, busy, dirty, quick, .. } = &self.host;
        let mut cautions = Vec::new();
        if *busy {
            let load = load.map_or("unknown".to_owned(), |load| format!("{load:.1}"));
            cautions.push(format!("the machine was busy when this began: load {load} on {cores} cores"));
        }
        let noisy = self.results.iter().filter(|row| row.noisy).count();
        if noisy > 0 {
            let rows = self.results.len();
            cautions
                .push(format!("{noisy} of {rows} rows are noisy: their times spread by more than a fifth"));
        }
        if *dirty == Some(true) {
            cautions.push("tracked files differed from the commit".to_owned());
        }
        if *quick {
            cautions.push("a quick run: few samples a row".to_owned());
        }
        cautions
    }

    /// Writes the file and the folders above it.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }
}
