//! The kernel's questions, put to the [`Disk`].

use super::disk::{Disk, Failure, ROOT, Status};
use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nothing is cached: programs see what the disk says.
const TTL: Duration = Duration::ZERO;
/// Reads and writes go past the kernel's cache, so a write that failed is not seen as if it had not.
const HOW: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;
const NO_HANDLE: FileHandle = FileHandle(0);

pub(super) struct Fuse(pub(super) Arc<Mutex<Disk>>);

impl Fuse {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn errno(failure: Failure) -> Errno {
    match failure {
        Failure::Device => Errno::EIO,
        Failure::NoSpace => Errno::ENOSPC,
        Failure::NoEntry => Errno::ENOENT,
        Failure::Exists => Errno::EEXIST,
        Failure::NotEmpty => Errno::ENOTEMPTY,
    }
}

fn kind(status: &Status) -> FileType {
    if status.directory { FileType::Directory } else { FileType::RegularFile }
}

fn attributes(status: &Status) -> FileAttr {
    FileAttr {
        ino: INodeNo(status.node),
        size: status.size,
        blocks: status.allocated / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: kind(status),
        perm: 0o777,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn entry(reply: ReplyEntry, status: Result<Status, Failure>) {
    match status {
        Ok(status) => reply.entry(&TTL, &attributes(&status), Generation(0)),
        Err(failure) => reply.error(errno(failure)),
    }
}

fn attr(reply: ReplyAttr, status: Result<Status, Failure>) {
    match status {
        Ok(status) => reply.attr(&TTL, &attributes(&status)),
        Err(failure) => reply.error(errno(failure)),
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), Failure>) {
    match result {
        Ok(()) => reply.ok(),
        Err(failure) => reply.error(errno(failure)),
    }
}

impl Filesystem for Fuse {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.disk().lookup(parent.0, name));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attr(reply, self.disk().status(node.0));
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        attr(
            reply,
            match size {
                Some(size) => disk.set_len(node.0, size),
                None => disk.status(node.0),
            },
        );
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        entry(reply, self.disk().make(parent.0, name, true));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut disk = self.disk();
        match disk.make(parent.0, name, false) {
            Ok(status) => {
                disk.open(status.node);
                reply.created(&TTL, &attributes(&status), Generation(0), NO_HANDLE, HOW);
            }
            Err(failure) => reply.error(errno(failure)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.disk().remove(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.disk().remove(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.is_empty() {
            empty(reply, self.disk().rename((parent.0, name), (new_parent.0, new_name)));
        } else {
            reply.error(Errno::EINVAL);
        }
    }

    fn open(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.disk().open(node.0);
        reply.opened(NO_HANDLE, HOW);
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.disk().close(node.0);
        reply.ok();
    }

    /// Called on every close of a descriptor; has nothing to do with durability.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().read(node.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(failure) => reply.error(errno(failure)),
        }
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disk().write(node.0, offset, bytes) {
            Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(failure) => reply.error(errno(failure)),
        }
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _data: bool, reply: ReplyEmpty) {
        empty(reply, self.disk().flush(node.0));
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _data: bool, reply: ReplyEmpty) {
        empty(reply, self.disk().flush(node.0));
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.disk().list(node.0) {
            Ok(names) => {
                // Nobody asks the two dots which directory they are.
                let dots = [".", ".."].map(|dot| (dot.into(), ROOT, FileType::Directory));
                let names = names.into_iter().map(|(name, s)| (name, s.node, kind(&s)));
                let skip = usize::try_from(offset).unwrap_or(usize::MAX);
                for (next, (name, node, kind)) in
                    (1..).zip(dots.into_iter().chain(names)).skip(skip)
                {
                    if reply.add(INodeNo(node), next, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(failure) => reply.error(errno(failure)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (page, total, free) = self.disk().space();
        reply.statfs(total, free, free, 1 << 20, 1 << 20, page, 255, page);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}
