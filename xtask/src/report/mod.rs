//! `cargo xtask report`: one or more results.json as a page, as Markdown and as CSV.
//!
//! Data flows one way: files → [`model`] (what is compared with what) → [`figures`] (what is drawn) → [`svg`], and the
//! views [`html`], [`markdown`] and [`csv`], which decide nothing but the form.

mod axis;
mod csv;
mod figure;
mod figures;
mod format;
mod html;
mod markdown;
mod model;
mod svg;
mod tables;

use std::path::PathBuf;

use anyhow::{Context, Result};

use model::Model;

use crate::compare;

/// Arguments of `cargo xtask report`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files that bench-all wrote, in the order in which they are to appear.
    #[arg(required = true, value_name = "RESULTS.json")]
    pub(crate) files: Vec<PathBuf>,
    /// The folder for report.html, report.md, the plots and the CSV files.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut files = Vec::new();
    for path in &args.files {
        let results = compare::read(path)?;
        let name =
            path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into());
        files.push((name, results));
    }
    let model = Model::new(files);
    let figures = figures::all(&model);
    let drawn = figures.iter().map(svg::draw).collect::<Result<Vec<String>>>()?;

    let plots = args.out.join("plots");
    std::fs::create_dir_all(&plots).with_context(|| plots.display().to_string())?;
    let write = |name: &str, text: &str| {
        let path = args.out.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    for (figure, drawing) in figures.iter().zip(&drawn) {
        write(&format!("plots/{}.svg", figure.id), &svg::alone(drawing))?;
    }
    for (name, text) in csv::files(&model)? {
        write(name, &text)?;
    }
    write("report.md", &markdown::page(&model, &figures))?;
    write("report.html", &html::page(&model, &figures, &drawn))?;
    println!("{}", args.out.join("report.html").display());
    Ok(())
}
