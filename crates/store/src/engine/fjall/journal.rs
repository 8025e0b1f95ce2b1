//! The engine's journal files, read and cut without the engine.
//!
//! A journal is a file `<number>.jnl`, the one with the highest number is written to. It holds
//! batches, and behind them nothing or zeros. All numbers are little-endian:
//!
//! ```text
//! batch = start item* end
//! start = 1  count:u32  sequence:u64
//! item  = 2  type:u8  compression:u8  keyspace:u64  key:u16  value:u32  stored:u32  <key> <stored>
//! clear = 4  keyspace:u64                               (in place of an item; never written here)
//! end   = 3  checksum:u64 of all items (XXH3)  "FJL" 3
//! ```

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read, Result};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: [u8; 4] = *b"FJL\x03";

/// Journals of a directory, oldest first.
fn list(data: &Path) -> Result<Vec<PathBuf>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(data)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if path.extension().is_some_and(|extension| extension == "jnl") {
            journals.extend(number.map(|number| (number, path)));
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// Copies every journal, up to the first batch with a sequence number of `limit` or more, into a file
/// beside it, and flushes it.
pub(super) fn copy(data: &Path, limit: u64) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut copies = Vec::new();
    for journal in list(data)? {
        let end = whole(&journal, limit)?;
        let new = journal.with_extension("jnl.new");
        let mut from = File::open(&journal)?.take(end);
        let mut to = File::create(&new)?;
        std::io::copy(&mut from, &mut to)?;
        to.sync_all()?;
        copies.push((journal, new));
    }
    Ok(copies)
}

/// Puts copies in the place of their journals, except of those that have been deleted meanwhile.
pub(super) fn replace(copies: Vec<(PathBuf, PathBuf)>) -> Result<()> {
    for (journal, new) in copies {
        if journal.try_exists()? {
            fs::rename(new, journal)?;
        } else {
            fs::remove_file(new)?;
        }
    }
    Ok(())
}

/// Cuts off all batches with a sequence number of `limit` or more.
pub(super) fn cut(data: &Path, limit: u64) -> Result<()> {
    for journal in list(data)? {
        shorten(&journal, whole(&journal, limit)?)?;
    }
    Ok(())
}

/// Cuts off the newest journal where its batches stop being whole. Returns the bytes dropped.
///
/// Only the newest, because the others were flushed to their ends.
pub(super) fn trim(data: &Path) -> Result<u64> {
    let Some(journal) = list(data)?.pop() else { return Ok(0) };
    let end = whole(&journal, u64::MAX)?;
    shorten(&journal, end)
}

fn shorten(journal: &Path, end: u64) -> Result<u64> {
    let file = File::options().write(true).open(journal)?;
    let len = file.metadata()?.len();
    file.set_len(end)?;
    file.sync_all()?;
    Ok(len - end)
}

/// Bytes of a journal up to the first batch that is not whole, or whose number is `limit` or more.
fn whole(journal: &Path, limit: u64) -> Result<u64> {
    let mut reader = Counted { reader: BufReader::new(File::open(journal)?), count: 0 };
    let mut end = 0;
    loop {
        match batch(&mut reader, limit) {
            Ok(true) => end = reader.count,
            Ok(false) => return Ok(end),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(end),
            Err(error) => return Err(error),
        }
    }
}

/// Reads a batch; tells whether it is whole and its number below `limit`.
fn batch(reader: &mut impl Read, limit: u64) -> Result<bool> {
    let [START] = bytes(reader)? else { return Ok(false) };
    let count = u32::from_le_bytes(bytes(reader)?);
    if u64::from_le_bytes(bytes(reader)?) >= limit {
        return Ok(false);
    }
    let mut hash = Xxh3::new();
    let mut key_and_value = Vec::new();
    for _ in 0..count {
        match bytes(reader)? {
            [ITEM] => {
                let header: [u8; 20] = bytes(reader)?;
                let [.., k0, k1, _, _, _, _, s0, s1, s2, s3] = header;
                let len = u64::from(u16::from_le_bytes([k0, k1]))
                    + u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
                key_and_value.clear();
                if reader.take(len).read_to_end(&mut key_and_value)? as u64 != len {
                    return Ok(false);
                }
                hash.update(&[ITEM]);
                hash.update(&header);
                hash.update(&key_and_value);
            }
            [CLEAR] => {
                let keyspace: [u8; 8] = bytes(reader)?;
                hash.update(&[CLEAR]);
                hash.update(&keyspace);
            }
            _ => return Ok(false),
        }
    }
    let [END] = bytes(reader)? else { return Ok(false) };
    let checksum = u64::from_le_bytes(bytes(reader)?);
    Ok(bytes(reader)? == MAGIC && checksum == hash.digest())
}

fn bytes<const N: usize>(reader: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A reader which knows how far it has read.
struct Counted<R> {
    reader: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.reader.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}
