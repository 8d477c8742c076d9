//! The report as CSV: every number in full, one file a kind of row.

use anyhow::Result;
use csv::Writer;

use super::model::{Model, Run};

/// Names and contents of the files that there is something for.
pub(super) fn files(model: &Model) -> Result<Vec<(&'static str, String)>> {
    let mut files = vec![("results.csv", results(model)?)];
    if !model.errors.is_empty() {
        files.push(("errors.csv", errors(model)?));
    }
    if !model.curves.is_empty() {
        files.push(("curves.csv", curves(model)?));
    }
    Ok(files)
}

const RUN: [&str; 8] = ["run", "file", "cpu", "gpu", "commit", "dirty", "date", "busy"];

fn run(run: &Run) -> [String; 8] {
    let host = &run.host;
    [
        run.letter.clone(),
        run.file.clone(),
        host.cpu.clone(),
        host.gpu.clone().unwrap_or_default(),
        host.commit.clone().unwrap_or_default(),
        host.dirty.map(|d| d.to_string()).unwrap_or_default(),
        host.date.clone(),
        host.busy.to_string(),
    ]
}

/// Empty for nothing.
fn shown<T: ToString>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

fn finish(writer: Writer<Vec<u8>>) -> Result<String> {
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn results(model: &Model) -> Result<String> {
    let mut writer = Writer::from_writer(Vec::new());
    let columns = [
        "backend",
        "device",
        "op",
        "direction",
        "dtype",
        "batch",
        "len",
        "channels",
        "variant",
        "algorithm",
        "median_ns",
        "p10_ns",
        "p90_ns",
        "bytes",
        "gb_per_s",
        "reference_gb_per_s",
        "fraction",
        "fraction_p10",
        "fraction_p90",
        "checkpoint",
        "saved_bytes",
        "workspace_bytes",
        "peak_bytes",
        "samples",
        "launches",
        "noisy",
        "over_sequential",
    ];
    let peers = model.peers.iter().map(|peer| format!("over_{peer}"));
    writer.write_record(RUN.into_iter().chain(columns).map(str::to_owned).chain(peers))?;
    for entry in &model.entries {
        let row = &entry.row;
        let [batch, len, channels] = row.shape.map(|n| n.to_string());
        let cells = [
            row.backend.clone(),
            row.device.clone(),
            row.op.clone(),
            row.direction.clone(),
            row.dtype.clone(),
            batch,
            len,
            channels,
            row.variant.clone(),
            row.algorithm.clone(),
            row.median_ns.to_string(),
            row.p10_ns.to_string(),
            row.p90_ns.to_string(),
            row.bytes.to_string(),
            row.gb_per_s.to_string(),
            shown(row.reference_gb_per_s),
            shown(row.fraction),
            shown(row.fraction_p10),
            shown(row.fraction_p90),
            shown(row.checkpoint.clone()),
            shown(row.saved_bytes),
            shown(row.workspace_bytes),
            shown(row.peak_bytes),
            row.samples.to_string(),
            row.launches.to_string(),
            row.noisy.to_string(),
            shown(entry.over_sequential),
        ];
        let peers = entry.over_peers.iter().map(|over| shown(*over));
        writer.write_record(run(&model.runs[entry.run]).into_iter().chain(cells).chain(peers))?;
    }
    finish(writer)
}

fn errors(model: &Model) -> Result<String> {
    let mut writer = Writer::from_writer(Vec::new());
    let columns = ["backend", "device", "op", "gates", "dtype", "algorithm", "len", "output", "error"];
    writer.write_record(RUN.into_iter().chain(columns))?;
    for of in &model.errors {
        let e = &of.is;
        let cells = [
            e.backend.clone(),
            e.device.clone(),
            e.op.clone(),
            e.gates.clone(),
            e.dtype.clone(),
            e.algorithm.clone(),
            e.len.to_string(),
            e.output.clone(),
            shown(e.error),
        ];
        writer.write_record(run(&model.runs[of.run]).into_iter().chain(cells))?;
    }
    finish(writer)
}

fn curves(model: &Model) -> Result<String> {
    let mut writer = Writer::from_writer(Vec::new());
    let columns = ["task", "model", "backend", "device", "dtype", "seed", "step", "loss", "accuracy"];
    writer.write_record(RUN.into_iter().chain(columns))?;
    for of in &model.curves {
        let c = &of.is;
        for point in &c.points {
            let cells = [
                c.task.clone(),
                c.model.clone(),
                c.backend.clone(),
                c.device.clone(),
                c.dtype.clone(),
                c.seed.to_string(),
                point.step.to_string(),
                shown(point.loss),
                shown(point.accuracy),
            ];
            writer.write_record(run(&model.runs[of.run]).into_iter().chain(cells))?;
        }
    }
    finish(writer)
}
