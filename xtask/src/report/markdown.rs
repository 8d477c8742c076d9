//! The report as Markdown, beside the plots as files.

use std::fmt::Write as _;

use super::figure::{Figure, Section};
use super::model::Model;
use super::tables::{self, Table};

/// The whole document.
pub(super) fn page(model: &Model, figures: &[Figure]) -> String {
    let mut text = String::from("# Gated scan benchmarks\n\n");
    for run in &model.runs {
        let _ = writeln!(text, "- {}: {}, {}, {}", run.letter, run.file, cell(&run.host.cpu), run.host.date);
        for caution in &run.cautions {
            let _ = writeln!(text, "- Run {}: {}.", run.letter, cell(caution));
        }
    }
    let tables = tables::all(model);
    for section in Section::ALL {
        let figures: Vec<&Figure> = figures.iter().filter(|f| f.section == section).collect();
        let tables: Vec<&Table> = tables.iter().filter(|t| t.section == section).collect();
        if figures.is_empty() && tables.is_empty() {
            continue;
        }
        let _ = write!(text, "\n## {}\n\n{}\n", section.title(), section.note());
        for figure in figures {
            let _ = write!(text, "\n![{}](plots/{}.svg)\n", figure.title, figure.id);
        }
        for one in tables {
            table(one, &mut text);
        }
    }
    text.push_str("\n## Conditions\n\n");
    conditions(model, &mut text);
    text
}

/// A bar would end the cell, and a line its row.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn row(cells: impl Iterator<Item = String>, text: &mut String) {
    for one in cells {
        let _ = write!(text, "| {} ", cell(&one));
    }
    text.push_str("|\n");
}

fn conditions(model: &Model, text: &mut String) {
    let all: Vec<_> = model.runs.iter().map(tables::conditions).collect();
    row(std::iter::once(String::new()).chain(model.runs.iter().map(|r| r.letter.clone())), text);
    let _ = writeln!(text, "|---|{}", "---|".repeat(model.runs.len()));
    for (i, (name, _)) in all.first().into_iter().flatten().enumerate() {
        row(std::iter::once((*name).to_owned()).chain(all.iter().map(|run| run[i].1.clone())), text);
    }
    for run in &model.runs {
        for absent in &run.absent {
            let _ = write!(text, "\nRun {}: {} absent: {}\n", run.letter, absent.backend, cell(&absent.why));
        }
        for skipped in &run.skipped {
            let _ = write!(
                text,
                "\nRun {}: {}/{} skipped: {}\n",
                run.letter,
                skipped.backend,
                skipped.case,
                cell(&skipped.why)
            );
        }
    }
}

fn table(table: &Table, text: &mut String) {
    text.push('\n');
    row(table.head.iter().map(|c| c.name.clone()), text);
    let rule = table.head.iter().map(|c| if c.number { "|---:" } else { "|---" });
    let _ = writeln!(text, "{}|", rule.collect::<String>());
    for line in &table.rows {
        row(line.cells.iter().map(|c| c.text.clone()), text);
    }
}
