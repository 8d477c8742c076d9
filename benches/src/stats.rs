//! Order statistics of samples.
//!
//! Times on a shared machine have a long upper tail, so nothing here is a mean.

/// The quantile `q` in 0..=1 of the samples, interpolated between neighbours; NaN without samples.
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// The quantile one half.
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// Median and the spread around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Half of the samples lie below.
    pub median: f64,
    /// A tenth of the samples lies below.
    pub p10: f64,
    /// A tenth of the samples lies above.
    pub p90: f64,
}

impl Summary {
    /// Of these samples; every field is NaN without any.
    pub fn of(samples: &[f64]) -> Self {
        Self { median: median(samples), p10: quantile(samples, 0.1), p90: quantile(samples, 0.9) }
    }

    /// (p90 − p10) / median.
    pub fn spread(&self) -> f64 {
        (self.p90 - self.p10) / self.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated_and_ignore_order() {
        let s = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!(median(&s), 3.0);
        assert_eq!(quantile(&s, 0.1), 1.4);
        assert_eq!(quantile(&s, 1.0), 5.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn spread_is_relative_to_the_median() {
        let s: Vec<f64> = (0..=10).map(|i| 95.0 + f64::from(i)).collect();
        assert!((Summary::of(&s).spread() - 0.08).abs() < 1e-12);
    }
}
