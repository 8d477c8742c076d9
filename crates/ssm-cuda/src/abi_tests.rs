//! The contract with the kernels, held without a device: parameter blocks and launch rules against the C header as the
//! C compiler reads it, entries against the embedded PTX.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kernels::{Direction, Entry, Target, Walk};
use crate::params::{Block, PUT_MAX, ScanBackward, ScanForward, ScanPut, ScanStep};
use crate::tuning::ROWS;

fn header_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/cuda")
}

/// What a C program that includes scan_abi.h prints. Rust links with the same compiler, so it is there.
fn from_c(name: &str, body: &str) -> String {
    let stem = std::env::temp_dir().join(format!("ssm-cuda-{name}-{}", std::process::id()));
    let (source, program) = (stem.with_extension("c"), stem.with_extension("out"));
    let text = format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include \"scan_abi.h\"\nint main(void) {{\n{body}return 0;\n}}\n"
    );
    std::fs::write(&source, text).unwrap();
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(compiler)
        .arg("-I")
        .arg(header_dir())
        .arg("-o")
        .args([&program, &source])
        .status()
        .expect("a C compiler, which Rust links with too");
    assert!(status.success(), "scan_abi.h does not compile as C");
    let output = Command::new(&program).output().unwrap();
    std::fs::remove_file(source).unwrap();
    std::fs::remove_file(program).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn describe<B: Block>(c: &mut String, rust: &mut String) {
    writeln!(c, "printf(\"{0} %zu\\n\", sizeof({0}));", B::NAME).unwrap();
    writeln!(rust, "{} {}", B::NAME, size_of::<B>()).unwrap();
    for (field, offset, size) in B::FIELDS {
        let name = B::NAME;
        writeln!(
            c,
            "printf(\"{name}.{field} %zu %zu\\n\", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));"
        )
        .unwrap();
        writeln!(rust, "{name}.{field} {offset} {size}").unwrap();
    }
}

#[test]
fn blocks_are_laid_out_as_in_the_header() {
    let (mut c, mut rust) = (String::new(), String::new());
    describe::<ScanForward>(&mut c, &mut rust);
    describe::<ScanBackward>(&mut c, &mut rust);
    describe::<ScanStep>(&mut c, &mut rust);
    describe::<ScanPut>(&mut c, &mut rust);
    writeln!(c, "printf(\"%d\\n\", SCAN_PUT_MAX);").unwrap();
    writeln!(rust, "{PUT_MAX}").unwrap();
    assert_eq!(from_c("blocks", &c), rust);
}

#[test]
fn flags_are_those_of_the_header() {
    use crate::params::{FULL_H, PACKED, REVERSE, SEQUENTIAL, type_tag};
    use ssm_core::DType;
    let c = "printf(\"%u %u %u %u \", SCAN_REVERSE, SCAN_PACKED, SCAN_SEQUENTIAL, SCAN_FULL_H);\n\
             printf(\"%u %u %u\", SCAN_F32, SCAN_F16, SCAN_BF16);\n";
    let tags = [DType::F32, DType::F16, DType::Bf16].map(|t| type_tag(t).unwrap());
    let rust = format!("{REVERSE} {PACKED} {SEQUENTIAL} {FULL_H} {} {} {}", tags[0], tags[1], tags[2]);
    assert_eq!(from_c("flags", c), rust);
}

#[test]
fn shared_memory_is_what_the_header_says() {
    let (mut c, mut rust) = (String::new(), String::new());
    for row in ROWS {
        let size = row.dtype.size();
        for out in [size, 4] {
            for (direction, backward) in [(Direction::Forward, 0), (Direction::Backward, 1)] {
                let (chunk, vc, fold) = match direction {
                    Direction::Forward => (row.chunk, row.vc, row.fold),
                    Direction::Backward => (row.chunkb, row.vcb, row.foldb),
                };
                for stages in 1..=12 {
                    writeln!(
                        c,
                        "printf(\"%llu %llu\\n\", scan_march_smem({backward}, {size}, {out}, {}, {stages}, {}, {}), \
                         scan_chunked_smem({backward}, {size}, {out}, {}, {}, {}, {}));",
                        row.vm, row.stage, row.save, vc, row.sub, chunk, fold
                    )
                    .unwrap();
                    let march = row.shared(direction, Walk::March, out, stages);
                    let chunked = row.shared(direction, Walk::Chunked, out, stages);
                    writeln!(rust, "{march} {chunked}").unwrap();
                }
            }
        }
    }
    assert_eq!(from_c("shared", &c), rust);
}

/// Entry name → bytes of each of its parameters.
fn entries(ptx: &str) -> Vec<(String, Vec<usize>)> {
    let mut found = Vec::new();
    for (at, _) in ptx.match_indices(".entry ") {
        let text = &ptx[at + ".entry ".len()..];
        let (name, rest) = text.split_once('(').unwrap();
        let parameters = rest.split_once(')').unwrap().0;
        let sizes = parameters.split(".param").skip(1).map(|p| {
            let size = p.split_once('[').expect("a struct by value").1.split(']').next().unwrap();
            size.parse().unwrap()
        });
        found.push((name.trim().to_owned(), sizes.collect()));
    }
    found.sort();
    found
}

#[test]
fn the_ptx_holds_these_entries_with_these_parameters() {
    let size = |entry| match entry {
        Entry::Scan { direction: Direction::Forward, .. } => size_of::<ScanForward>(),
        Entry::Scan { direction: Direction::Backward, .. } => size_of::<ScanBackward>(),
        Entry::Step { .. } => size_of::<ScanStep>(),
        Entry::Put => size_of::<ScanPut>(),
    };
    let mut expected: Vec<_> = Entry::all().into_iter().map(|e| (e.name(), vec![size(e)])).collect();
    expected.sort();
    for target in Target::ALL {
        assert_eq!(entries(&target.ptx().unwrap()), expected, "sm_{}", target.arch());
    }
}

#[test]
fn the_ptx_loads_on_the_drivers_that_are_promised() {
    for target in Target::ALL {
        let ptx = target.ptx().unwrap();
        let line = |head| ptx.lines().find_map(|line| line.strip_prefix(head)).unwrap();
        let version = line(".version ");
        let driver = match version {
            "7.0" => 11000,
            "7.8" => 11080,
            other => panic!("which driver reads PTX {other}?"),
        };
        assert_eq!(target.driver(), driver);
        assert_eq!(line(".target "), format!("sm_{}", target.arch()));
    }
}
