//! The disk that the fault file system pretends to have. No FUSE in here.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// What is kept or lost as a whole, unless it is torn.
const PAGE: usize = 4096;
/// What is never torn.
const SECTOR: usize = 512;
/// The directory that is mounted.
pub(super) const ROOT: u64 = 1;

type Page = Arc<[u8; PAGE]>;
/// The pages of a file that are not all zeros because nobody wrote them.
type Pages = BTreeMap<u64, Page>;
type Names = BTreeMap<OsString, u64>;

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The device could not do it (`EIO`).
    Device,
    /// There is no space left (`ENOSPC`).
    NoSpace,
    /// There is no such name (`ENOENT`).
    NoEntry,
    /// There is such a name already (`EEXIST`).
    Exists,
    /// The directory is not empty (`ENOTEMPTY`).
    NotEmpty,
}

type Result<T> = std::result::Result<T, Failure>;

/// Which operations a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Writing to a file.
    Write,
    /// Flushing a file or a directory.
    Flush,
    /// Making, renaming and removing files and directories, and setting the length of a file.
    Change,
}

/// An operation that is to fail.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    operation: Operation,
    nth: u64,
    failure: Failure,
    torn: bool,
    lasting: bool,
}

impl Fault {
    /// The `nth` operation of a kind from now on fails, counted from 1. Nothing of it is done.
    #[must_use]
    pub fn new(operation: Operation, nth: u64) -> Fault {
        Fault { operation, nth, failure: Failure::Device, torn: false, lasting: false }
    }

    /// It fails for this reason. [`Failure::Device`] if this is not called.
    #[must_use]
    pub fn because(mut self, failure: Failure) -> Fault {
        self.failure = failure;
        self
    }

    /// A part of what it was to write is written.
    #[must_use]
    pub fn torn(mut self) -> Fault {
        self.torn = true;
        self
    }

    /// All later operations of this kind fail as well, until the faults are cleared.
    #[must_use]
    pub fn lasting(mut self) -> Fault {
        self.lasting = true;
        self
    }
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes to files, as the kernel passes them on: at most 128 KiB each.
    pub writes: u64,
    /// Flushes of files and directories.
    pub flushes: u64,
    /// Changes of names and lengths.
    pub changes: u64,
    /// Bytes written to files.
    pub bytes: u64,
}

#[derive(Default)]
struct Node {
    directory: bool,
    /// What programs see.
    size: u64,
    pages: Pages,
    /// What the disk holds for sure.
    flushed_size: u64,
    flushed: Pages,
    /// Pages that the next flush makes durable.
    dirty: BTreeSet<u64>,
    /// Pages of which a flush failed. They count as clean, so no later flush makes them durable; a
    /// power cut decides.
    lost: BTreeSet<u64>,
    /// The shortest it has been since the last flush.
    shrunk: Option<u64>,
    /// Handles that are open.
    open: u64,
    /// Whether it has a name.
    linked: bool,
}

/// A change of names that a power cut may undo.
#[derive(Clone)]
enum Change {
    Make { parent: u64, name: OsString, node: u64 },
    Remove { parent: u64, name: OsString },
    Rename { from: (u64, OsString), to: (u64, OsString) },
}

/// Apply a change to names.
fn apply(names: &mut HashMap<u64, Names>, change: &Change) {
    match change {
        Change::Make { parent, name, node } => {
            names.entry(*parent).or_default().insert(name.clone(), *node);
        }
        Change::Remove { parent, name } => {
            names.entry(*parent).or_default().remove(name);
        }
        Change::Rename { from, to } => {
            if let Some(node) = names.entry(from.0).or_default().remove(&from.1) {
                names.entry(to.0).or_default().insert(to.1.clone(), node);
            }
        }
    }
}

/// What a program sees of a file or directory.
pub(super) struct Status {
    pub(super) node: u64,
    pub(super) directory: bool,
    pub(super) size: u64,
    pub(super) allocated: u64,
}

/// A disk with one file system on it.
pub(super) struct Disk {
    nodes: HashMap<u64, Node>,
    next: u64,
    names: HashMap<u64, Names>,
    flushed_names: HashMap<u64, Names>,
    /// Changes of names since the last flush, in order.
    changes: Vec<Change>,
    /// Pages that may be in use, if there is a limit.
    limit: Option<u64>,
    used: u64,
    faults: Vec<Fault>,
    counts: Counts,
    /// Nothing works any more once the power is cut.
    cut: bool,
}

