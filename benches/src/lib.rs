#![doc = include_str!("../README.md")]

#[cfg(feature = "measure")]
pub mod case;
#[cfg(feature = "measure")]
pub mod devices;
#[cfg(feature = "host")]
mod host;
#[cfg(feature = "measure")]
pub mod measure;
#[cfg(feature = "measure")]
mod operands;
#[cfg(feature = "measure")]
pub mod reference;
pub mod results;
#[cfg(feature = "measure")]
pub mod run;
pub mod stats;
#[cfg(feature = "measure")]
pub mod triad;

#[cfg(feature = "measure")]
pub use operands::Unwritten;
