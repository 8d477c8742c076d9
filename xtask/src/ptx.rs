//! `cargo xtask ptx`: kernels/cuda/*.cu to kernels/ptx/*.ptx, so that nobody who uses the crate needs nvcc.
//!
//! The PTX is checked in and carries the hash of what it was made from. nvcc 13 writes `.version 9.0`, which only
//! CUDA 13 drivers load although the instructions are older; the line is lowered, and an older ptxas has to accept
//! the result, since it rejects any instruction that the lowered version does not have.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::root;

/// Arguments of `cargo xtask ptx`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail when kernels/ptx does not match kernels/cuda, and write nothing.
    #[arg(long)]
    check: bool,
    /// First install the pinned compiler from PyPI into target/nvcc.
    #[arg(long)]
    install: bool,
}

/// The compiler that the checked-in PTX is made with. Another one may be found; its output is not checked in.
const NVCC: &str = "13.0.88";
/// The ptxas that proves the lowered `.version`, and whose resource use the table shows.
const PTXAS: &str = "12.4.131";
const WHEELS: [&str; 6] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cuda-nvcc-cu12==12.4.131",
];
/// Compute capability, and the lowest PTX version that it allows.
const ARCHS: [(u32, &str); 3] = [(75, "7.0"), (80, "7.0"), (90, "7.8")];
const FLAGS: [&str; 3] = ["-ptx", "-std=c++17", "-O3"];
/// The whole of kernels/ptx ends up in every binary that uses the crate.
const MOST_BYTES: u64 = 9 << 19;

/// `--check`.
pub(crate) fn check() -> Result<()> {
    run(&Args { check: true, install: false })
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.install {
        install()?;
    }
    let hash = source_hash()?;
    if args.check {
        check_hashes(&hash)?;
        check_size()?;
        let Some(nvcc) = find_nvcc() else {
            println!(
                "kernels/ptx carries the hash of kernels/cuda; not recompiled, since there is no nvcc here"
            );
            return Ok(());
        };
        let version = nvcc_version(&nvcc)?;
        if version != NVCC {
            println!(
                "kernels/ptx carries the hash of kernels/cuda; not recompiled: nvcc {version} is not {NVCC}"
            );
            return Ok(());
        }
        return check_bytes(&build(&nvcc, &hash)?);
    }
    let nvcc =
        find_nvcc().context("no nvcc in CUDA_PATH, target/nvcc or PATH; --install fetches it from PyPI")?;
    let version = nvcc_version(&nvcc)?;
    ensure!(
        version == NVCC,
        "the PTX is made with nvcc {NVCC}, found {version}; --install fetches it from PyPI"
    );
    let outputs = build(&nvcc, &hash)?;
    fs::create_dir_all(ptx_dir())?;
    for stray in strays(&outputs)? {
        fs::remove_file(stray)?;
    }
    for (name, text) in &outputs {
        fs::write(ptx_dir().join(name), text)?;
    }
    check_size()
}

fn cuda_dir() -> PathBuf {
    root().join("kernels/cuda")
}

fn ptx_dir() -> PathBuf {
    root().join("kernels/ptx")
}

fn nvcc_dir() -> PathBuf {
    root().join("target/nvcc")
}

/// `install`, unless there is an nvcc.
pub(crate) fn install_missing() -> Result<()> {
    if find_nvcc().is_none() { install() } else { Ok(()) }
}

/// Into an empty folder: pip does not merge the wheels' common folders into one that stands.
fn install() -> Result<()> {
    let dir = nvcc_dir();
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--no-compile"])
        .arg("--target")
        .arg(dir)
        .args(WHEELS)
        .status()
        .context("python3 with pip is needed to install nvcc")?;
    ensure!(status.success(), "pip failed: {status}");
    Ok(())
}

