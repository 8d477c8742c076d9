//! `cargo xtask numerics`: how far the CPU is from the float64 recurrence, by length, type and output.
//!
//! What is measured, and on which inputs, is `ssm_testkit::drift`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use ssm_core::{Algorithm, DType};
use ssm_cpu::CpuBackend;
use ssm_testkit::drift::{Drift, Gates, Probe, drift};
use ssm_testkit::tolerance::contract;
use ssm_testkit::{Erased, HostHarness, Subject};

use crate::root;

/// Arguments of `cargo xtask numerics`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder that numerics.csv and numerics.svg are written to; the project's docs when not given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The longest length, as a power of two.
    #[arg(long, value_name = "POWER", default_value_t = 20)]
    longest: u32,
}

/// The worst of so many draws counts.
const DRAWS: u64 = 3;

/// One measurement.
struct Row {
    gates: Gates,
    dtype: DType,
    algorithm: Algorithm,
    len: usize,
    output: &'static str,
    error: f64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| root().join("docs"));
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let subject: Arc<dyn Subject> = Arc::new(Erased(Arc::new(HostHarness::<CpuBackend>::default())));
    let mut rows = Vec::new();
    for gates in [Gates::Sigmoid, Gates::Slow] {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            for power in 10..=args.longest {
                rows.extend(measure(&*subject, gates, dtype, 1 << power, Algorithm::March)?);
            }
        }
        // The plain loop beside it, in the one type where its rounding shows.
        for power in 10..=args.longest {
            rows.extend(measure(&*subject, gates, DType::F32, 1 << power, Algorithm::Sequential)?);
        }
    }
    let (csv, svg) = (out.join("numerics.csv"), out.join("numerics.svg"));
    std::fs::write(&csv, table(&rows)?).with_context(|| csv.display().to_string())?;
    plot(&rows, &svg, args.longest).with_context(|| svg.display().to_string())?;
    println!("{}\n{}\n\n{}", csv.display(), svg.display(), summary(&rows)?);
    Ok(())
}

fn measure(
    subject: &dyn Subject,
    gates: Gates,
    dtype: DType,
    len: usize,
    algorithm: Algorithm,
) -> Result<Vec<Row>> {
    let probe = Probe { gates, dtype, len, algorithm: Some(algorithm), draws: DRAWS };
    let measured = drift(subject, &probe).map_err(|e| anyhow!(e))?;
    let row = |d: Drift| Row { gates, dtype, algorithm, len, output: d.operand.name(), error: d.error };
    Ok(measured.into_iter().map(row).collect())
}

fn table(rows: &[Row]) -> Result<String> {
    let mut text = String::from("gates,dtype,algorithm,len,output,relative_error\n");
    for Row { gates, dtype, algorithm, len, output, error } in rows {
        writeln!(text, "{},{dtype},{algorithm},{len},{output},{error:.3e}", gates.name())?;
    }
    Ok(text)
}

/// The table of docs/numerics.md: the shortest length, the longest and one between.
fn summary(rows: &[Row]) -> Result<String> {
    let mut text = String::from("| gates | type | algorithm | L |");
    COLOURS.iter().try_for_each(|(output, _)| write!(text, " {output} |"))?;
    write!(text, "\n|---|---|---|---|{}", "---|".repeat(COLOURS.len()))?;
    let powers = || rows.iter().map(|row| row.len.trailing_zeros());
    let (shortest, longest) = (powers().min().unwrap_or(0), powers().max().unwrap_or(0));
    let shown = |row: &Row| [shortest, (shortest + longest) / 2, longest].contains(&row.len.trailing_zeros());
    for group in rows.chunk_by(|one, two| one.len == two.len && one.dtype == two.dtype) {
        let Some(Row { gates, dtype, algorithm, len, .. }) = group.first().filter(|row| shown(row)) else {
            continue;
        };
        write!(text, "\n| {} | {dtype} | {algorithm} | 2^{} |", gates.name(), len.trailing_zeros())?;
        for (output, _) in COLOURS {
            let error =
                group.iter().find(|row| row.output == output).context("an output was not measured")?.error;
            write!(text, " {error:.1e} |")?;
        }
    }
    Ok(text)
}

/// A palette that stays apart for colour-blind readers (Okabe and Ito).
const COLOURS: [(&str, RGBColor); 7] = [
    ("y", RGBColor(0, 0, 0)),
    ("hT", RGBColor(86, 180, 233)),
    ("dx", RGBColor(0, 114, 178)),
    ("da", RGBColor(213, 94, 0)),
    ("db", RGBColor(0, 158, 115)),
    ("dc", RGBColor(204, 121, 167)),
    ("dh0", RGBColor(230, 159, 0)),
];

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// One panel a kind of gates, both axes logarithmic: powers of two across, powers of ten up.
fn plot(rows: &[Row], path: &Path, longest: u32) -> Result<()> {
    let area = SVGBackend::new(path, (1100, 560)).into_drawing_area();
    area.fill(&WHITE)?;
    for (panel, gates) in area.split_evenly((1, 2)).iter().zip([Gates::Sigmoid, Gates::Slow]) {
        let title = match gates {
            Gates::Sigmoid => "gates as from a sigmoid",
            Gates::Slow => "slow gates, 1 - a about 1e-4",
        };
        let mut chart = ChartBuilder::on(panel)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(10.0..f64::from(longest), -8.0..-1.5)?;
        chart
            .configure_mesh()
            .x_desc("L, steps")
            .y_desc("relative error against float64")
            .x_labels(6)
            .y_labels(8)
            .x_label_formatter(&|power| format!("2^{power:.0}"))
            .y_label_formatter(&|power| format!("1e{power:.0}"))
            .max_light_lines(0)
            .draw()?;
        bounds(&mut chart, longest)?;
        lines(&mut chart, rows, gates)?;
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::MiddleLeft)
            .background_style(WHITE.mix(0.85))
            .draw()?;
    }
    area.present()?;
    Ok(())
}

/// The contract of each type, dashed.
fn bounds(chart: &mut Chart<'_, '_>, longest: u32) -> Result<()> {
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let at = contract(dtype).log10();
        let ends = [(10.0, at), (f64::from(longest), at)];
        chart.draw_series(DashedLineSeries::new(ends, 6, 4, BLACK.mix(0.6).stroke_width(1)))?;
        let label = format!("{dtype} contract {:.0e}", contract(dtype));
        chart.draw_series([Text::new(label, (f64::from(longest) - 3.2, at + 0.16), ("sans-serif", 13))])?;
    }
    Ok(())
}

fn lines(chart: &mut Chart<'_, '_>, rows: &[Row], gates: Gates) -> Result<()> {
    let points = |dtype: DType, algorithm: Algorithm, output: &str| -> Vec<(f64, f64)> {
        let picked = rows.iter().filter(|r| {
            r.gates == gates && r.dtype == dtype && r.algorithm == algorithm && r.output == output
        });
        picked.map(|r| ((r.len as f64).log2(), r.error.max(1e-8).log10())).collect()
    };
    for (output, colour) in COLOURS {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let style = colour.stroke_width(2);
            let series =
                chart.draw_series(LineSeries::new(points(dtype, Algorithm::March, output), style))?;
            if dtype == DType::F32 {
                series.label(output).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
            }
        }
    }
    let style = RGBColor(120, 120, 120).stroke_width(2);
    let plain = points(DType::F32, Algorithm::Sequential, "y");
    chart
        .draw_series(DashedLineSeries::new(plain, 2, 3, style))?
        .label("y, f32, sequential")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    Ok(())
}
