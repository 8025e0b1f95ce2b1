//! Replications that the server runs: what is wanted ([`wish`]), by requests or by documents
//! ([`documents`]), where that may lead ([`addresses`]), and what runs ([`jobs`]).

mod addresses;
mod documents;
mod jobs;
mod wish;

pub(crate) use documents::{DATABASE, Replicator, before_write};
pub(crate) use jobs::{Job, Jobs};
pub(crate) use wish::Wish;
