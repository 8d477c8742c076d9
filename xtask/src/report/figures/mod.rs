//! Which figures a report has, and which rows go into each.

mod dots;
mod lines;

use ssm_benches::results::Row;

use super::figure::{Facets, Figure, Point, Series, Style};
use super::format;
use super::model::{Entry, Model};
use crate::table;

/// Passes, in the order in which they appear.
pub(super) const DIRECTIONS: [&str; 3] = ["forward", "backward", "train"];

/// Every figure that the model has data for, in order of section.
pub(super) fn all(model: &Model) -> Vec<Figure> {
    let figures = Figures { model, styles: styles(model) };
    let mut all = Vec::new();
    for direction in DIRECTIONS {
        all.extend(figures.bandwidth(direction));
    }
    for direction in DIRECTIONS {
        all.extend(figures.speed_up(direction));
    }
    all.extend(figures.growth());
    all.extend(figures.memory());
    all.extend(figures.errors());
    all.extend(figures.launch());
    all.extend(figures.training());
    all
}

/// Colour and marker by run and backend.
fn styles(model: &Model) -> Vec<(usize, String)> {
    let measured = model.entries.iter().map(|e| (e.run, &e.row.backend));
    let errors = model.errors.iter().map(|e| (e.run, &e.is.backend));
    let trained = model.curves.iter().map(|c| (c.run, &c.is.backend));
    let mut all: Vec<(usize, String)> = Vec::new();
    for (run, backend) in measured.chain(errors).chain(trained) {
        if !all.iter().any(|(r, b)| *r == run && b == backend) {
            all.push((run, backend.clone()));
        }
    }
    all
}

struct Figures<'m> {
    model: &'m Model,
    styles: Vec<(usize, String)>,
}

/// What hovering over a row shows.
fn tip(model: &Model, entry: &Entry) -> String {
    let Row { backend, device, direction, dtype, variant, algorithm, .. } = &entry.row;
    let row = &entry.row;
    let mut lines = vec![
        format!(
            "{} · {backend} · {direction} {dtype} {} {variant}",
            model.runs[entry.run].letter,
            format::shape(row)
        ),
        format!("{device}, {algorithm}"),
        format!(
            "{} (p10 {}, p90 {})",
            table::time(row.median_ns),
            table::time(row.p10_ns),
            table::time(row.p90_ns)
        ),
        format!("{:.1} GB/s", row.gb_per_s),
    ];
    if let Some(fraction) = row.fraction {
        let reference = format::optional(row.reference_gb_per_s, 1);
        lines.push(format!("{fraction:.3} of the device's own {reference} GB/s"));
    }
    if row.noisy {
        lines.push("noisy: not to be quoted".to_owned());
    }
    lines.join("\n")
}

impl Figures<'_> {
    fn style(&self, run: usize, backend: &str, dtype: &str) -> Style {
        let index = self.styles.iter().position(|(r, b)| *r == run && b == backend).unwrap_or(0);
        let dash = ["f32", "f16", "bf16", "f64"].iter().position(|name| *name == dtype).unwrap_or(0);
        Style { colour: index, marker: index, dash }
    }

    fn facets(&self, run: usize, backend: &str, dtype: &str, direction: &str) -> Facets {
        let letter = self.model.runs[run].letter.clone();
        Facets { run: letter, backend: backend.into(), dtype: dtype.into(), direction: direction.into() }
    }

    /// One series a run, backend, type and direction, out of rows that come with their points.
    fn series<'e>(&self, points: impl Iterator<Item = (&'e Entry, Point)>, joined: bool) -> Vec<Series> {
        let mut all: Vec<Series> = Vec::new();
        for (entry, point) in points {
            let Row { backend, dtype, direction, .. } = &entry.row;
            let facets = self.facets(entry.run, backend, dtype, direction);
            match all.iter_mut().find(|series| series.facets == facets) {
                Some(series) => series.points.push(point),
                None => all.push(Series {
                    name: format!("{} · {dtype}", self.model.label(entry.run, backend)),
                    style: self.style(entry.run, backend, dtype),
                    joined,
                    facets,
                    points: vec![point],
                }),
            }
        }
        for series in &mut all {
            series.points.sort_by(|p, q| p.x.total_cmp(&q.x));
        }
        all
    }
}

/// Each once, in order of appearance.
pub(super) fn unique(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use ssm_benches::results::Results;

    use super::*;
    use crate::report::figure::Section;

    fn model() -> Model {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/made-up.json");
        let results = Results::read(path.as_ref()).expect("the fixture");
        Model::new(vec![("made-up.json".to_owned(), results)])
    }

    fn figure<'f>(figures: &'f [Figure], id: &str) -> &'f Figure {
        figures.iter().find(|f| f.id == id).unwrap_or_else(|| panic!("no figure {id}"))
    }

    #[test]
    fn the_worst_output_is_what_is_drawn() {
        let (model, mut seen) = (model(), 0);
        let figures = all(&model);
        for series in &figure(&figures, "error-slow").series {
            for point in &series.points {
                let same = model.errors.iter().map(|e| &e.is).filter(|e| {
                    e.gates == "slow" && e.dtype == series.facets.dtype && (e.len as f64).log2() == point.x
                });
                let worst = same.filter_map(|e| e.error).fold(0.0, f64::max);
                assert!((point.y - worst.log10()).abs() < 1e-12, "{} at {}", series.name, point.x);
                seen += 1;
            }
        }
        assert_eq!(seen, 3 * 6, "three types, six lengths");
    }

    #[test]
    fn sweeps_are_lines_and_standard_shapes_are_rows() {
        let model = model();
        let figures = all(&model);
        let line = figure(&figures, "time-by-l-bd256-forward");
        let lengths: Vec<f64> = line.series[0].points.iter().map(|p| p.x).collect();
        assert_eq!(lengths, [4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0]);
        let of_a_thousand = figure(&figures, "time-by-d-b1-l1024-forward");
        assert_eq!(of_a_thousand.series[0].points.len(), 7, "(1, 1024, 256) lies on both lines");
        for figure in figures.iter().filter(|f| f.section == Section::Bandwidth) {
            let shapes: Vec<&str> = figure.y.ticks.iter().map(|(_, name)| name.as_str()).collect();
            assert_eq!(shapes, ["8×2048×4096", "1×1048576×64", "1×65536×1024"], "{}", figure.id);
        }
        let launch = figure(&figures, "launch");
        assert!(launch.y.ticks.iter().any(|(_, name)| name == "1×1×64 forward"));
    }

    #[test]
    fn memory_is_in_tensors_and_speed_up_in_decades() {
        let model = model();
        let figures = all(&model);
        let saved = &figure(&figures, "memory").series[0];
        let drawn: Vec<f64> = saved.points.iter().map(|p| p.x).collect();
        assert_eq!(drawn, [0.0, 1.0 / 64.0, 1.0], "nothing, chunk states, full h");
        let entry = model.entries.iter().find(|e| e.over_sequential.is_some()).expect("a sequential loop");
        let series = &figure(&figures, "speed-up-forward").series[0];
        let ratio = entry.over_sequential.expect("as above");
        assert!(series.points.iter().any(|p| (p.x - ratio.log10()).abs() < 1e-12), "{ratio}");
    }
}
