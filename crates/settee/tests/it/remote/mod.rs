//! The HTTP client. `conformance` runs the testkit's list through it.

mod conformance;
mod site;
