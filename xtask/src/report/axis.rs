//! Axes: from values to a range with labelled ticks. What is drawn on a logarithmic axis is its logarithm, taken here.

use super::format;

/// A range with its ticks, in the coordinates that are drawn.
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) ticks: Vec<(f64, String)>,
    /// Whether ticks are names, which need more room than numbers.
    pub(super) named: bool,
}

/// More would run into each other.
const MOST_TICKS: usize = 9;

impl Axis {
    /// From zero, or the least value below it, to `most` or beyond, in steps of 1, 2 or 5.
    pub(super) fn linear(label: &str, values: impl Iterator<Item = f64>, most: f64) -> Self {
        let (low, high) = range(values).unwrap_or((0.0, most));
        let (low, high) = (low.min(0.0), high.max(most));
        let rough = (high - low) / MOST_TICKS as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough).unwrap_or(power);
        let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let ticks =
            (first..=last).map(|i| (i as f64 * step, format!("{:.digits$}", i as f64 * step))).collect();
        let (low, high) = (first as f64 * step, last as f64 * step);
        Self { label: label.to_owned(), low, high, ticks, named: false }
    }

    /// Powers of `base`, whole ones at both ends.
    fn logarithmic(
        label: &str,
        base: f64,
        values: impl Iterator<Item = f64>,
        shown: impl Fn(f64) -> String,
    ) -> Self {
        let log = |v: f64| v.log(base);
        let (low, high) = range(values.filter(|v| *v > 0.0).map(log)).unwrap_or((0.0, 1.0));
        // A power that the logarithm misses by rounding is that power.
        let (low, mut high) = ((low + 1e-9).floor() as i32, (high - 1e-9).ceil() as i32);
        if high <= low {
            high = low + 1;
        }
        let step = ((high - low) as usize).div_ceil(MOST_TICKS).max(1);
        let ticks = (low..=high).step_by(step).map(|e| (f64::from(e), shown(base.powi(e)))).collect();
        Self { label: label.to_owned(), low: low.into(), high: high.into(), ticks, named: false }
    }

    /// Counts by powers of two; draw `log2`.
    pub(super) fn counts(label: &str, values: impl Iterator<Item = f64>) -> Self {
        Self::logarithmic(label, 2.0, values, |v| match v {
            v if v < 1024.0 => format!("{v}"),
            v if v < 1048576.0 => format!("{} Ki", v / 1024.0),
            v => format!("{} Mi", v / 1048576.0),
        })
    }

    /// Nanoseconds by powers of ten; draw `log10`.
    pub(super) fn time(values: impl Iterator<Item = f64>) -> Self {
        Self::logarithmic("time", 10.0, values, |ns| match ns {
            ns if ns < 1e3 => format!("{ns:.0} ns"),
            ns if ns < 1e6 => format!("{:.0} µs", ns / 1e3),
            ns if ns < 1e9 => format!("{:.0} ms", ns / 1e6),
            ns => format!("{:.0} s", ns / 1e9),
        })
    }

    /// Ratios by powers of ten; draw `log10`.
    pub(super) fn ratios(label: &str, values: impl Iterator<Item = f64>) -> Self {
        Self::logarithmic(label, 10.0, values.chain([1.0]), |v| {
            if v < 1.0 { format!("{v}×") } else { format::times(v).replace(".00", "").replace(".0", "") }
        })
    }

    /// Small numbers by powers of ten; draw `log10`.
    pub(super) fn errors(label: &str, values: impl Iterator<Item = f64>) -> Self {
        Self::logarithmic(label, 10.0, values, |v| format!("{v:.0e}"))
    }

    /// One row a name, from the top; row `i` is drawn at `-i`.
    pub(super) fn names(names: &[String]) -> Self {
        let ticks = names.iter().enumerate().map(|(i, name)| (-(i as f64), name.clone())).collect();
        Self { label: String::new(), low: 0.5 - names.len() as f64, high: 0.5, ticks, named: true }
    }
}

/// The least and the greatest finite value.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((low.min(v), high.max(v))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn a_linear_axis_has_round_steps_and_holds_every_value() {
        let axis = Axis::linear("share", [0.31, 1.04, f64::NAN].into_iter(), 1.0);
        assert_eq!(labels(&axis), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0", "1.2"]);
        assert!(axis.low == 0.0 && axis.high >= 1.04);
        assert_eq!(labels(&Axis::linear("loss", [].into_iter(), 1.0)).last(), Some(&"1.0"));
    }

    #[test]
    fn logarithmic_axes_end_at_whole_powers() {
        let time = Axis::time([2e3, 3e6].into_iter());
        assert_eq!(labels(&time), ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms"]);
        let counts = Axis::counts("L", [1024.0, 1_048_576.0].into_iter());
        assert_eq!((counts.low, counts.high), (10.0, 20.0));
        assert_eq!(labels(&counts), ["1 Ki", "4 Ki", "16 Ki", "64 Ki", "256 Ki", "1 Mi"]);
        let single = Axis::time([1e6].into_iter());
        assert!(single.high > single.low, "one value still makes a range");
        assert_eq!(labels(&Axis::ratios("", [0.2, 30.0].into_iter())), ["0.1×", "1×", "10×", "100×"]);
    }
}
