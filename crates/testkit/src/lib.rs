//! What the tests of several crates share: the conformance list, a model to compare with, faults, and
//! the passing of time.
//!
//! Everything here fails by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "settee")]
pub mod conformance;
#[cfg(all(target_os = "linux", feature = "faultfs"))]
pub mod faultfs;
#[cfg(feature = "settee")]
pub mod faults;
#[cfg(feature = "settee")]
pub mod model;
pub mod socks;
#[cfg(feature = "settee")]
pub mod time;
