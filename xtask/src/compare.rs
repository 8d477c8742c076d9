//! What got slower or faster between two results files, beyond what either run spread by itself.
//!
//! Where both rows have a reference, what is compared is the share of it, which a slower or busier machine does not
//! change; elsewhere it is the time.

use std::collections::HashMap;
use std::fmt;

use ssm_benches::results::{Results, Row};

use crate::table::columns;

/// One case in both files.
struct Change {
    key: String,
    /// New time over old time, the machine's own drift taken out where it was measured.
    ratio: f64,
    /// How far the two runs spread together.
    spread: f64,
    paired: bool,
}

/// Every case that is in both files, and those that are in one.
pub(crate) struct Changes {
    changes: Vec<Change>,
    missing: Vec<String>,
    new: usize,
    threshold: f64,
}

/// Compares by case; `threshold` in percent.
pub(crate) fn changes(old: &Results, new: &Results, threshold: f64) -> Changes {
    let mut before: HashMap<String, &Row> = old.results.iter().map(|row| (row.key(), row)).collect();
    let mut changes = Vec::new();
    let mut unmatched = 0;
    for row in &new.results {
        let Some(was) = before.remove(&row.key()) else {
            unmatched += 1;
            continue;
        };
        let (ratio, paired) = match (was.fraction, row.fraction) {
            (Some(was), Some(now)) => (was / now, true),
            _ => (row.median_ns / was.median_ns, false),
        };
        // Half of the p10 to p90 range is how far a run strays from its median.
        let spread = (was.spread() + row.spread()) / 2.0;
        changes.push(Change { key: row.key(), ratio, spread, paired });
    }
    let mut missing: Vec<String> = before.into_keys().collect();
    missing.sort();
    changes.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    Changes { changes, missing, new: unmatched, threshold }
}

impl Change {
    /// Slower by more than the spread and the threshold (in percent) together.
    fn slower(&self, threshold: f64) -> bool {
        self.ratio > 1.0 + self.spread + threshold / 100.0
    }

    fn verdict(&self, threshold: f64) -> &'static str {
        if self.slower(threshold) {
            "SLOWER"
        } else if self.ratio > 1.0 + self.spread {
            "slower"
        } else if self.ratio < 1.0 / (1.0 + self.spread) {
            "faster"
        } else {
            "same"
        }
    }
}

impl Changes {
    /// Whether anything got slower beyond its spread and the threshold.
    pub(crate) fn failed(&self) -> bool {
        self.changes.iter().any(|c| c.slower(self.threshold))
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<Vec<String>> = self
            .changes
            .iter()
            .filter(|c| c.verdict(self.threshold) != "same")
            .map(|c| {
                vec![
                    c.key.clone(),
                    c.verdict(self.threshold).to_owned(),
                    format!("{:+.1} %", (c.ratio - 1.0) * 100.0),
                    format!("± {:.1} %", c.spread * 100.0),
                    if c.paired { "share of reference" } else { "time" }.to_owned(),
                ]
            })
            .collect();
        let same = self.changes.len() - told.len();
        if !told.is_empty() {
            f.write_str(&columns(&["case", "verdict", "change", "spread", "compared by"], &told, 2))?;
        }
        writeln!(f, "{same} within their spread, {} new, {} gone", self.new, self.missing.len())?;
        self.missing.iter().try_for_each(|key| writeln!(f, "gone: {key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(rows: &[(&str, f64, Option<f64>)]) -> Results {
        let rows = rows.iter().map(|(backend, ns, fraction)| {
            serde_json::json!({
                "backend": backend, "device": "d", "op": "gated_scan", "direction": "forward", "dtype": "f32",
                "shape": [1, 2, 3], "algorithm": "march", "median_ns": ns, "p10_ns": ns * 0.99, "p90_ns": ns * 1.01,
                "bytes": 1, "gb_per_s": 1.0, "reference_gb_per_s": null, "fraction": fraction, "samples": 9,
                "noisy": false,
            })
        });
        let rows = rows.map(|row| serde_json::from_value(row).expect("a row")).collect();
        Results { schema: 1, host: Default::default(), results: rows, absent: vec![], skipped: vec![] }
    }

    #[test]
    fn slower_beyond_spread_and_threshold_fails() {
        let old = results(&[("a", 100.0, None), ("b", 100.0, None), ("c", 100.0, None)]);
        let within = results(&[("a", 101.0, None), ("b", 104.0, None), ("c", 50.0, None)]);
        let changes_within = changes(&old, &within, 5.0);
        let verdicts: Vec<_> = changes_within.changes.iter().map(|c| c.verdict(5.0)).collect();
        assert_eq!((verdicts, changes_within.failed()), (vec!["slower", "same", "faster"], false));
        assert!(changes(&old, &results(&[("a", 108.0, None)]), 5.0).failed());
    }

    #[test]
    fn a_slower_machine_is_not_a_slower_kernel() {
        let (old, new) = (results(&[("a", 100.0, Some(0.9))]), results(&[("a", 200.0, Some(0.9))]));
        assert!(!changes(&old, &new, 5.0).failed());
        let new = results(&[("a", 100.0, Some(0.8))]);
        assert!(changes(&old, &new, 5.0).failed(), "a smaller share of the same machine");
    }

    #[test]
    fn what_is_gone_is_said() {
        let (old, new) = (results(&[("a", 1.0, None)]), results(&[("b", 1.0, None)]));
        let text = changes(&old, &new, 5.0).to_string();
        assert!(text.contains("1 new, 1 gone") && text.contains("gone: a/gated_scan/forward"), "{text}");
    }
}