impl Disk {
    pub(super) fn new() -> Disk {
        let root = Node { directory: true, linked: true, ..Node::default() };
        Disk {
            nodes: HashMap::from([(ROOT, root)]),
            next: ROOT + 1,
            names: HashMap::from([(ROOT, Names::new())]),
            flushed_names: HashMap::new(),
            changes: Vec::new(),
            limit: None,
            used: 0,
            faults: Vec::new(),
            counts: Counts::default(),
            cut: false,
        }
    }

    /// A disk which holds what a directory holds, all of it flushed.
    pub(super) fn load(directory: &Path) -> io::Result<Disk> {
        let mut disk = Disk::new();
        disk.load_into(directory, ROOT)?;
        for node in disk.nodes.values_mut() {
            node.flush();
        }
        disk.flush_names();
        disk.counts = Counts::default();
        Ok(disk)
    }

    fn load_into(&mut self, directory: &Path, parent: u64) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let is_directory = entry.file_type()?.is_dir();
            let status = self
                .make(parent, &entry.file_name(), is_directory)
                .map_err(|_| io::ErrorKind::InvalidData)?;
            if is_directory {
                self.load_into(&entry.path(), status.node)?;
            } else {
                let contents = fs::read(entry.path())?;
                let node = self.nodes.entry(status.node).or_default();
                for (number, bytes) in (0..).zip(contents.chunks(PAGE)) {
                    if bytes.iter().any(|byte| *byte != 0) {
                        let mut page = [0; PAGE];
                        page[..bytes.len()].copy_from_slice(bytes);
                        node.pages.insert(number, Arc::new(page));
                        node.dirty.insert(number);
                        self.used += 1;
                    }
                }
                node.size = contents.len() as u64;
            }
        }
        Ok(())
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn inject(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(super) fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Leaves this many bytes free, or as many as there are.
    pub(super) fn limit_space(&mut self, free: Option<u64>) {
        self.limit = free.map(|bytes| self.used + bytes / PAGE as u64);
    }

    /// Size of a page, pages there are, pages that are free.
    pub(super) fn space(&self) -> (u32, u64, u64) {
        let total = self.limit.unwrap_or(1 << 30);
        (PAGE as u32, total, total.saturating_sub(self.used))
    }

    /// Counts an operation, and fails if it is to fail: with how much of it is done before.
    fn strike(&mut self, operation: Operation) -> std::result::Result<(), (Failure, bool)> {
        if self.cut {
            return Err((Failure::Device, false));
        }
        match operation {
            Operation::Write => self.counts.writes += 1,
            Operation::Flush => self.counts.flushes += 1,
            Operation::Change => self.counts.changes += 1,
        }
        let mut struck = None;
        self.faults.retain_mut(|fault| {
            if fault.operation != operation {
                return true;
            }
            fault.nth = fault.nth.saturating_sub(1);
            if fault.nth > 0 {
                return true;
            }
            struck = Some((fault.failure, fault.torn));
            fault.lasting
        });
        struck.map_or(Ok(()), Err)
    }

    fn change(&mut self) -> Result<()> {
        self.strike(Operation::Change).map_err(|(failure, _)| failure)
    }

    fn node(&self, node: u64) -> Result<&Node> {
        self.nodes.get(&node).ok_or(Failure::NoEntry)
    }

    pub(super) fn status(&self, node: u64) -> Result<Status> {
        let Node { directory, size, pages, .. } = self.node(node)?;
        let allocated = (pages.len() * PAGE) as u64;
        Ok(Status { node, directory: *directory, size: *size, allocated })
    }

    fn find(&self, parent: u64, name: &OsStr) -> Option<u64> {
        self.names.get(&parent)?.get(name).copied()
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<Status> {
        self.status(self.find(parent, name).ok_or(Failure::NoEntry)?)
    }

    /// Names in a directory, with what they name.
    pub(super) fn list(&self, node: u64) -> Result<Vec<(OsString, Status)>> {
        let names = self.names.get(&node).ok_or(Failure::NoEntry)?;
        names.iter().map(|(name, node)| Ok((name.clone(), self.status(*node)?))).collect()
    }

    /// Makes a file or directory.
    pub(super) fn make(&mut self, parent: u64, name: &OsStr, directory: bool) -> Result<Status> {
        self.change()?;
        if self.find(parent, name).is_some() {
            return Err(Failure::Exists);
        }
        let node = self.next;
        self.next += 1;
        self.nodes.insert(node, Node { directory, linked: true, ..Node::default() });
        if directory {
            self.names.insert(node, Names::new());
        }
        self.rename_now(Change::Make { parent, name: name.to_owned(), node });
        self.status(node)
    }

    /// Removes a file or an empty directory.
    pub(super) fn remove(&mut self, parent: u64, name: &OsStr) -> Result<()> {
        self.change()?;
        let node = self.find(parent, name).ok_or(Failure::NoEntry)?;
        if self.names.get(&node).is_some_and(|names| !names.is_empty()) {
            return Err(Failure::NotEmpty);
        }
        self.rename_now(Change::Remove { parent, name: name.to_owned() });
        self.unlink(node);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<()> {
        self.change()?;
        let node = self.find(from.0, from.1).ok_or(Failure::NoEntry)?;
        let replaced = self.find(to.0, to.1).filter(|replaced| *replaced != node);
        if replaced.and_then(|node| self.names.get(&node)).is_some_and(|names| !names.is_empty()) {
            return Err(Failure::NotEmpty);
        }
        self.rename_now(Change::Rename {
            from: (from.0, from.1.to_owned()),
            to: (to.0, to.1.to_owned()),
        });
        if let Some(replaced) = replaced {
            self.unlink(replaced);
        }
        Ok(())
    }

    fn rename_now(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn unlink(&mut self, node: u64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.linked = false;
        }
        self.release_space(node);
    }

    pub(super) fn open(&mut self, node: u64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.open += 1;
        }
    }

    pub(super) fn close(&mut self, node: u64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.open = node.open.saturating_sub(1);
        }
        self.release_space(node);
    }

    /// A file without a name lives until it is closed. What the disk holds of it stays, as its name
    /// may come back with a power cut.
    fn release_space(&mut self, node: u64) {
        let Some(node) = self.nodes.get_mut(&node) else { return };
        if !node.linked && node.open == 0 && !node.directory {
            self.used -= node.pages.len() as u64;
            // Pages that were not flushed would only reach the disk by chance; they do not.
            node.dirty.clear();
            node.lost.clear();
            node.pages.clear();
        }
    }

    pub(super) fn set_len(&mut self, node: u64, size: u64) -> Result<Status> {
        self.change()?;
        let file = self.nodes.get_mut(&node).ok_or(Failure::NoEntry)?;
        if size < file.size {
            let keep = size.div_ceil(PAGE as u64);
            let dropped = file.pages.split_off(&keep);
            self.used -= dropped.len() as u64;
            file.dirty.split_off(&keep);
            file.lost.split_off(&keep);
            let within = (size % PAGE as u64) as usize;
            if within != 0
                && let Some(page) = file.pages.get_mut(&(keep - 1))
            {
                Arc::make_mut(page)[within..].fill(0);
                file.dirty.insert(keep - 1);
            }
            file.shrunk = Some(file.shrunk.map_or(size, |shrunk| shrunk.min(size)));
        }
        file.size = size;
        self.status(node)
    }

    pub(super) fn read(&self, node: u64, offset: u64, len: usize) -> Result<Vec<u8>> {
        let file = self.node(node)?;
        let end = file.size.min(offset + len as u64);
        let mut bytes = Vec::with_capacity(len);
        let mut at = offset;
        while at < end {
            let within = (at % PAGE as u64) as usize;
            let count = (PAGE - within).min((end - at) as usize);
            match file.pages.get(&(at / PAGE as u64)) {
                Some(page) => bytes.extend_from_slice(&page[within..within + count]),
                None => bytes.resize(bytes.len() + count, 0),
            }
            at += count as u64;
        }
        Ok(bytes)
    }

    /// Writes, and tells how much: less than asked for if the space ends within.
    pub(super) fn write(&mut self, node: u64, offset: u64, bytes: &[u8]) -> Result<usize> {
        match self.strike(Operation::Write) {
            Ok(()) => self.write_pages(node, offset, bytes),
            Err((failure, torn)) => {
                if torn {
                    self.write_pages(node, offset, &bytes[..bytes.len() / 2])?;
                }
                Err(failure)
            }
        }
    }

    fn write_pages(&mut self, node: u64, offset: u64, bytes: &[u8]) -> Result<usize> {
        let file = self.nodes.get_mut(&node).ok_or(Failure::NoEntry)?;
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (number, within) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let count = (PAGE - within).min(bytes.len() - done);
            let page = match file.pages.entry(number) {
                Entry::Occupied(page) => page.into_mut(),
                Entry::Vacant(_) if self.limit.is_some_and(|limit| self.used >= limit) => break,
                Entry::Vacant(hole) => {
                    self.used += 1;
                    hole.insert(Arc::new([0; PAGE]))
                }
            };
            Arc::make_mut(page)[within..within + count].copy_from_slice(&bytes[done..done + count]);
            file.dirty.insert(number);
            file.lost.remove(&number);
            done += count;
            file.size = file.size.max(at + count as u64);
        }
        self.counts.bytes += done as u64;
        if done == 0 && !bytes.is_empty() { Err(Failure::NoSpace) } else { Ok(done) }
    }

    /// Flushes a file or directory, and all changes of names.
    pub(super) fn flush(&mut self, node: u64) -> Result<()> {
        let struck = self.strike(Operation::Flush);
        let file = self.nodes.get_mut(&node).ok_or(Failure::NoEntry)?;
        match struck {
            Ok(()) => {
                file.flush();
                self.flush_names();
                Ok(())
            }
            Err((failure, _)) => {
                let dirty = std::mem::take(&mut file.dirty);
                file.lost.extend(dirty);
                Err(failure)
            }
        }
    }

    fn flush_names(&mut self) {
        for change in self.changes.drain(..) {
            apply(&mut self.flushed_names, &change);
        }
    }

    /// Cuts the power: writes what the disk then holds into a directory, and fails everything that
    /// comes later.
    pub(super) fn cut(&mut self, seed: u64, image: &Path) -> io::Result<()> {
        self.cut = true;
        let mut rng = StdRng::seed_from_u64(seed);
        // Sometimes nothing of what was not flushed is there, sometimes most or all.
        let kept = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        let count = match rng.random_range(0..4) {
            0 => 0,
            1 => self.changes.len(),
            _ => rng.random_range(0..=self.changes.len()),
        };
        let mut names = self.flushed_names.clone();
        for change in &self.changes[..count] {
            apply(&mut names, change);
        }
        self.write_image(&names, ROOT, image, kept, &mut rng)
    }

    fn write_image(
        &self,
        names: &HashMap<u64, Names>,
        directory: u64,
        path: &Path,
        kept: f64,
        rng: &mut StdRng,
    ) -> io::Result<()> {
        fs::create_dir_all(path)?;
        for (name, number) in names.get(&directory).into_iter().flatten() {
            let path = path.join(name);
            let Some(node) = self.nodes.get(number) else { continue };
            if node.directory {
                self.write_image(names, *number, &path, kept, rng)?;
            } else {
                node.write_image(&path, kept, rng)?;
            }
        }
        Ok(())
    }
}

