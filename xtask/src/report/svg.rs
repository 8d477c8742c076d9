//! A figure as SVG. plotters draws the frame, and says where each point lies in it.
//!
//! The marks are written here, since plotters has no elements with a class, a tooltip or a name to filter by: colours are
//! classes, so that one drawing serves light, dark and paper, and every mark has a `<title>`, which shows without
//! scripts.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::axis::Axis;
use super::figure::{Facets, Figure, Point, Series, Style};

/// Colours, dashes and fills of the marks.
pub(super) const CSS: &str = include_str!("svg.css");

const WIDTH: u32 = 820;
const LINE_HEIGHT: u32 = 380;
const FRAME_HEIGHT: u32 = 66;
const LEGEND_ROW: u32 = 20;
const LEGEND_COLUMNS: usize = 3;

/// Circle, square, triangle, diamond, triangle down, plus, cross, bar: about 9 pixels each, around the origin.
const MARKERS: [&str; 8] = [
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "M-4-4h8v8h-8z",
    "M0-5l5 9h-10z",
    "M0-5.5l5.5 5.5l-5.5 5.5l-5.5-5.5z",
    "M0 5l5-9h-10z",
    "M-1.5-5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
    "M-4-2l2-2l2 2l2-2l2 2l-2 2l2 2l-2 2l-2-2l-2 2l-2-2l2-2z",
    "M-2-5h4v10h-4z",
];

/// For text and for attributes.
fn escape(text: &str) -> String {
    maud::html! { (text) }.into_string()
}

