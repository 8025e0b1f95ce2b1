//! settee
pub mod adapter;
mod env;
pub mod local;
#[cfg(feature = "remote")]
pub mod remote;
