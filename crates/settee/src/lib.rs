//! settee
pub mod adapter;
mod env;
pub mod local;
pub mod script;
