//! The report as one page that needs nothing but itself: no network, and no script to be read.
//!
//! The script adds sorting, filtering and tooltips that show at once. Without it every plot and number is there, and a
//! plot's marks still have the tooltips of the browser.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::figure::{Facets, Figure, Section};
use super::figures::{DIRECTIONS, unique};
use super::format;
use super::model::{Model, Run};
use super::svg;
use super::tables::{self, Column, Table};

const CSS: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page.
pub(super) fn page(model: &Model, figures: &[Figure], drawn: &[String]) -> String {
    let tables = tables::all(model);
    let sections: Vec<(Section, Markup)> =
        Section::ALL.into_iter().filter_map(|s| Some((s, section(s, figures, drawn, &tables)?))).collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Nothing is fetched, not even an icon.
                link rel="icon" href="data:,";
                title { "Gated scan benchmarks" }
                style { (PreEscaped(svg::CSS)) (PreEscaped(CSS)) }
            }
            body {
                header {
                    h1 { "Gated scan benchmarks" }
                    (overview(model))
                    (cautions(&model.runs))
                    nav {
                        @for (s, _) in &sections { a href={ "#" (s.anchor()) } { (s.title()) } }
                        a href="#runs" { "Conditions" }
                    }
                    (filter(model))
                }
                main {
                    @for (_, section) in &sections { (section) }
                    section id="runs" { h2 { "Conditions" } (conditions(model)) }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// Which letter is which run, in a line each.
fn overview(model: &Model) -> Markup {
    html! {
        ul.runs {
            @for (i, run) in model.runs.iter().enumerate() {
                @let count = model.entries.iter().filter(|e| e.run == i).count();
                li {
                    strong { (run.letter) } " " (run.file) ": "
                    @if let Some(gpu) = &run.host.gpu { (gpu) ", " }
                    (run.host.cpu) ", commit " (run.host.commit.as_deref().map_or("–", format::commit)) ", "
                    (run.host.date) ", " (count) " rows"
                }
            }
        }
    }
}

/// What has to be known before anything is quoted.
fn cautions(runs: &[Run]) -> Markup {
    html! {
        @if runs.iter().any(|run| !run.cautions.is_empty()) {
            ul.cautions {
                @for run in runs {
                    @for caution in &run.cautions { li { "Run " (run.letter) ": " (caution) "." } }
                }
            }
        }
    }
}

/// One group of boxes a facet. Hidden until the script is there to answer.
fn filter(model: &Model) -> Markup {
    let rows = || model.entries.iter().map(|e| (&e.row.backend, &e.row.dtype));
    let errors = || model.errors.iter().map(|e| (&e.is.backend, &e.is.dtype));
    let curves = || model.curves.iter().map(|c| (&c.is.backend, &c.is.dtype));
    let all = || rows().chain(errors()).chain(curves());
    let directions = DIRECTIONS.into_iter().filter(|d| model.entries.iter().any(|e| e.row.direction == *d));
    let groups = [
        ("run", model.runs.iter().map(|run| run.letter.clone()).collect()),
        ("backend", unique(all().map(|(backend, _)| backend.clone()))),
        ("type", unique(all().map(|(_, dtype)| dtype.clone()))),
        ("direction", directions.map(str::to_owned).collect::<Vec<String>>()),
    ];
    html! {
        form #filter hidden {
            @for (name, values) in groups.into_iter().filter(|(_, values)| values.len() > 1) {
                fieldset {
                    legend { (name) }
                    @for value in values {
                        label { input type="checkbox" name=(name) value=(value) checked; (value) }
                    }
                }
            }
            output {}
        }
    }
}

fn conditions(model: &Model) -> Markup {
    let conditions: Vec<_> = model.runs.iter().map(tables::conditions).collect();
    let names = conditions.first().into_iter().flatten().map(|(name, _)| *name);
    html! {
        div.wide {
            table.conditions {
                thead { tr { td {} @for run in &model.runs { th scope="col" { (run.letter) } } } }
                tbody {
                    @for (i, name) in names.enumerate() {
                        tr { th scope="row" { (name) } @for run in &conditions { td { (run[i].1) } } }
                    }
                }
            }
        }
        @for run in &model.runs {
            @for absent in &run.absent {
                p.note { "Run " (run.letter) ": " (absent.backend) " absent: " (absent.why) }
            }
            @if !run.skipped.is_empty() {
                details {
                    summary { "Run " (run.letter) ": " "cases skipped: " (run.skipped.len()) }
                    ul { @for s in &run.skipped { li { (s.backend) "/" (s.case) ": " (s.why) } } }
                }
            }
        }
    }
}

fn section(section: Section, figures: &[Figure], drawn: &[String], tables: &[Table]) -> Option<Markup> {
    let figures: Vec<(&Figure, &String)> =
        figures.iter().zip(drawn).filter(|(f, _)| f.section == section).collect();
    let tables: Vec<&Table> = tables.iter().filter(|t| t.section == section).collect();
    (!figures.is_empty() || !tables.is_empty()).then(|| {
        html! {
            section id=(section.anchor()) {
                h2 { (section.title()) }
                p.note { (section.note()) }
                @for (figure, drawing) in figures {
                    @let facet = Attributes::of(&figure.facets);
                    figure id=(figure.id) data-direction=[facet.direction] {
                        figcaption { (figure.title) }
                        (PreEscaped(drawing))
                    }
                }
                @for one in tables { (table(one)) }
            }
        }
    })
}

/// Facets as attributes: none for those that do not apply.
struct Attributes<'f> {
    run: Option<&'f str>,
    backend: Option<&'f str>,
    dtype: Option<&'f str>,
    direction: Option<&'f str>,
}

impl<'f> Attributes<'f> {
    fn of(facets: &'f Facets) -> Self {
        let some = |value: &'f String| (!value.is_empty()).then_some(value.as_str());
        Self {
            run: some(&facets.run),
            backend: some(&facets.backend),
            dtype: some(&facets.dtype),
            direction: some(&facets.direction),
        }
    }
}

fn class(column: &Column) -> Option<&'static str> {
    column.number.then_some("number")
}

fn table(table: &Table) -> Markup {
    html! {
        div.wide {
            table.sortable {
                thead { tr { @for c in &table.head { th scope="col" class=[class(c)] { (c.name) } } } }
                tbody {
                    @for row in &table.rows {
                        @let facet = Attributes::of(&row.facets);
                        tr.noisy[row.noisy] data-run=[facet.run] data-backend=[facet.backend]
                            data-type=[facet.dtype] data-direction=[facet.direction] {
                            @for (cell, column) in row.cells.iter().zip(&table.head) {
                                td class=[class(column)] data-value=[cell.value] { (cell.text) }
                            }
                        }
                    }
                }
            }
        }
    }
}
