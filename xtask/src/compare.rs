//! What got slower or faster between two results files, beyond what either run spread by itself.
//!
//! Kernel and reference took turns when they were measured. Where both rows have the same reference, what is compared is
//! the share of it: both numbers come from pairs, and a slower or busier machine does not change them. Elsewhere it is
//! the time, which says little between two machines.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use ssm_benches::results::{Results, Row};
use ssm_benches::stats::Summary;

use crate::table::columns;

/// Arguments of `cargo xtask compare`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What was measured before.
    #[arg(value_name = "OLD.json")]
    old: PathBuf,
    /// What was measured now.
    #[arg(value_name = "NEW.json")]
    new: PathBuf,
    /// How much slower, beyond the spread of both runs, fails the comparison.
    #[arg(long, value_name = "PCT", default_value_t = 5.0)]
    threshold: f64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    changes(&read(&args.old)?, &read(&args.new)?, args.threshold).finish()
}

/// A results file.
pub(crate) fn read(path: &Path) -> Result<Results> {
    Results::read(path).map_err(|e| anyhow!(e)).with_context(|| path.display().to_string())
}

/// One case in both files.
struct Change {
    key: String,
    /// New time over old time, the machine's own drift taken out where it was measured.
    ratio: f64,
    /// How far the two runs spread together.
    spread: f64,
    by: By,
}

/// What was compared.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// The share of the same reference: pairs within each run.
    Share,
    /// The time of one run and the time of the other.
    Time,
    /// The time of both commits in turns: pairs of runs.
    Turns,
}

impl By {
    const fn name(self) -> &'static str {
        match self {
            Self::Share => "share of reference",
            Self::Time => "time",
            Self::Turns => "time, in turns",
        }
    }
}

/// Every case of ours that is in both files, and those that are in one.
pub(crate) struct Changes {
    changes: Vec<Change>,
    missing: Vec<String>,
    new: usize,
    threshold: f64,
    cautions: Vec<String>,
}

/// Compares by case; `threshold` in percent.
pub(crate) fn changes(old: &Results, new: &Results, threshold: f64) -> Changes {
    let mut before: HashMap<String, &Row> = ours(old).map(|row| (row.key(), row)).collect();
    let mut changes = Vec::new();
    let mut unmatched = 0;
    for row in ours(new) {
        let Some(was) = before.remove(&row.key()) else {
            unmatched += 1;
            continue;
        };
        let (ratio, by) = match (was.fraction, row.fraction) {
            (Some(before), Some(now)) if was.reference == row.reference => (before / now, By::Share),
            _ => (row.median_ns / was.median_ns, By::Time),
        };
        // Half of the p10 to p90 range is how far a run strays from its median.
        let spread = |row: &Row| match by {
            By::Share => row.fraction_spread().unwrap_or(row.spread()),
            _ => row.spread(),
        };
        let spread = (spread(was) + spread(row)) / 2.0;
        changes.push(Change { key: row.key(), ratio, spread, by });
    }
    let mut missing: Vec<String> = before.into_keys().collect();
    missing.sort();
    changes.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    Changes { changes, missing, new: unmatched, threshold, cautions: cautions(old, new) }
}

/// Every row but the peers', whose speed is not ours to keep.
fn ours(results: &Results) -> impl Iterator<Item = &Row> {
    results.results.iter().filter(|row| !row.is_peer())
}

