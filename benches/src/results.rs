//! results.json: what was measured, on what, under which conditions. `docs/benchmarks.md` explains every field.

use std::path::Path;

use serde::{Deserialize, Serialize};
use ssm_testkit::Failure;

use crate::case::{Case, Variant};
use crate::host::Host;
use crate::measure::Measurement;

/// The version of the format that this code writes. It reads every version up to it.
pub const SCHEMA: u32 = 1;

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

fn plain() -> String {
    Variant::default().to_string()
}

fn one() -> usize {
    1
}

impl Row {
    /// A measured case as a row.
    pub fn new(backend: &str, device: &str, case: &Case, m: &Measurement) -> Self {
        let (time, reference, bytes) = (m.kernel(), m.reference_time(), case.bytes());
        Self {
            backend: backend.to_owned(),
            device: device.to_owned(),
            op: Case::OP.to_owned(),
            direction: case.direction.name().to_owned(),
            dtype: case.dtype.name().to_owned(),
            shape: case.shape,
            variant: case.variant.to_string(),
            algorithm: m.algorithm.name().to_owned(),
            median_ns: time.median,
            p10_ns: time.p10,
            p90_ns: time.p90,
            bytes,
            gb_per_s: bytes as f64 / time.median,
            reference_gb_per_s: reference.map(|ns| bytes as f64 / ns),
            fraction: m.fraction(),
            reference: reference.map(|_| m.reference.clone()),
            checkpoint: Some(m.checkpoint.name().to_owned()),
            saved_bytes: Some(m.saved_bytes),
            workspace_bytes: Some(m.workspace_bytes),
            samples: m.kernel_ns.len(),
            launches: m.launches,
            noisy: time.spread() > NOISY,
        }
    }

    /// What two files match rows by: everything that was chosen, nothing that was measured.
    pub fn key(&self) -> String {
        let [b, l, d] = self.shape;
        let Self { backend, op, direction, dtype, variant, .. } = self;
        format!("{backend}/{op}/{direction}/{dtype}/{b}x{l}x{d}/{variant}")
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
