#![doc = include_str!("../README.md")]

mod autodiff;
mod backend;
mod error;
mod flex;
mod scan;

pub use error::Error;
pub use scan::{ScanOptions, ScanOutput, gated_scan};
pub use ssm_core::{Algorithm, Checkpoint};

use scan::burn_type;
