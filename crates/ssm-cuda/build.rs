//! Deflates the PTX, so that a binary carries a tenth of its four megabytes; what a device needs is inflated when it is
//! opened.

use std::path::Path;
use std::{env, fs, io};

/// As small as it gets costs seconds without optimisation; this is within a few percent of it.
const LEVEL: u8 = 6;

fn main() -> io::Result<()> {
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    for arch in [75, 80, 90] {
        let name = format!("scan.sm_{arch}.ptx");
        let ptx = Path::new("ptx").join(&name);
        println!("cargo::rerun-if-changed={}", ptx.display());
        let deflated = miniz_oxide::deflate::compress_to_vec(&fs::read(ptx)?, LEVEL);
        fs::write(Path::new(&out).join(name + ".deflated"), deflated)?;
    }
    Ok(())
}
