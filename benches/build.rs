//! Records what the benchmarks were compiled with, so that results can say it.

use std::process::Command;

fn main() {
    let get = |name: &str| std::env::var(name).unwrap_or_default();
    let rustc = Command::new(get("RUSTC")).arg("-V").output();
    let version = rustc.ok().and_then(|out| String::from_utf8(out.stdout).ok()).unwrap_or_default();
    let flags = get("CARGO_ENCODED_RUSTFLAGS").replace('\u{1f}', " ");
    println!("cargo::rustc-env=BENCH_RUSTC={}", version.trim());
    println!("cargo::rustc-env=BENCH_RUSTFLAGS={flags}");
    println!("cargo::rustc-env=BENCH_PROFILE=opt-level {}, {}", get("OPT_LEVEL"), get("TARGET"));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
}
