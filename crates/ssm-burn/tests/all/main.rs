//! One binary for every test, since each one would link burn again.

mod generation;
mod hawk;
mod host;
mod layers;
mod scan;
mod scan_laws;
mod slots;
