//! What the tests of several crates share: the conformance list, generators, faults.

#[cfg(all(unix, feature = "faultfs"))]
pub mod faultfs;
