//! What the tests of several crates share: the conformance list, a model to compare with, and the
//! passing of time.
//!
//! Everything here fails by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod conformance;
pub mod model;
pub mod time;
