//! Random problems: every backend against the oracle and against every other backend, and validation under any numbers
//! at all.

mod backends;
mod validation;
