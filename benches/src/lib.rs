#![doc = include_str!("../README.md")]

pub mod case;
pub mod devices;
pub mod host;
pub mod measure;
mod operands;
pub mod reference;
pub mod results;
pub mod run;
pub mod stats;
pub mod triad;

pub use operands::Unwritten;
