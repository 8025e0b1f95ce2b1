//! A file system that fails on purpose.
//!
//! It lives in memory, is mounted with FUSE, and lies beneath whatever opens files in it, so the code
//! under test and the libraries it uses run as they are. It counts writes and flushes, fails or tears
//! the one it is told to, runs out of space, and cuts the power.
//!
//! ```no_run
//! use testkit::faultfs::FaultFs;
//!
//! # fn main() -> std::io::Result<()> {
//! let disk = FaultFs::mount()?;
//! std::fs::write(disk.path().join("a"), "not flushed")?;
//! disk.fail_write(1);
//! assert!(std::fs::write(disk.path().join("b"), "fails").is_err());
//! let image = disk.cut_power(42)?;
//! // What a disk might hold now is in image.path(); mount it with FaultFs::mount_image to go on.
//! # Ok(())
//! # }
//! ```
//!
//! # The disk it assumes
//!
//! - A file is made of pages of 4 KiB. A page that was written is durable once a flush (`fsync` or
//!   `fdatasync`) of its file has succeeded after the write.
//! - When the power is cut, each page that was not flushed has reached the disk or not, in any order;
//!   one in eight of those that have is torn: only its first sectors of 512 bytes are new. How many
//!   have is drawn once per cut, from none to all. A file is as long as the furthest page needs, with
//!   zeros in between; one that was shortened may have its old end back.
//! - Making, renaming and removing names happens in order and atomically, as on journaling file
//!   systems: a power cut keeps the changes up to some moment. A flush of any file or directory makes
//!   all of them durable that came before it.
//! - A flush that fails leaves its pages as Linux does: marked clean, so that no later flush writes
//!   them; after a power cut they may be there or not.
//! - A write that runs out of space is cut short at a page. Holes take no space.
//! - Flushed bytes do not rot, and reads do not fail.

mod disk;
mod fuse;

pub use disk::{Counts, Failure, Fault, Operation};

use disk::Disk;
use fuser::{BackgroundSession, Config, MountOption};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// With this variable set to 1, tests that need FUSE fail where it is missing.
const REQUIRE: &str = "SETTEE_REQUIRE_FUSE";

/// A mounted file system. Unmounted, and all that is in it forgotten, when it is dropped.
pub struct FaultFs {
    disk: Arc<Mutex<Disk>>,
    /// Unmounts when it is dropped, so before the directory is removed.
    _session: BackgroundSession,
    mountpoint: TempDir,
}

impl std::fmt::Debug for FaultFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultFs").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl FaultFs {
    /// Mounts an empty file system in a temporary directory.
    ///
    /// # Errors
    ///
    /// If the system cannot mount it: there is no FUSE, or it is not allowed.
    pub fn mount() -> io::Result<FaultFs> {
        FaultFs::start(Disk::new())
    }

    /// Mounts a file system that holds a copy of a directory, all of it flushed.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read, or as for [`mount`](FaultFs::mount).
    pub fn mount_image(directory: &Path) -> io::Result<FaultFs> {
        FaultFs::start(Disk::load(directory)?)
    }

    /// Mounts an empty file system, or says on stderr why not, so that a test can be skipped.
    ///
    /// # Panics
    ///
    /// Panics if it cannot be mounted and the environment says `SETTEE_REQUIRE_FUSE=1`.
    #[must_use]
    pub fn mount_or_skip() -> Option<FaultFs> {
        let error = match FaultFs::mount() {
            Ok(mounted) => return Some(mounted),
            Err(error) => error,
        };
        assert!(
            std::env::var_os(REQUIRE).is_none_or(|value| value != "1"),
            "{REQUIRE}=1, but the fault file system cannot be mounted: {error}"
        );
        eprintln!(
            "SKIPPED: the fault file system cannot be mounted ({error}); it needs /dev/fuse and \
             fusermount3"
        );
        None
    }

    fn start(disk: Disk) -> io::Result<FaultFs> {
        let mountpoint = tempfile::Builder::new().prefix("faultfs-").tempdir()?;
        let disk = Arc::new(Mutex::new(disk));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faultfs".to_owned())];
        let session = fuser::spawn_mount(fuse::Fuse(disk.clone()), mountpoint.path(), &config)?;
        Ok(FaultFs { disk, _session: session, mountpoint })
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory it is mounted on.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.mountpoint.path()
    }

    /// What was done since it was mounted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.disk().counts()
    }

    /// Lets an operation fail. Faults add up, each is counted from when it was injected.
    pub fn inject(&self, fault: Fault) {
        self.disk().inject(fault);
    }

    /// Lets the `nth` write from now on fail, counted from 1.
    pub fn fail_write(&self, nth: u64) {
        self.inject(Fault::new(Operation::Write, nth));
    }

    /// Lets the `nth` write from now on fail after half of it was written, counted from 1.
    pub fn tear_write(&self, nth: u64) {
        self.inject(Fault::new(Operation::Write, nth).torn());
    }

    /// Lets the `nth` flush from now on fail, counted from 1.
    pub fn fail_flush(&self, nth: u64) {
        self.inject(Fault::new(Operation::Flush, nth));
    }

    /// Forgets faults that have not struck yet and those that last.
    pub fn clear_faults(&self) {
        self.disk().clear_faults();
    }

    /// Leaves only this many bytes free. Space that is given back later can be used again.
    pub fn limit_space(&self, free: u64) {
        self.disk().limit_space(Some(free));
    }

    /// Ends the limit of space.
    pub fn lift_space(&self) {
        self.disk().limit_space(None);
    }

    /// Cuts the power, and puts what a disk might hold then into a directory. The same seed, at the
    /// same moment, gives the same directory. Everything done here afterwards fails.
    ///
    /// # Errors
    ///
    /// If the directory cannot be written.
    pub fn cut_power(&self, seed: u64) -> io::Result<TempDir> {
        let image = tempfile::Builder::new().prefix("faultfs-image-").tempdir()?;
        self.disk().cut(seed, image.path())?;
        Ok(image)
    }
}
