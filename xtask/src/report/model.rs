//! What is compared with what.
//!
//! A speed-up is taken only between rows of one file and one case: two machines are compared by their share of their
//! own bandwidth, never by time.

use ssm_benches::results::{Absent, Curve, ErrorRow, Host, Results, Row, Skipped};

/// Everything that a report shows.
pub(super) struct Model {
    pub(super) runs: Vec<Run>,
    pub(super) entries: Vec<Entry>,
    pub(super) errors: Vec<Of<ErrorRow>>,
    pub(super) curves: Vec<Of<Curve>>,
    /// The peers' names, in order of appearance.
    pub(super) peers: Vec<String>,
}

/// One file.
pub(super) struct Run {
    /// A, B, C …
    pub(super) letter: String,
    pub(super) file: String,
    pub(super) host: Host,
    pub(super) cautions: Vec<String>,
    pub(super) absent: Vec<Absent>,
    pub(super) skipped: Vec<Skipped>,
}

/// Something of a run.
pub(super) struct Of<T> {
    /// The index of the run.
    pub(super) run: usize,
    pub(super) is: T,
}

/// One measured row with what it is compared with.
pub(super) struct Entry {
    /// The index of the run.
    pub(super) run: usize,
    pub(super) row: Row,
    /// How many times faster than the sequential loop of the same backend.
    pub(super) over_sequential: Option<f64>,
    /// How many times faster than each of [`Model::peers`]. Empty cells for a peer's own row.
    pub(super) over_peers: Vec<Option<f64>>,
}

/// Below this many bytes moved, what a row measures is the launch.
const TINY_BYTES: u64 = 256 << 10;

/// The variant of the plain loop along time.
const SEQUENTIAL: &str = "sequential";

impl Entry {
    /// Whether what it measures is the launch.
    pub(super) fn is_tiny(&self) -> bool {
        self.row.bytes <= TINY_BYTES
    }

    pub(super) fn is_plain(&self) -> bool {
        self.row.variant == "plain"
    }

    /// The checkpoint policy of a row that is there to compare policies.
    pub(super) fn policy(&self) -> Option<&str> {
        self.row.variant.strip_prefix("keep-")
    }

    /// Bytes of one (B, L, D) tensor in the storage type.
    pub(super) fn tensor_bytes(&self) -> f64 {
        let size = match self.row.dtype.as_str() {
            "f64" => 8,
            "f32" => 4,
            _ => 2,
        };
        (self.row.shape.iter().product::<usize>() * size) as f64
    }
}

impl Model {
    /// From files and their names.
    pub(super) fn new(files: Vec<(String, Results)>) -> Self {
        let mut model = Self { runs: vec![], entries: vec![], errors: vec![], curves: vec![], peers: vec![] };
        for (_, results) in &files {
            for row in results.results.iter().filter(|row| row.is_peer()) {
                if !model.peers.contains(&row.backend) {
                    model.peers.push(row.backend.clone());
                }
            }
        }
        for (run, (file, results)) in files.into_iter().enumerate() {
            let cautions = results.cautions();
            let Results { host, results: rows, absent, skipped, errors, curves, .. } = results;
            model.entries.extend(rows.iter().map(|row| model.entry(run, row, &rows)).collect::<Vec<_>>());
            model.errors.extend(errors.into_iter().map(|is| Of { run, is }));
            model.curves.extend(curves.into_iter().map(|is| Of { run, is }));
            model.runs.push(Run { letter: letter(run), file, host, cautions, absent, skipped });
        }
        model
    }

    fn entry(&self, run: usize, row: &Row, rows: &[Row]) -> Entry {
        let times_faster = |other: &Row| other.median_ns / row.median_ns;
        let sequential = rows.iter().find(|other| {
            other.variant == SEQUENTIAL
                && row.variant == "plain"
                && (&other.backend, &other.device) == (&row.backend, &row.device)
                && other.same_work(row)
        });
        let over = |peer: &String| {
            let theirs = rows.iter().find(|other| other.backend == *peer && other.is_peer_of(row));
            theirs.map(times_faster)
        };
        let over_peers = self.peers.iter().map(over).collect();
        Entry { run, row: row.clone(), over_sequential: sequential.map(times_faster), over_peers }
    }

    /// What a legend calls something of this run and backend.
    pub(super) fn label(&self, run: usize, backend: &str) -> String {
        match self.runs.len() {
            1 => backend.to_owned(),
            _ => format!("{} · {backend}", self.runs[run].letter),
        }
    }
}

/// A to Z, then A2 to Z2 and so on.
fn letter(index: usize) -> String {
    let letter = char::from(b'A' + (index % 26) as u8);
    match index / 26 {
        0 => letter.to_string(),
        round => format!("{letter}{}", round + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(backend: &str, device: &str, variant: &str, algorithm: &str, ns: f64) -> serde_json::Value {
        serde_json::json!({
            "backend": backend, "device": device, "op": "gated_scan", "direction": "forward", "dtype": "f32",
            "shape": [1, 2, 3], "variant": variant, "algorithm": algorithm, "median_ns": ns, "p10_ns": ns,
            "p90_ns": ns, "bytes": 1, "gb_per_s": 1.0, "reference_gb_per_s": null, "fraction": null,
            "samples": 9, "noisy": false,
        })
    }

    fn file(rows: Vec<serde_json::Value>) -> Results {
        let json = serde_json::json!({"schema": 1, "host": Host::default(), "results": rows});
        serde_json::from_value(json).expect("a file")
    }

    #[test]
    fn speed_ups_stay_within_a_file_a_case_and_a_kind_of_device() {
        let first = file(vec![
            row("cpu", "x86_64", "plain", "march", 10.0),
            row("cpu", "x86_64", "sequential", "sequential", 30.0),
            row("numba-loop", "cpu", "plain", "peer", 20.0),
            row("cuda", "H200", "plain", "chunked", 1.0),
        ]);
        let second = file(vec![row("cpu", "x86_64", "plain", "march", 5.0)]);
        let model = Model::new(vec![("a".to_owned(), first), ("b".to_owned(), second)]);
        let over = |i: usize| (model.entries[i].over_sequential, model.entries[i].over_peers[0]);
        assert_eq!(model.peers, ["numba-loop"]);
        assert_eq!(over(0), (Some(3.0), Some(2.0)));
        assert_eq!(over(1), (None, None), "the loop is another case than the peer's");
        assert_eq!(over(2), (None, None), "a peer is not compared with itself");
        assert_eq!(over(3), (None, None), "a GPU is not compared with a peer on the CPU");
        assert_eq!(over(4), (None, None), "the other file has no peer");
    }

    #[test]
    fn runs_have_letters() {
        assert_eq!([letter(0), letter(25), letter(26)], ["A", "Z", "A2"]);
    }
}