/// The figure with its legend, to stand in a page that has [`CSS`].
pub(super) fn draw(figure: &Figure) -> Result<String> {
    let body = match figure.y.named {
        true => {
            // As high as the fullest row needs.
            let rows = figure.y.ticks.len();
            let mut count = vec![0; rows];
            for point in figure.series.iter().flat_map(|s| &s.points) {
                count[((-point.y).round() as usize).min(rows - 1)] += 1;
            }
            let most = count.into_iter().max().unwrap_or(0);
            rows as u32 * (most * 11 + 8).max(26)
        }
        false => LINE_HEIGHT,
    };
    let plot = body + FRAME_HEIGHT;
    let legend = figure.series.len().div_ceil(LEGEND_COLUMNS) as u32 * LEGEND_ROW + 8;
    let mut frame = String::new();
    let mut marks = String::new();
    {
        let area = SVGBackend::with_string(&mut frame, (WIDTH, plot)).into_drawing_area();
        let (x, y) = (&figure.x, &figure.y);
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(32)
            .x_label_area_size(42)
            .y_label_area_size(if y.named { 190 } else { 66 })
            .build_cartesian_2d(Scale(x), Scale(y))?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(x.label.as_str()).y_desc(y.label.as_str()).max_light_lines(0);
        mesh.label_style(("sans-serif", 13)).axis_desc_style(("sans-serif", 13));
        mesh.draw()?;
        let at = |x: f64, y: f64| chart.backend_coord(&(x, y));
        for guide in &figure.guides {
            let (from, to) = (at(guide.from.0, guide.from.1), at(guide.to.0, guide.to.1));
            write!(marks, r#"<path class="guide" d="M{} {}L{} {}"/>"#, from.0, from.1, to.0, to.1)?;
            let (left, above) = (to.0 - 4, to.1 - 4);
            write!(marks, r#"<text class="note" x="{left}" y="{above}">{}</text>"#, escape(&guide.label))?;
        }
        for one in &figure.series {
            marks.push_str(&series(one, x, &at)?);
        }
        area.present()?;
    }
    // The names of shapes and the grid take the colour of the text around them.
    let frame = frame.replace("\"#000000\"", "\"currentColor\"");
    let (_, inner) = frame.split_once('\n').context("plotters wrote no SVG")?;
    let inner = inner.rsplit_once("</svg>").map_or(inner, |(inner, _)| inner);
    let mut svg = String::new();
    write!(
        svg,
        r#"<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {}" role="img" aria-label="{}">"#,
        plot + legend,
        escape(&figure.title)
    )?;
    write!(svg, "{inner}{marks}")?;
    for (i, one) in figure.series.iter().enumerate() {
        let column = (WIDTH as usize - 40) / LEGEND_COLUMNS;
        let (x, y) =
            (20 + i % LEGEND_COLUMNS * column, plot as usize + i / LEGEND_COLUMNS * LEGEND_ROW as usize + 8);
        write!(svg, r#"<g{} transform="translate({x} {y})">"#, attributes(one.style, &one.facets))?;
        if one.joined {
            svg.push_str(r#"<path class="line" d="M0 0h28"/>"#);
        }
        write!(svg, r#"<path class="mark" transform="translate(14 0)" d="{}"/>"#, marker(one.style))?;
        write!(svg, r#"<text x="36" y="4">{}</text></g>"#, escape(&one.name))?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// A drawing as a file of its own.
pub(super) fn alone(drawing: &str) -> String {
    let page = r#"<rect class="page" width="100%" height="100%"/>"#;
    drawing.replacen("\">", &format!("\"><style>{CSS}</style>{page}"), 1)
}

/// An axis as plotters wants it: the ticks are those that the axis has.
struct Scale<'a>(&'a Axis);

impl Ranged for Scale<'_> {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.0.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.0.low..self.0.high
    }
}

impl ValueFormatter<f64> for Scale<'_> {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.0.ticks.iter().find(|(at, _)| at == value);
        tick.map_or_else(String::new, |(_, label)| label.clone())
    }
}

fn marker(style: Style) -> &'static str {
    // The ninth takes the first colour with the second marker, and so on.
    MARKERS[(style.marker + style.marker / MARKERS.len()) % MARKERS.len()]
}

fn attributes(style: Style, facets: &Facets) -> String {
    let mut text = format!(r#" class="series c{} d{}""#, style.colour % 8, style.dash);
    for (name, value) in facets.pairs() {
        let _ = write!(text, r#" data-{name}="{}""#, escape(value));
    }
    text
}

fn series(series: &Series, x: &Axis, at: &impl Fn(f64, f64) -> (i32, i32)) -> Result<String> {
    let mut text = format!("<g{}>", attributes(series.style, &series.facets));
    if series.joined {
        let path = series.points.iter().map(|p| at(p.x, p.y)).map(|(x, y)| format!("{x} {y}"));
        write!(text, r#"<path class="line" d="M{}"/>"#, path.collect::<Vec<_>>().join("L"))?;
    }
    for Point { x: px, y: py, spread, tip } in &series.points {
        if let Some((low, high)) = spread {
            let (from, to) = (at(low.clamp(x.low, x.high), *py), at(high.clamp(x.low, x.high), *py));
            write!(text, r#"<path class="spread" d="M{} {}H{}"/>"#, from.0, from.1, to.0)?;
        }
        let (px, py) = at(*px, *py);
        write!(
            text,
            r#"<path class="mark" tabindex="0" transform="translate({px} {py})" d="{}"><title>{}</title></path>"#,
            marker(series.style),
            escape(tip)
        )?;
    }
    text.push_str("</g>");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::Section;

    fn drawing() -> String {
        let point = |x, y, tip: &str| Point { x, y, spread: None, tip: tip.to_owned() };
        let series = Series {
            name: "a < b".to_owned(),
            style: Style { colour: 9, marker: 1, dash: 2 },
            joined: true,
            facets: Facets { backend: "cpu".to_owned(), ..Facets::default() },
            points: vec![point(0.0, 1.0, "low & left"), point(10.0, 3.0, "high")],
        };
        draw(&Figure {
            id: "id".to_owned(),
            section: Section::Growth,
            title: "a \"title\"".to_owned(),
            x: Axis::linear("x", [0.0, 10.0].into_iter(), 1.0),
            y: Axis::linear("y", [1.0, 3.0].into_iter(), 1.0),
            series: vec![series],
            guides: vec![],
            facets: Facets::default(),
        })
        .expect("a drawing")
    }

    #[test]
    fn marks_lie_where_their_values_say() {
        let drawing = drawing();
        let marks: Vec<(i32, i32)> = drawing
            .split("tabindex=\"0\" transform=\"translate(")
            .skip(1)
            .filter_map(|rest| rest.split_once(')')?.0.split_once(' '))
            .map(|(x, y)| (x.parse().expect("a pixel"), y.parse().expect("a pixel")))
            .collect();
        let [(left, low), (right, high)] = marks[..] else { panic!("{marks:?}") };
        assert!(left < right && high < low, "right is more, and up is more: {marks:?}");
        // The floor is 0 and the ceiling 3: a third up, and all the way.
        assert!((f64::from(low - high) / f64::from(LINE_HEIGHT) - 2.0 / 3.0).abs() < 0.03, "{marks:?}");
    }

    #[test]
    fn text_is_escaped_and_nothing_has_a_colour_of_its_own() {
        let drawing = drawing();
        assert!(drawing.contains("a &lt; b") && drawing.contains("low &amp; left"), "{drawing}");
        assert!(drawing.contains("a &quot;title&quot;") && drawing.contains("c1 d2\" data-backend=\"cpu\""));
        assert!(!drawing.contains('#'), "colours come from the style sheet");
        assert!(alone(&drawing).contains("<style>.plot"));
    }
}