impl Node {
    fn flush(&mut self) {
        if let Some(shrunk) = self.shrunk.take() {
            self.flushed.split_off(&shrunk.div_ceil(PAGE as u64));
        }
        for number in std::mem::take(&mut self.dirty) {
            if let Some(page) = self.pages.get(&number) {
                self.flushed.insert(number, page.clone());
            }
        }
        self.flushed_size = self.size;
    }

    fn write_image(&self, path: &Path, kept: f64, rng: &mut StdRng) -> io::Result<()> {
        let mut pages = self.flushed.clone();
        let mut size = self.flushed_size;
        if let Some(shrunk) = self.shrunk
            && rng.random_bool(kept)
        {
            pages.split_off(&shrunk.div_ceil(PAGE as u64));
            size = size.min(shrunk);
        }
        for number in self.dirty.union(&self.lost) {
            let Some(page) = self.pages.get(number).filter(|_| rng.random_bool(kept)) else {
                continue;
            };
            let torn = rng.random_bool(0.125);
            let len = if torn { SECTOR * rng.random_range(1..PAGE / SECTOR) } else { PAGE };
            let mut mixed = pages.get(number).map_or([0; PAGE], |page| **page);
            mixed[..len].copy_from_slice(&page[..len]);
            pages.insert(*number, Arc::new(mixed));
            size = size.max((number * PAGE as u64 + len as u64).min(self.size));
        }
        let file = fs::File::create(path)?;
        for (number, page) in &pages {
            let at = number * PAGE as u64;
            let len = size.saturating_sub(at).min(PAGE as u64) as usize;
            file.write_all_at(&page[..len], at)?;
        }
        file.set_len(size)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn file(disk: &mut Disk, name: &str) -> u64 {
        disk.make(ROOT, OsStr::new(name), false).unwrap().node
    }

    fn image(disk: &mut Disk, seed: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        disk.cut(seed, dir.path()).unwrap();
        dir
    }

    #[test]
    fn what_was_flushed_survives() {
        for seed in 0..50 {
            let mut disk = Disk::new();
            let node = file(&mut disk, "a");
            let bytes: Vec<u8> = (0..20_000_u32).map(|i| i as u8 | 1).collect();
            assert_eq!(disk.write(node, 100, &bytes), Ok(20_000));
            disk.flush(node).unwrap();
            disk.write(node, 9000, b"not flushed").unwrap();
            let image = image(&mut disk, seed);
            let mut found = fs::read(image.path().join("a")).unwrap();
            assert_eq!(found.len(), 20_100);
            found[9000..9011].copy_from_slice(&bytes[8900..8911]);
            assert_eq!(&found[100..], bytes);
            assert_eq!(disk.write(node, 0, b"x"), Err(Failure::Device));
        }
    }

    #[test]
    fn what_was_not_flushed_may_be_lost_kept_or_torn() {
        let mut lens = BTreeSet::new();
        for seed in 0..200 {
            let mut disk = Disk::new();
            let node = file(&mut disk, "a");
            disk.flush(node).unwrap();
            disk.write(node, 0, &[7; PAGE]).unwrap();
            let image = image(&mut disk, seed);
            lens.insert(fs::read(image.path().join("a")).unwrap().len());
        }
        assert!(lens.contains(&0) && lens.contains(&PAGE) && lens.len() > 4, "{lens:?}");
        assert!(lens.iter().all(|len| len % SECTOR == 0), "{lens:?}");
    }

    #[test]
    fn names_come_back_in_order() {
        for seed in 0..50 {
            let mut disk = Disk::new();
            let node = file(&mut disk, "a");
            disk.write(node, 0, b"old").unwrap();
            disk.flush(node).unwrap();
            let node = file(&mut disk, "a.new");
            disk.write(node, 0, b"new").unwrap();
            disk.flush(node).unwrap();
            disk.rename((ROOT, OsStr::new("a.new")), (ROOT, OsStr::new("a"))).unwrap();
            disk.make(ROOT, OsStr::new("after"), true).unwrap();
            let image = image(&mut disk, seed);
            let found = fs::read_to_string(image.path().join("a")).unwrap();
            assert!(found == "old" || found == "new");
            if image.path().join("after").exists() {
                assert_eq!(found, "new");
            }
        }
    }

    #[test]
    fn a_failed_flush_is_not_made_good_by_the_next() {
        let mut lost = false;
        for seed in 0..50 {
            let mut disk = Disk::new();
            let node = file(&mut disk, "a");
            disk.flush(node).unwrap();
            disk.write(node, 0, b"x").unwrap();
            disk.inject(Fault::new(Operation::Flush, 1));
            assert_eq!(disk.flush(node), Err(Failure::Device));
            disk.flush(node).unwrap();
            let image = image(&mut disk, seed);
            lost |= fs::read(image.path().join("a")).unwrap() != b"x";
        }
        assert!(lost);
    }

    #[test]
    fn space_ends_and_comes_back() {
        let mut disk = Disk::new();
        let node = file(&mut disk, "a");
        disk.limit_space(Some(3 * PAGE as u64));
        assert_eq!(disk.write(node, 0, &[1; 5 * PAGE]), Ok(3 * PAGE));
        assert_eq!(disk.write(node, 3 * PAGE as u64, b"x"), Err(Failure::NoSpace));
        assert_eq!(disk.write(node, 0, b"over what is there"), Ok(18));
        disk.remove(ROOT, OsStr::new("a")).unwrap();
        assert_eq!(disk.space().2, 3);
    }

    #[test]
    fn faults_strike_the_operation_they_are_meant_for() {
        let mut disk = Disk::new();
        let node = file(&mut disk, "a");
        disk.inject(Fault::new(Operation::Write, 2).because(Failure::NoSpace).torn());
        disk.inject(Fault::new(Operation::Change, 1).lasting());
        assert_eq!(disk.write(node, 0, b"1234"), Ok(4));
        assert_eq!(disk.write(node, 4, b"5678"), Err(Failure::NoSpace));
        assert_eq!(disk.write(node, 6, b"78"), Ok(2));
        assert_eq!(disk.read(node, 0, 100), Ok(b"12345678".to_vec()));
        for _ in 0..3 {
            assert_eq!(disk.set_len(node, 0).err(), Some(Failure::Device));
        }
        disk.clear_faults();
        assert!(disk.set_len(node, 3).is_ok());
        assert_eq!(disk.read(node, 0, 100), Ok(b"123".to_vec()));
    }
}
