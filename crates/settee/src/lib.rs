//! settee
pub mod adapter;
