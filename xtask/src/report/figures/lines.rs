//! Figures of something over a length, a width or steps.

use std::collections::BTreeMap;

use ssm_benches::results::CurvePoint;
use ssm_core::DType;
use ssm_testkit::tolerance::contract;

use super::{DIRECTIONS, Figures, tip, unique};
use crate::report::axis::Axis;
use crate::report::figure::{Facets, Figure, Guide, Point, Section, Series};
use crate::report::model::Entry;

/// Fewer points than this are a table, not a line.
const LEAST_POINTS: usize = 3;

impl Figures<'_> {
    /// Time by L at fixed B·D, and by D at fixed B and L.
    pub(super) fn growth(&self) -> Vec<Figure> {
        let by_len = |[b, l, d]: [usize; 3]| (format!("B·D = {}", b * d), format!("l-bd{}", b * d), l);
        let by_channels = |[b, l, d]: [usize; 3]| (format!("B = {b}, L = {l}"), format!("d-b{b}-l{l}"), d);
        let mut all = self.lines("L, steps", by_len);
        all.extend(self.lines("D, channels", by_channels));
        all
    }

    /// Lines over one extent: `split` says what is fixed, in words and as a name, and which extent varies.
    fn lines(&self, label: &str, split: impl Fn([usize; 3]) -> (String, String, usize)) -> Vec<Figure> {
        let mut groups: BTreeMap<(usize, String), Vec<&Entry>> = BTreeMap::new();
        for entry in self.model.entries.iter().filter(|e| e.is_plain()) {
            let (_, id, _) = split(entry.row.shape);
            let order = DIRECTIONS.iter().position(|d| *d == entry.row.direction).unwrap_or(DIRECTIONS.len());
            groups.entry((order, id)).or_default().push(entry);
        }
        let mut all = Vec::new();
        for ((_, id), entries) in groups {
            let Some(first) = entries.first() else { continue };
            let (fixed, ..) = split(first.row.shape);
            let varying = |entry: &Entry| split(entry.row.shape).2 as f64;
            let points = entries.iter().map(|entry| {
                let (x, y) = (varying(entry).log2(), entry.row.median_ns.log10());
                (*entry, Point { x, y, spread: None, tip: tip(self.model, entry) })
            });
            let mut series = self.series(points, true);
            series.retain(|s| distinct(s.points.iter().map(|p| p.x)) >= LEAST_POINTS);
            if series.is_empty() {
                continue;
            }
            let direction = &first.row.direction;
            let drawn = || series.iter().flat_map(|s| &s.points);
            let x = Axis::counts(label, drawn().map(|p| 2f64.powf(p.x)).collect::<Vec<_>>().into_iter());
            let y = Axis::time(drawn().map(|p| 10f64.powf(p.y)).collect::<Vec<_>>().into_iter());
            let guides = proportion(&series, &y).into_iter().collect();
            all.push(Figure {
                id: format!("time-by-{id}-{direction}"),
                section: Section::Growth,
                title: format!("Time by {}, {direction}, {fixed}", &label[..1]),
                x,
                y,
                series,
                guides,
                facets: Facets { direction: direction.clone(), ..Facets::default() },
            });
        }
        all
    }

    /// Error by length: one figure a kind of gates, the worst output of each.
    pub(super) fn errors(&self) -> Vec<Figure> {
        let kinds = unique(self.model.errors.iter().map(|e| e.is.gates.clone()));
        kinds.iter().map(|gates| self.error(gates)).filter(|figure| !figure.series.is_empty()).collect()
    }

    fn error(&self, gates: &str) -> Figure {
        let mut series: Vec<Series> = Vec::new();
        let mut contracts: Vec<DType> = Vec::new();
        let mut inputs = format!("{gates} gates");
        for measured in self.model.errors.iter().filter(|e| e.is.gates == gates) {
            let e = &measured.is;
            let Some(error) = e.error else { continue };
            if e.op != "gated_scan" {
                inputs = format!("{}, {gates}", e.op);
            }
            let facets = self.facets(measured.run, &e.backend, &e.dtype, "");
            let tip = format!(
                "{} · {} · {} · {inputs}, L = {}\n{error:.2e}, the worst: {}",
                self.model.runs[measured.run].letter, e.backend, e.dtype, e.len, e.output
            );
            // Zero has no logarithm, and no type here is that exact.
            let point = Point { x: (e.len as f64).log2(), y: error.max(1e-18).log10(), spread: None, tip };
            // The contract is the scan's; a stack of layers has none.
            let dtype = DType::ALL.into_iter().find(|d| e.op == "gated_scan" && d.name() == e.dtype);
            contracts.extend(dtype.filter(|d| !contracts.contains(d)));
            let Some(known) = series.iter_mut().find(|s| s.facets == facets) else {
                series.push(Series {
                    name: format!("{} · {}", self.model.label(measured.run, &e.backend), e.dtype),
                    style: self.style(measured.run, &e.backend, &e.dtype),
                    joined: true,
                    facets,
                    points: vec![point],
                });
                continue;
            };
            match known.points.iter_mut().find(|p| p.x == point.x) {
                Some(worst) if worst.y < point.y => *worst = point,
                Some(_) => {}
                None => known.points.push(point),
            }
        }
        series.iter_mut().for_each(|s| s.points.sort_by(|p, q| p.x.total_cmp(&q.x)));
        let drawn = || series.iter().flat_map(|s| &s.points);
        let x = Axis::counts("L, steps", drawn().map(|p| 2f64.powf(p.x)).collect::<Vec<_>>().into_iter());
        let errors = drawn().map(|p| 10f64.powf(p.y)).chain(contracts.iter().map(|dtype| contract(*dtype)));
        let y = Axis::errors("relative error", errors.collect::<Vec<_>>().into_iter());
        let guide = |dtype: &DType| {
            let most = contract(*dtype);
            Guide::level(most.log10(), &x, format!("{dtype} contract {most:.0e}"))
        };
        let guides = contracts.iter().map(guide).collect();
        Figure {
            id: format!("error-{gates}"),
            section: Section::Error,
            title: format!("Error by L, {inputs}"),
            x,
            y,
            series,
            guides,
            facets: Facets::default(),
        }
    }

    /// Loss and accuracy by step: two figures a task and model.
    pub(super) fn training(&self) -> Vec<Figure> {
        let name = |task: &str, model: &str| format!("{task}, {model}");
        let names = unique(self.model.curves.iter().map(|c| name(&c.is.task, &c.is.model)));
        let mut all = Vec::new();
        for (number, title) in names.iter().enumerate() {
            let curves: Vec<_> =
                self.model.curves.iter().filter(|c| name(&c.is.task, &c.is.model) == *title).collect();
            for (what, is_loss) in [("loss", true), ("accuracy", false)] {
                let series: Vec<Series> = curves
                    .iter()
                    .map(|of| {
                        let curve = &of.is;
                        let value = |p: &CurvePoint| if is_loss { p.loss } else { p.accuracy };
                        let points = curve.points.iter().filter_map(|p| {
                            let y = value(p)?;
                            let label = self.model.label(of.run, &curve.backend);
                            let tip = format!(
                                "{label} · {} · seed {}\nstep {}: {what} {y:.4}",
                                curve.dtype, curve.seed, p.step
                            );
                            Some(Point { x: p.step as f64, y, spread: None, tip })
                        });
                        Series {
                            name: format!("{} · {}", self.model.label(of.run, &curve.backend), curve.dtype),
                            style: self.style(of.run, &curve.backend, &curve.dtype),
                            joined: true,
                            facets: self.facets(of.run, &curve.backend, &curve.dtype, ""),
                            points: points.collect(),
                        }
                    })
                    .filter(|series| !series.points.is_empty())
                    .collect();
                if series.is_empty() {
                    continue;
                }
                let drawn = || series.iter().flat_map(|s| &s.points);
                let x = Axis::linear("step", drawn().map(|p| p.x).collect::<Vec<_>>().into_iter(), 1.0);
                let y = Axis::linear(
                    what,
                    drawn().map(|p| p.y).collect::<Vec<_>>().into_iter(),
                    if is_loss { 0.1 } else { 1.0 },
                );
                all.push(Figure {
                    id: format!("training-{}-{what}", number + 1),
                    section: Section::Training,
                    title: format!("{title}: {what}"),
                    x,
                    y,
                    series,
                    guides: vec![],
                    facets: Facets::default(),
                });
            }
        }
        all
    }
}

/// Time in proportion to the work: back from the last point of the first series to the floor.
fn proportion(series: &[Series], y: &Axis) -> Option<Guide> {
    let points = &series.first()?.points;
    let (first, last) = (points.first()?, points.last()?);
    let decades = (last.x - first.x) * 2f64.log10();
    let down = decades.min(last.y - y.low);
    let from = (last.x - down / 2f64.log10(), last.y - down);
    Some(Guide { from, to: (last.x, last.y), label: String::new() })
}

fn distinct(values: impl Iterator<Item = f64>) -> usize {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all.len()
}
