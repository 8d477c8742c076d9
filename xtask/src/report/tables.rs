//! Tables before they are written: the same for the page and for Markdown.

use ssm_benches::results::{Host, Row};

use super::figure::{Facets, Section};
use super::format;
use super::model::{Entry, Model, Of, Run};
use crate::table::time;

pub(super) struct Table {
    pub(super) section: Section,
    pub(super) head: Vec<Column>,
    pub(super) rows: Vec<Line>,
}

pub(super) struct Column {
    pub(super) name: String,
    /// Flush right, and sorted by number.
    pub(super) number: bool,
}

pub(super) struct Line {
    pub(super) facets: Facets,
    /// Not to be quoted.
    pub(super) noisy: bool,
    pub(super) cells: Vec<Cell>,
}

/// What is shown, and the number to sort by.
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) value: Option<f64>,
}

/// Every table that the model has rows for, in order of section.
pub(super) fn all(model: &Model) -> Vec<Table> {
    let tables = [rows(model), memory(model), errors(model), launch(model), training(model)];
    tables.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

fn text(text: &str) -> Cell {
    Cell { text: text.to_owned(), value: None }
}

fn number(value: Option<f64>, shown: impl Fn(f64) -> String) -> Cell {
    Cell { text: value.map_or("–".to_owned(), shown), value }
}

fn fixed(digits: usize) -> impl Fn(f64) -> String {
    move |v| format!("{v:.digits$}")
}

fn nanoseconds(ns: f64) -> Cell {
    number(Some(ns), time)
}

fn bytes(count: Option<u64>) -> Cell {
    number(count.map(|n| n as f64), format::bytes)
}

fn shape(row: &Row) -> Cell {
    Cell { text: format::shape(row), value: Some(row.shape.iter().map(|&n| n as f64).product()) }
}

/// Columns of words, then columns of numbers.
fn head(words: &[&str], numbers: &[&str]) -> Vec<Column> {
    let column = |number| move |name: &&str| Column { name: (*name).to_owned(), number };
    words.iter().map(column(false)).chain(numbers.iter().map(column(true))).collect()
}

fn facets(model: &Model, run: usize, backend: &str, dtype: &str, direction: &str) -> Facets {
    let run = model.runs[run].letter.clone();
    Facets { run, backend: backend.into(), dtype: dtype.into(), direction: direction.into() }
}

fn line(model: &Model, entry: &Entry, cells: Vec<Cell>) -> Line {
    let Row { backend, dtype, direction, noisy, .. } = &entry.row;
    Line { facets: facets(model, entry.run, backend, dtype, direction), noisy: *noisy, cells }
}

fn rows(model: &Model) -> Table {
    let words = ["run", "backend", "device", "direction", "type", "variant", "algorithm"];
    let numbers = ["B×L×D", "time", "p10", "p90", "GB/s", "device's own", "share", "over sequential"];
    let peers: Vec<String> = model.peers.iter().map(|peer| format!("over {peer}")).collect();
    let numbers: Vec<&str> = numbers.into_iter().chain(peers.iter().map(String::as_str)).collect();
    let rows = model.entries.iter().map(|entry| {
        let row = &entry.row;
        let mark = if row.noisy { " ~" } else { "" };
        let mut cells = vec![
            text(&model.runs[entry.run].letter),
            text(&row.backend),
            text(&row.device),
            text(&row.direction),
            text(&row.dtype),
            text(&row.variant),
            text(&row.algorithm),
            shape(row),
            number(Some(row.median_ns), |ns| time(ns) + mark),
            nanoseconds(row.p10_ns),
            nanoseconds(row.p90_ns),
            number(Some(row.gb_per_s), fixed(1)),
            number(row.reference_gb_per_s, fixed(1)),
            number(row.fraction, fixed(3)),
            number(entry.over_sequential, format::times),
        ];
        cells.extend(entry.over_peers.iter().map(|over| number(*over, format::times)));
        line(model, entry, cells)
    });
    Table { section: Section::Rows, head: head(&words, &numbers), rows: rows.collect() }
}

fn memory(model: &Model) -> Table {
    let words = ["run", "backend", "direction", "type", "policy", "algorithm"];
    let numbers =
        ["B×L×D", "saved", "of a tensor", "workspace", "of a tensor", "peak", "of a tensor", "time"];
    let rows = model.entries.iter().filter_map(|entry| {
        let (row, policy) = (&entry.row, entry.policy()?);
        let tensors = |count: Option<u64>| number(count.map(|n| n as f64 / entry.tensor_bytes()), fixed(4));
        let cells = vec![
            text(&model.runs[entry.run].letter),
            text(&row.backend),
            text(&row.direction),
            text(&row.dtype),
            text(policy),
            text(&row.algorithm),
            shape(row),
            bytes(row.saved_bytes),
            tensors(row.saved_bytes),
            bytes(row.workspace_bytes),
            tensors(row.workspace_bytes),
            bytes(row.peak_bytes),
            tensors(row.peak_bytes),
            nanoseconds(row.median_ns),
        ];
        Some(line(model, entry, cells))
    });
    Table { section: Section::Memory, head: head(&words, &numbers), rows: rows.collect() }
}

/// One line a run, backend, type, gates and length; one column an output.
fn errors(model: &Model) -> Table {
    let outputs = super::figures::unique(model.errors.iter().map(|e| e.is.output.clone()));
    let words = ["run", "backend", "type", "gates", "algorithm"];
    let numbers: Vec<&str> = ["L"].into_iter().chain(outputs.iter().map(String::as_str)).collect();
    let same = |p: &Of<_>, q: &Of<_>| p.run == q.run && key(&p.is) == key(&q.is);
    let rows = model.errors.chunk_by(same).filter_map(|group| {
        let Of { run, is: first } = group.first()?;
        let mut cells = vec![
            text(&model.runs[*run].letter),
            text(&first.backend),
            text(&first.dtype),
            text(&first.gates),
            text(&first.algorithm),
            number(Some(first.len as f64), fixed(0)),
        ];
        cells.extend(outputs.iter().map(|output| match group.iter().find(|e| e.is.output == *output) {
            Some(Of { is, .. }) if is.error.is_none() => text("not finite"),
            measured => number(measured.and_then(|e| e.is.error), |e| format!("{e:.1e}")),
        }));
        let facets = facets(model, *run, &first.backend, &first.dtype, "");
        Some(Line { facets, noisy: false, cells })
    });
    Table { section: Section::Error, head: head(&words, &numbers), rows: rows.collect() }
}

/// Everything but output and error.
fn key(row: &ssm_benches::results::ErrorRow) -> (&str, &str, &str, &str, &str, usize) {
    (&row.backend, &row.device, &row.gates, &row.dtype, &row.algorithm, row.len)
}

fn launch(model: &Model) -> Table {
    let words = ["run", "backend", "direction", "type", "algorithm"];
    let numbers = ["B×L×D", "time", "p10", "p90", "launches a sample"];
    let rows = model.entries.iter().filter(|e| e.is_tiny() && e.is_plain()).map(|entry| {
        let row = &entry.row;
        let cells = vec![
            text(&model.runs[entry.run].letter),
            text(&row.backend),
            text(&row.direction),
            text(&row.dtype),
            text(&row.algorithm),
            shape(row),
            nanoseconds(row.median_ns),
            nanoseconds(row.p10_ns),
            nanoseconds(row.p90_ns),
            number(Some(row.launches as f64), fixed(0)),
        ];
        line(model, entry, cells)
    });
    Table { section: Section::Launch, head: head(&words, &numbers), rows: rows.collect() }
}

/// Where each training run ended.
fn training(model: &Model) -> Table {
    let words = ["run", "backend", "type", "task", "model"];
    let numbers = ["seed", "steps", "last loss", "last accuracy"];
    let rows = model.curves.iter().filter_map(|Of { run, is }| {
        let last = is.points.last()?;
        let cells = vec![
            text(&model.runs[*run].letter),
            text(&is.backend),
            text(&is.dtype),
            text(&is.task),
            text(&is.model),
            number(Some(is.seed as f64), fixed(0)),
            number(Some(last.step as f64), fixed(0)),
            number(last.loss, fixed(4)),
            number(last.accuracy, fixed(4)),
        ];
        Some(Line { facets: facets(model, *run, &is.backend, &is.dtype, ""), noisy: false, cells })
    });
    Table { section: Section::Training, head: head(&words, &numbers), rows: rows.collect() }
}

/// The conditions of a run: name and value.
pub(super) fn conditions(run: &Run) -> Vec<(&'static str, String)> {
    let Host { cpu, cores, threads, memory_bytes, os, gpu, driver, gpu_state, commit, dirty, .. } = &run.host;
    let Host { date, load, allocator, rustc, flags, cpu_mhz, power, cpu_celsius, seed, quick, after, .. } =
        &run.host;
    let or_unknown = |value: &Option<String>| value.clone().unwrap_or("–".to_owned());
    // At the start, and at the end where that was read too.
    let both = |start: Option<String>, end: Option<String>| match (start, end) {
        (Some(start), Some(end)) if start != end => format!("{start} → {end}"),
        (start, end) => or_unknown(&start.or(end)),
    };
    let after = after.clone().unwrap_or_default();
    let mhz = |v: f64| format!("{v:.0} MHz");
    let celsius = |v: f64| format!("{v:.0} °C");
    let commit = commit.as_ref().map(|c| {
        let dirty = if *dirty == Some(true) { ", with changes" } else { "" };
        format!("{}{dirty}", format::commit(c))
    });
    vec![
        ("file", run.file.clone()),
        ("CPU", format!("{cpu}, {cores} cores, {threads} threads")),
        ("memory", memory_bytes.map_or("–".to_owned(), |n| format::bytes(n as f64))),
        ("system", os.clone()),
        ("GPU", or_unknown(gpu)),
        ("driver", or_unknown(driver)),
        ("GPU clocks, temperature, power limit", both(gpu_state.clone(), after.gpu_state)),
        ("CPU clock", both(cpu_mhz.map(mhz), after.cpu_mhz.map(mhz))),
        ("CPU temperature", both(cpu_celsius.map(celsius), after.cpu_celsius.map(celsius))),
        ("power mode", or_unknown(power)),
        ("other load at the start", format::optional(*load, 2)),
        ("allocator", allocator.clone()),
        ("commit", or_unknown(&commit)),
        ("compiler", rustc.clone()),
        ("flags", flags.clone()),
        ("date", date.clone()),
        ("seed", seed.to_string()),
        ("samples", if *quick { "few (--quick)" } else { "full" }.to_owned()),
    ]
}
