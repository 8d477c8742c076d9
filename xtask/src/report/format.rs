//! Numbers as people read them.

use ssm_benches::results::Row;

/// Bytes in the binary unit that leaves one to four digits before the point.
pub(super) fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value:.0} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

/// `4×4096×1024`.
pub(super) fn shape(row: &Row) -> String {
    let [b, l, d] = row.shape;
    format!("{b}×{l}×{d}")
}

/// With so many digits after the point; a dash for nothing.
pub(super) fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |v| format!("{v:.digits$}"))
}

/// Three digits, whatever the size.
pub(super) fn times(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}×"),
        v if v >= 10.0 => format!("{value:.1}×"),
        _ => format!("{value:.2}×"),
    }
}

/// The first twelve letters of a commit.
pub(super) fn commit(full: &str) -> &str {
    full.get(..12).unwrap_or(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ratios_keep_a_readable_unit() {
        assert_eq!([bytes(0.0), bytes(1536.0), bytes(67_108_864.0)], ["0 B", "1.5 KiB", "64.0 MiB"]);
        assert_eq!([times(0.5), times(12.34), times(1234.0)], ["0.50×", "12.3×", "1234×"]);
        assert_eq!((optional(None, 2), optional(Some(0.876), 2)), ("–".to_owned(), "0.88".to_owned()));
        assert_eq!((commit("abc"), commit("0123456789abcdef")), ("abc", "0123456789ab"));
    }
}