/// What stands in kernels/cuda itself: sub-folders hold no device code.
fn sources() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(cuda_dir()).context("kernels/cuda cannot be read")? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "cu" || e == "cuh" || e == "h") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Over every source by name, the flags and the targets: whatever may change the PTX changes the hash.
fn source_hash() -> Result<String> {
    let mut hash = Sha256::new();
    for path in sources()? {
        let text = fs::read(&path)?;
        hash.update(file_name(&path));
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update(format!("{NVCC} {FLAGS:?} {ARCHS:?}"));
    Ok(hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// CUDA_PATH is the user's word; target/nvcc was installed on purpose; PATH may hold anything.
fn find_nvcc() -> Option<PathBuf> {
    let installed = nvcc_dir().join("nvidia/cu13/bin/nvcc");
    let path = env::var_os("PATH").unwrap_or_default();
    env::var_os("CUDA_PATH")
        .map(|dir| PathBuf::from(dir).join("bin/nvcc"))
        .into_iter()
        .chain([installed])
        .chain(env::split_paths(&path).map(|dir| dir.join("nvcc")))
        .find(|nvcc| nvcc.is_file())
}

fn nvcc_version(nvcc: &Path) -> Result<String> {
    let text = output(Command::new(nvcc).arg("--version"))?;
    let version = text.split_once(", V").and_then(|(_, rest)| rest.split_whitespace().next());
    Ok(version.context("nvcc --version says no version")?.to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("{command:?} does not start"))?;
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "{command:?} failed:\n{text}");
    Ok(text)
}

/// Every file of kernels/ptx, by name.
fn build(nvcc: &Path, hash: &str) -> Result<Vec<(String, String)>> {
    let ptxas = nvcc_dir().join("nvidia/cuda_nvcc/bin/ptxas");
    ensure!(ptxas.is_file(), "the proof needs ptxas {PTXAS}; --install fetches it from PyPI");
    let scratch = root().join("target/ptx");
    fs::create_dir_all(&scratch)?;
    let mut outputs = Vec::new();
    let mut table = format!(
        "# Resources\n\n<!-- source sha256 {hash} -->\nWhat ptxas {PTXAS} gives each kernel. Written by `cargo xtask \
         ptx`; a driver's own compiler may differ a little.\n\n| kernel | arch | registers | shared bytes | stack bytes \
         | spill bytes, stored + loaded |\n|---|---|---|---|---|---|\n"
    );
    for source in sources()?.iter().filter(|p| p.extension().is_some_and(|e| e == "cu")) {
        for (arch, version) in ARCHS {
            let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name = format!("{stem}.sm_{arch}.ptx");
            let raw = scratch.join(&name);
            output(
                Command::new(nvcc)
                    .current_dir(cuda_dir())
                    .args(FLAGS)
                    .args([format!("-arch=compute_{arch}"), format!("-DSCAN_ARCH={arch}"), file_name(source)])
                    .arg("-o")
                    .arg(&raw),
            )?;
            let text = finish(&fs::read_to_string(&raw)?, hash, version)?;
            fs::write(&raw, &text)?;
            let report = output(
                Command::new(&ptxas)
                    .args(["-v", "-o", "/dev/null"])
                    .arg(format!("-arch=sm_{arch}"))
                    .arg(&raw),
            )
            .with_context(|| format!("{name} does not load as PTX {version}"))?;
            table += &resource_rows(&report, arch);
            outputs.push((name, text));
        }
    }
    outputs.push(("resources.md".to_owned(), table));
    let tuning = fs::read_to_string(cuda_dir().join("scan_tuning.h"))?;
    outputs.push(("tuning.rs".to_owned(), tuning_rows(&tuning, hash)?));
    Ok(outputs)
}

fn check_size() -> Result<()> {
    let mut bytes = 0;
    for entry in fs::read_dir(ptx_dir())? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|e| e == "ptx") {
            bytes += entry.metadata()?.len();
        }
    }
    ensure!(bytes <= MOST_BYTES, "{bytes} bytes of PTX, more than {MOST_BYTES}");
    println!("{bytes} bytes of PTX");
    Ok(())
}

