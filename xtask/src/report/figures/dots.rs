//! Figures with one row a case: the eye compares along a row, and down a column.

use std::collections::HashMap;

use ssm_benches::results::Row;

use super::{Figures, tip, unique};
use crate::report::axis::Axis;
use crate::report::figure::Point;
use crate::report::figure::{Facets, Figure, Guide, Section, Series, Style};
use crate::report::format;
use crate::report::model::Entry;

impl Figures<'_> {
    /// The share by shape: one row a shape, series side by side within it.
    pub(super) fn bandwidth(&self, direction: &str) -> Option<Figure> {
        let chosen = || {
            let entries = self.model.entries.iter();
            entries.filter(|e| e.row.direction == direction && e.is_plain() && !e.is_tiny())
        };
        // Sweeps are measured in one direction and drawn as lines.
        let is_standard = |entry: &&Entry| {
            let mut same =
                self.model.entries.iter().filter(|e| e.row.shape == entry.row.shape && e.is_plain());
            same.any(|e| e.row.direction != "forward")
        };
        let chosen: Vec<&Entry> = chosen().filter(|e| e.row.fraction.is_some()).filter(is_standard).collect();
        let names = unique(chosen.iter().map(|e| format::shape(&e.row)));
        let points = chosen.iter().filter_map(|entry| {
            let row = &entry.row;
            let at = names.iter().position(|name| *name == format::shape(row))?;
            let spread = row.fraction_p10.zip(row.fraction_p90);
            Some((*entry, Point { x: row.fraction?, y: -(at as f64), spread, tip: tip(self.model, entry) }))
        });
        let series = side_by_side(self.series(points, false));
        let ends = chosen.iter().flat_map(|e| [e.row.fraction, e.row.fraction_p90]).flatten();
        let x =
            Axis::linear("share of the device's own bandwidth", ends.collect::<Vec<_>>().into_iter(), 1.0);
        let facets = Facets { direction: direction.into(), ..Facets::default() };
        let y = Axis::names(&names);
        let guides = vec![Guide::upright(1.0, &y)];
        Some(Figure {
            id: format!("bandwidth-{direction}"),
            section: Section::Bandwidth,
            title: format!("Share of bandwidth, {direction}"),
            x,
            y,
            series,
            guides,
            facets,
        })
        .filter(|figure| !figure.series.is_empty())
    }

    /// Speed-up by shape: one row a shape, one series a type and whom it is compared with.
    pub(super) fn speed_up(&self, direction: &str) -> Option<Figure> {
        let chosen: Vec<&Entry> = self
            .model
            .entries
            .iter()
            .filter(|e| e.row.direction == direction && e.is_plain() && !e.is_tiny())
            .filter(|e| e.over_sequential.is_some() || e.over_peers.iter().any(Option::is_some))
            .collect();
        let names = unique(chosen.iter().map(|e| format::shape(&e.row)));
        let others: Vec<&str> =
            std::iter::once("sequential loop").chain(self.model.peers.iter().map(String::as_str)).collect();
        let mut series: Vec<Series> = Vec::new();
        for (index, other) in others.iter().enumerate() {
            let points = chosen.iter().filter_map(|entry| {
                let ratio = match index {
                    0 => entry.over_sequential?,
                    _ => entry.over_peers[index - 1]?,
                };
                let at = names.iter().position(|name| *name == format::shape(&entry.row))?;
                let tip = format!("{} over {other}\n{}", format::times(ratio), tip(self.model, entry));
                Some((*entry, Point { x: ratio.log10(), y: -(at as f64), spread: None, tip }))
            });
            series.extend(self.series(points, false).into_iter().map(|s| {
                let style = Style { colour: index, ..s.style };
                Series { name: format!("{} over {other}", s.name), style, ..s }
            }));
        }
        let ratios = series.iter().flat_map(|s| &s.points).map(|p| 10f64.powf(p.x));
        let x = Axis::ratios("times faster", ratios.collect::<Vec<_>>().into_iter());
        let y = Axis::names(&names);
        let guides = vec![Guide::upright(0.0, &y)];
        Some(Figure {
            id: format!("speed-up-{direction}"),
            section: Section::SpeedUp,
            title: format!("Speed-up, {direction}"),
            x,
            y,
            series: side_by_side(series),
            guides,
            facets: Facets { direction: direction.into(), ..Facets::default() },
        })
        .filter(|figure| !figure.series.is_empty())
    }

    /// What each policy keeps and needs.
    pub(super) fn memory(&self) -> Option<Figure> {
        let chosen: Vec<&Entry> = self.model.entries.iter().filter(|e| e.policy().is_some()).collect();
        let name =
            |e: &Entry| format!("{} {} {}", format::shape(&e.row), e.row.dtype, e.policy().unwrap_or(""));
        let names = unique(chosen.iter().map(|e| name(e)));
        type Get = fn(&Row) -> Option<u64>;
        let parts: [(&str, usize, Get); 3] = [
            ("saved for backward", 0, |r| r.saved_bytes),
            ("workspace", 1, |r| r.workspace_bytes),
            ("peak of a step", 2, |r| r.peak_bytes),
        ];
        let mut series = Vec::new();
        for (part, dash, get) in parts {
            let points = chosen.iter().filter_map(|entry| {
                let bytes = get(&entry.row)? as f64;
                let at = names.iter().position(|n| *n == name(entry))?;
                let tip = format!("{part}: {}\n{}", format::bytes(bytes), tip(self.model, entry));
                Some((*entry, Point { x: bytes / entry.tensor_bytes(), y: -(at as f64), spread: None, tip }))
            });
            series.extend(self.series(points, false).into_iter().map(|s| {
                let style = Style { dash, ..s.style };
                Series { name: format!("{}, {part}", s.name), style, ..s }
            }));
        }
        let most = series.iter().flat_map(|s| &s.points).map(|p| p.x).collect::<Vec<_>>();
        Some(Figure {
            id: "memory".to_owned(),
            section: Section::Memory,
            title: "Memory by checkpoint policy".to_owned(),
            x: Axis::linear("(B, L, D) tensors", most.into_iter(), 1.0),
            y: Axis::names(&names),
            series: side_by_side(series),
            guides: vec![],
            facets: Facets::default(),
        })
        .filter(|figure| !figure.series.is_empty())
    }

    /// Time of the smallest problems.
    pub(super) fn launch(&self) -> Option<Figure> {
        let chosen: Vec<&Entry> = self.model.entries.iter().filter(|e| e.is_tiny() && e.is_plain()).collect();
        let name = |e: &Entry| format!("{} {}", format::shape(&e.row), e.row.direction);
        let names = unique(chosen.iter().map(|e| name(e)));
        let points = chosen.iter().filter_map(|entry| {
            let at = names.iter().position(|n| *n == name(entry))?;
            let spread = Some((entry.row.p10_ns.log10(), entry.row.p90_ns.log10()));
            let x = entry.row.median_ns.log10();
            Some((*entry, Point { x, y: -(at as f64), spread, tip: tip(self.model, entry) }))
        });
        // Both directions are in one figure.
        let named = |s: Series| Series { name: format!("{} · {}", s.name, s.facets.direction), ..s };
        let series = self.series(points, false).into_iter().map(named).collect();
        let ends = chosen.iter().flat_map(|e| [e.row.p10_ns, e.row.p90_ns]).collect::<Vec<_>>();
        Some(Figure {
            id: "launch".to_owned(),
            section: Section::Launch,
            title: "Time of one launch at tiny shapes".to_owned(),
            x: Axis::time(ends.into_iter()),
            y: Axis::names(&names),
            series: side_by_side(series),
            guides: vec![],
            facets: Facets::default(),
        })
        .filter(|figure| !figure.series.is_empty())
    }
}

/// Spreads the series of each row over its height, so that no marker hides another.
fn side_by_side(mut series: Vec<Series>) -> Vec<Series> {
    let row = |point: &Point| point.y.to_bits();
    let mut count: HashMap<u64, usize> = HashMap::new();
    let points = series.iter().flat_map(|s| &s.points);
    points.for_each(|p| *count.entry(row(p)).or_default() += 1);
    let mut placed: HashMap<u64, usize> = HashMap::new();
    for point in series.iter_mut().flat_map(|s| &mut s.points) {
        let (row, place) = (row(point), placed.entry(row(point)).or_default());
        point.y -= ((*place as f64 + 0.5) / count[&row] as f64 - 0.5) * 0.7;
        *place += 1;
    }
    series
}
