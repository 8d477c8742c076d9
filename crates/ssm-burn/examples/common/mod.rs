//! What the examples share.

#![allow(dead_code, reason = "each example uses its part")]

pub(crate) mod model;
pub(crate) mod tasks;
#[cfg(feature = "train")]
pub(crate) mod training;