/// Lowers `.version`, and puts the origin on top in place of nvcc's own remarks.
fn finish(ptx: &str, hash: &str, version: &str) -> Result<String> {
    let body = ptx.lines().filter(|line| {
        let line = line.trim();
        // A hint that came with PTX 8.3: which bytes of a wide load are looked at.
        !line.is_empty() && !line.starts_with("//") && !line.starts_with(".pragma \"used_bytes_mask")
    });
    let mut text = format!("// Generated by cargo xtask ptx.\n// source sha256 {hash}\n// nvcc {NVCC}\n");
    let mut lowered = false;
    for line in body {
        if line.starts_with(".version ") {
            lowered = true;
            text += &format!(".version {version}\n");
        } else {
            // The file is read by the driver's compiler: blanks for the eye would be a tenth of it.
            text += &line.trim().replace(" \t", " ");
            text.push('\n');
        }
    }
    ensure!(lowered, "nvcc wrote no .version line");
    Ok(text)
}

/// One row of the table an entry, from what `ptxas -v` prints.
fn resource_rows(report: &str, arch: u32) -> String {
    let mut rows = Vec::new();
    let (mut kernel, mut frame) = (String::new(), [0; 3]);
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split('\'').next().unwrap_or_default().to_owned();
        } else if line.contains("bytes stack frame") {
            let mut numbers = line.split(',').map(leading_number);
            frame = [(); 3].map(|()| numbers.next().unwrap_or(0));
        } else if line.contains("Used ") && line.contains(" registers") {
            let line = line.split_once("Used ").map_or("", |(_, rest)| rest);
            let shared = line.split(", ").find(|part| part.ends_with("bytes smem")).map_or(0, leading_number);
            let ([stack, stores, loads], registers) = (frame, leading_number(line));
            rows.push(format!(
                "| {kernel} | sm_{arch} | {registers} | {shared} | {stack} | {stores} + {loads} |\n"
            ));
        }
    }
    rows.sort();
    rows.concat()
}

fn leading_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The rows of scan_tuning.h as Rust, so that the host sizes its launches by the numbers the kernels were compiled with.
fn tuning_rows(header: &str, hash: &str) -> Result<String> {
    let mut names = Vec::new();
    let mut rows = String::new();
    for line in header.lines() {
        if let Some(columns) = line.strip_prefix("//          arch type ") {
            names = columns.split_whitespace().map(str::to_lowercase).collect();
        } else if let Some((_, row)) = line.split_once("ROW(").filter(|_| !line.contains("define")) {
            let row = row.split(')').next().unwrap_or_default();
            let cells: Vec<_> = row.split(',').map(str::trim).collect();
            ensure!(cells.len() == names.len() + 2, "a row of scan_tuning.h has {} cells", cells.len());
            let dtype = match cells[1] {
                "f32" => "F32",
                "f16" => "F16",
                "bf16" => "Bf16",
                other => bail!("scan_tuning.h has a row for {other}"),
            };
            write!(rows, "    Row {{ arch: {}, dtype: DType::{dtype}", cells[0])?;
            for (name, cell) in names.iter().zip(&cells[2..]) {
                write!(rows, ", {name}: {cell}")?;
            }
            rows += " },\n";
        }
    }
    ensure!(!rows.is_empty(), "scan_tuning.h has no rows");
    Ok(format!("// Generated by cargo xtask ptx from scan_tuning.h.\n// source sha256 {hash}\n&[\n{rows}]\n"))
}

