//! What the examples share.

#![allow(dead_code, reason = "each example uses its part")]

pub(crate) mod model;
pub(crate) mod study;
pub(crate) mod tasks;
pub(crate) mod text;
#[cfg(feature = "train")]
pub(crate) mod training;
