//! Results as text for a terminal.

use std::fmt::Write as _;

use ssm_benches::results::{Results, Row};

/// Columns as wide as their widest cell; the first ones flush left, the others flush right.
pub(crate) fn columns(head: &[&str], rows: &[Vec<String>], left: usize) -> String {
    let head: Vec<String> = head.iter().map(|s| (*s).to_owned()).collect();
    let width = |i: usize| {
        let cells = std::iter::once(&head).chain(rows).filter_map(|row| row.get(i));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match i < left {
                true => write!(line, "{cell:<width$}  "),
                false => write!(line, "{cell:>width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `(4, 4096, 1024)`.
pub(crate) fn shape(row: &Row) -> String {
    let [b, l, d] = row.shape;
    format!("({b}, {l}, {d})")
}

/// Nanoseconds in the unit that leaves one to three digits before the point.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

fn or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |v| format!("{v:.digits$}"))
}

/// All rows, what was absent and skipped, and whether to trust it.
pub(crate) fn results(results: &Results) -> String {
    let head = [
        "backend",
        "shape",
        "type",
        "direction",
        "variant",
        "algorithm",
        "median",
        "p10",
        "p90",
        "GB/s",
        "reference",
        "fraction",
        "",
    ];
    let rows: Vec<Vec<String>> = results
        .results
        .iter()
        .map(|row| {
            vec![
                row.backend.clone(),
                shape(row),
                row.dtype.clone(),
                row.direction.clone(),
                row.variant.clone(),
                row.algorithm.clone(),
                time(row.median_ns),
                time(row.p10_ns),
                time(row.p90_ns),
                format!("{:.1}", row.gb_per_s),
                or_dash(row.reference_gb_per_s, 1),
                or_dash(row.fraction, 2),
                if row.noisy { "noisy" } else { "" }.to_owned(),
            ]
        })
        .collect();
    let mut text = columns(&head, &rows, 6);
    for absent in &results.absent {
        let _ = writeln!(text, "absent: {}: {}", absent.backend, absent.why);
    }
    for skipped in &results.skipped {
        let _ = writeln!(text, "skipped: {}/{}: {}", skipped.backend, skipped.case, skipped.why);
    }
    for caution in results.cautions() {
        let _ = writeln!(text, "caution: {caution}");
    }
    text
}

/// How many times faster each of our rows is than each peer's row of the same case.
pub(crate) fn peers(results: &Results) -> String {
    let (peers, ours): (Vec<&Row>, Vec<&Row>) = results.results.iter().partition(|row| row.is_peer());
    let mut rows = Vec::new();
    for our in ours {
        for peer in peers.iter().filter(|peer| peer.is_peer_of(our)) {
            rows.push(vec![
                our.backend.clone(),
                peer.backend.clone(),
                shape(our),
                our.dtype.clone(),
                our.direction.clone(),
                time(our.median_ns),
                time(peer.median_ns),
                format!("{:.2}", peer.median_ns / our.median_ns),
            ]);
        }
    }
    columns(&["backend", "peer", "shape", "type", "direction", "ours", "peer's", "times faster"], &rows, 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_letters() {
        let rows = [vec!["µ".to_owned(), "1".to_owned()], vec!["long".to_owned(), "10".to_owned()]];
        assert_eq!(columns(&["a", "b"], &rows, 1), "a      b\nµ      1\nlong  10\n");
    }

    #[test]
    fn times_keep_a_readable_unit() {
        assert_eq!(time(999.0), "999 ns");
        assert_eq!(time(5_600.0), "5.6 µs");
        assert_eq!(time(12_345_678.0), "12.35 ms");
    }
}
