//! One binary for every test, since each one would link burn again.

mod host;
mod scan;
mod scan_laws;
