//! What must hold when things go wrong: kills, power cuts, disks that fail or are full, and loads
//! that are large. Real files and real processes; a test that needs another process starts this
//! binary again, see [`child`].
//!
//! | variable | |
//! |---|---|
//! | `SETTEE_SEED=n` | begin with this seed; every random test prints the one it uses |
//! | `SETTEE_ROUNDS=n` | rounds of the tests that kill and that cut the power, 50 if not given |
//! | `SETTEE_ALL_FAULTS=1` | let every single write and flush fail, not a sample of them |
//! | `SETTEE_REQUIRE_FUSE=1` | fail where the fault file system cannot be mounted, do not skip |

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of it is tests"
)]

mod big;
mod child;
mod deleted;
mod durability;
mod faults;
mod kill;
mod many;
mod power;
mod replicate;
mod seed;
mod workload;

/// Runs a future to its end on this thread.
pub(crate) use futures_executor::block_on;