/// What makes the two files hard to compare.
fn cautions(old: &Results, new: &Results) -> Vec<String> {
    let named = |name, results: &Results| {
        results.cautions().into_iter().map(move |caution| format!("{name}: {caution}")).collect::<Vec<_>>()
    };
    let mut cautions = [named("baseline", old), named("this run", new)].concat();
    let differs = [
        ("CPU", &old.host.cpu, &new.host.cpu),
        ("compiler", &old.host.rustc, &new.host.rustc),
        ("flags", &old.host.flags, &new.host.flags),
    ];
    cautions.extend(
        differs
            .iter()
            .filter(|(_, old, new)| old != new)
            .map(|(what, old, new)| format!("another {what}: {old} before, {new} now")),
    );
    cautions
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
    /// Measures again what seems slower: `ratios` gives new time over old time of a case, one entry a pair.
    pub(crate) fn confirm(&mut self, mut ratios: impl FnMut(&str) -> Result<Vec<f64>>) -> Result<()> {
        let threshold = self.threshold;
        for change in self.changes.iter_mut().filter(|c| c.slower(threshold)) {
            let pairs = Summary::of(&ratios(&change.key)?);
            // Half of the range, as for two runs.
            *change = Change {
                ratio: pairs.median,
                spread: pairs.spread() / 2.0,
                by: By::Turns,
                key: std::mem::take(&mut change.key),
            };
        }
        Ok(())
    }

    /// Prints what changed.
    ///
    /// # Errors
    ///
    /// When anything got slower by more than its spread and the threshold.
    pub(crate) fn finish(&self) -> Result<()> {
        println!("{self}");
        ensure!(!self.failed(), "slower than the baseline by more than {} %", self.threshold);
        Ok(())
    }

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
                    c.by.name().to_owned(),
                ]
            })
            .collect();
        let same = self.changes.len() - told.len();
        if !told.is_empty() {
            f.write_str(&columns(&["case", "verdict", "change", "spread", "compared by"], &told, 2))?;
        }
        writeln!(f, "{same} within their spread, {} new, {} gone", self.new, self.missing.len())?;
        let hidden = self.changes.iter().filter(|c| c.spread > self.threshold / 100.0).count();
        if hidden > 0 {
            writeln!(f, "{hidden} spread by more than the threshold, which may hide a change of that size")?;
        }
        self.missing.iter().try_for_each(|key| writeln!(f, "gone: {key}"))?;
        self.cautions.iter().try_for_each(|caution| writeln!(f, "{caution}"))
    }
}

#[cfg(test)]
mod tests {
    use ssm_benches::results::Host;

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
        let json = serde_json::json!({"schema": 1, "host": Host::default(), "results": []});
        Results { results: rows, ..serde_json::from_value(json).expect("a file") }
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
    fn shares_of_two_references_are_not_compared() {
        let (old, mut new) = (results(&[("a", 100.0, Some(0.9))]), results(&[("a", 100.0, Some(0.5))]));
        assert!(changes(&old, &new, 5.0).failed());
        new.results[0].reference = Some("a slower triad".to_owned());
        assert!(!changes(&old, &new, 5.0).failed(), "the time is the same");
    }

    #[test]
    fn the_spread_of_the_pairs_counts_where_it_was_measured() {
        let (mut old, mut new) = (results(&[("a", 100.0, Some(0.9))]), results(&[("a", 100.0, Some(0.8))]));
        assert!(changes(&old, &new, 5.0).failed());
        for row in [&mut old.results[0], &mut new.results[0]] {
            (row.fraction_p10, row.fraction_p90) = (Some(0.7), Some(1.0));
        }
        assert!(!changes(&old, &new, 5.0).failed(), "within the spread of the pairs");
    }

    #[test]
    fn what_seems_slower_is_measured_again_and_nothing_else() {
        let (old, new) =
            (results(&[("a", 1.0, None), ("b", 1.0, None)]), results(&[("a", 2.0, None), ("b", 1.0, None)]));
        let again = |ratios: [f64; 5]| {
            let (mut changes, mut asked) = (changes(&old, &new, 5.0), Vec::new());
            let confirmed = changes.confirm(|key| {
                asked.push(key.to_owned());
                Ok(ratios.to_vec())
            });
            confirmed.expect("nothing failed");
            (changes.failed(), asked, changes.to_string())
        };
        let (failed, asked, _) = again([1.0, 0.99, 1.01, 1.0, 1.02]);
        assert_eq!((failed, asked), (false, vec!["a/gated_scan/forward/f32/1x2x3/plain".to_owned()]));
        let (failed, _, text) = again([1.3, 1.29, 1.31, 1.3, 1.32]);
        assert!(failed && text.contains("in turns") && text.contains("+30.0 %"), "{text}");
        let (failed, _, text) = again([0.7, 1.3, 1.9, 1.0, 1.6]);
        assert!(!failed && text.contains("1 spread by more than the threshold"), "{text}");
    }

    #[test]
    fn a_noisy_run_and_another_machine_are_said() {
        let (old, mut new) = (results(&[("a", 1.0, None)]), results(&[("a", 1.0, None)]));
        (new.host.busy, new.host.cpu) = (true, "another".to_owned());
        let text = changes(&old, &new, 5.0).to_string();
        assert!(text.contains("this run: the machine was busy") && text.contains("another CPU"), "{text}");
    }

    #[test]
    fn what_is_gone_is_said() {
        let (old, new) = (results(&[("a", 1.0, None)]), results(&[("b", 1.0, None)]));
        let text = changes(&old, &new, 5.0).to_string();
        assert!(text.contains("1 new, 1 gone") && text.contains("gone: a/gated_scan/forward"), "{text}");
    }
}
