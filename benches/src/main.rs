//! Measures every backend and writes results.json. `cargo xtask bench-all` builds this and calls it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ssm_benches::devices::find;
use ssm_benches::run::{Options, run};

#[derive(Parser)]
#[command(name = "ssm-benches", about = "Measures every backend and writes results.json")]
struct Args {
    /// The quick table and budget.
    #[arg(long)]
    quick: bool,
    /// These backends only, by name.
    #[arg(long, value_delimiter = ',')]
    backend: Vec<String>,
    /// Cases whose backend/name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options { quick: args.quick, backends: args.backend, filter: args.filter };
    let results = run(find(), &options);
    match results.write(&args.out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}: {why}", args.out.display());
            ExitCode::FAILURE
        }
    }
}