/// Without a compiler: every file there should be is there, and is from these sources.
fn check_hashes(hash: &str) -> Result<()> {
    let mut expected = vec!["resources.md".to_owned(), "tuning.rs".to_owned()];
    for source in sources()?.iter().filter(|p| p.extension().is_some_and(|e| e == "cu")) {
        let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        expected.extend(ARCHS.iter().map(|(arch, _)| format!("{stem}.sm_{arch}.ptx")));
    }
    for name in &expected {
        let text = fs::read_to_string(ptx_dir().join(name))
            .with_context(|| format!("kernels/ptx/{name} is missing: run cargo xtask ptx"))?;
        ensure!(
            text.lines().take(4).any(|line| line.contains(&format!("source sha256 {hash}"))),
            "kernels/ptx/{name} is not from these sources: run cargo xtask ptx"
        );
    }
    let names: Vec<_> = expected.into_iter().map(|name| (name, String::new())).collect();
    match strays(&names)?.first() {
        Some(stray) => bail!("{} has no source: run cargo xtask ptx", stray.display()),
        None => Ok(()),
    }
}

fn check_bytes(outputs: &[(String, String)]) -> Result<()> {
    for (name, text) in outputs {
        let stands = fs::read_to_string(ptx_dir().join(name))?;
        if name == "resources.md" {
            print!("{}", changed_rows(&stands, text));
        }
        ensure!(stands == *text, "kernels/ptx/{name} is not what nvcc {NVCC} makes: run cargo xtask ptx");
    }
    println!("kernels/ptx is what nvcc {NVCC} makes of kernels/cuda");
    Ok(())
}

/// The kernels whose resources are others now, before and after.
fn changed_rows(before: &str, after: &str) -> String {
    let rows =
        |text: &str| text.lines().filter(|l| l.starts_with("| scan")).map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (rows(before), rows(after));
    let only = |sign: &str, of: &[String], other: &[String]| -> String {
        of.iter().filter(|row| !other.contains(row)).map(|row| format!("{sign} {row}\n")).collect()
    };
    only("-", &before, &after) + &only("+", &after, &before)
}

fn strays(outputs: &[(String, String)]) -> Result<Vec<PathBuf>> {
    let mut strays = Vec::new();
    for entry in fs::read_dir(ptx_dir())? {
        let path = entry?.path();
        if !outputs.iter().any(|(name, _)| *name == file_name(&path)) {
            strays.push(path);
        }
    }
    Ok(strays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_report_becomes_a_row() {
        let report = "ptxas info    : Compiling entry function 'scan' for 'sm_90'\n\
                      ptxas info    : Function properties for scan\n    \
                      16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads\n\
                      ptxas info    : Used 40 registers, 1024 bytes smem, 400 bytes cmem[0]\n";
        assert_eq!(resource_rows(report, 90), "| scan | sm_90 | 40 | 1024 | 16 | 8 + 4 |\n");
    }

    #[test]
    fn changed_resources_are_shown() {
        let (before, after) =
            ("# R\n| scan_a | 40 |\n| scan_b | 9 |\n", "# S\n| scan_a | 48 |\n| scan_b | 9 |\n");
        assert_eq!(changed_rows(before, after), "- | scan_a | 40 |\n+ | scan_a | 48 |\n");
    }

    #[test]
    fn the_tuning_table_becomes_rust() {
        let header =
            "//          arch type SUB VM\n#define SCAN_TUNING(ROW) \\\n    ROW(    75, bf16,  16, 2)\n";
        let rust = tuning_rows(header, "cafe").unwrap();
        assert!(
            rust.ends_with("&[\n    Row { arch: 75, dtype: DType::Bf16, sub: 16, vm: 2 },\n]\n"),
            "{rust}"
        );
        assert!(tuning_rows("nothing", "cafe").is_err());
    }

    #[test]
    fn the_version_line_is_lowered_and_must_be_there() {
        let text = finish("//\n// remark\n.version 9.0\n.target sm_75\n", "cafe", "7.0").unwrap();
        assert!(text.ends_with("// nvcc 13.0.88\n.version 7.0\n.target sm_75\n"), "{text}");
        assert!(finish(".target sm_75\n", "cafe", "7.0").is_err());
    }
}
