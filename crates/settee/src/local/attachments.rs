//! Attachments: content-addressed, in chunks, streamed both ways.
//!
//! Equal stored bytes are kept once per database. A blob counts how many stored revisions have it,
//! and goes with the last one. Bytes that come as a stream are written in chunks as they arrive,
//! under a mark that says they belong to nobody yet; the document's transaction takes the mark away,
//! and opening the store drops what still has one.

use super::codec::{Reader, put_uint};
use super::databases::{Inner, Shared, state};
use super::schema::{BlobRow, CHUNK, DbId, StoredAttachment, chunk_key, meta, side};
use super::write::{Edit, Resolved, Writer};
use super::{Fail, Result, corrupt};
use crate::adapter::{ByteStream, Parts};
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::{GzDecoder, GzEncoder};
use futures_util::{StreamExt, TryStreamExt, stream};
use md5::{Digest as _, Md5};
use settee_core::options::ByteRange;
use settee_core::{Attachment, AttachmentData, Digest, Encoding, Error, ErrorKind};
use settee_store::{Durability, Snapshot, Store, Table, Tx};
use sha2::Sha256;
use std::io::Write;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An attachment of a document that is being written.
#[derive(Debug)]
pub(crate) struct PendingAttachment {
    pub(crate) name: String,
    pub(crate) content_type: String,
    /// Given with `new_edits=false`, where the attachment may be older than the revision.
    pub(crate) revpos: Option<u64>,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    /// What the edited revision has under this name.
    Stub { revpos: Option<u64> },
    /// What has come with the write.
    New(NewBlob),
}

/// Stored bytes on their way to a document.
#[derive(Debug, Clone)]
pub(crate) struct NewBlob {
    bytes: BlobBytes,
    /// SHA-256 of the stored bytes.
    hash: [u8; 32],
    /// MD5 of the stored bytes.
    pub(crate) digest: Digest,
    encoding: Encoding,
    /// Length of the content.
    length: u64,
    stored_length: u64,
}

#[derive(Debug, Clone)]
enum BlobBytes {
    Memory(Bytes),
    /// Already in chunks.
    Uploaded(Arc<Unclaimed>),
}

impl NewBlob {
    /// Notes that a document has the bytes now.
    pub(crate) fn claim(&self) {
        if let BlobBytes::Uploaded(upload) = &self.bytes {
            upload.claimed.store(true, Ordering::Relaxed);
        }
    }
}

/// Chunks that no document has yet. Dropped without having been claimed, because the document was
/// refused or whoever sent it has gone, it has the chunks dropped too.
#[derive(Debug)]
struct Unclaimed {
    store: Store,
    db: DbId,
    blob: u64,
    claimed: AtomicBool,
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if self.claimed.load(Ordering::Relaxed) {
            return;
        }
        let (db, blob) = (self.db, self.blob);
        let dropped = |outcome: Result<()>| {
            if let Err(Fail(error)) = outcome {
                tracing::warn!(%error, "an unused upload could not be dropped");
            }
        };
        self.store.submit(Durability::Deferred, move |tx| drop_upload(tx, db, blob), dropped);
    }
}

impl PendingAttachment {
    /// What the revision's hash is made of, unless it must be looked up.
    pub(crate) fn known(&self) -> Option<(&str, &str, &Digest)> {
        match &self.content {
            Content::Stub { .. } => None,
            Content::New(blob) => Some((&self.name, &self.content_type, &blob.digest)),
        }
    }
}

/// CouchDB's `compressible_types`: stored as gzip unless they come encoded.
fn compressible(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"))
        || ["application/javascript", "application/json", "application/xml"]
            .iter()
            .any(|compressible| media_type.eq_ignore_ascii_case(compressible))
}

/// CouchDB's `compression_level`.
const LEVEL: Compression = Compression::new(8);

/// Turns content, as it comes, into stored bytes with their digests.
struct Encoder {
    gzip: Option<GzEncoder<Vec<u8>>>,
    /// Bytes that came gzipped, to know the length of the content.
    ungzip: Option<GzDecoder<Counter>>,
    plain: Vec<u8>,
    hash: Sha256,
    digest: Md5,
    /// MD5 of the bytes that came, which is what `Content-MD5` speaks of.
    received: Md5,
    received_length: u64,
    stored_length: u64,
    limit: u64,
}

/// Counts bytes, and refuses to go on beyond a limit: a small gzip can hold very much.
struct Counter {
    count: u64,
    limit: u64,
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.count += bytes.len() as u64;
        if self.count > self.limit {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Encoder {
    fn new(content_type: &str, encoding: Encoding, limit: u64) -> Encoder {
        let gzipped = encoding == Encoding::Gzip;
        Encoder {
            gzip: (!gzipped && compressible(content_type))
                .then(|| GzEncoder::new(Vec::new(), LEVEL)),
            ungzip: gzipped.then(|| GzDecoder::new(Counter { count: 0, limit })),
            plain: Vec::new(),
            hash: Sha256::new(),
            digest: Md5::new(),
            received: Md5::new(),
            received_length: 0,
            stored_length: 0,
            limit,
        }
    }

    /// Takes content; returns stored bytes that are ready.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.received.update(bytes);
        self.received_length += bytes.len() as u64;
        if self.received_length > self.limit {
            return Err(too_large());
        }
        if let Some(ungzip) = &mut self.ungzip {
            ungzip.write_all(bytes).map_err(bad_gzip)?;
        }
        let ready = match &mut self.gzip {
            None => bytes.to_vec(),
            Some(gzip) => {
                gzip.write_all(bytes).map_err(Error::internal)?;
                std::mem::take(gzip.get_mut())
            }
        };
        self.count(&ready);
        Ok(ready)
    }

    fn count(&mut self, ready: &[u8]) {
        self.hash.update(ready);
        self.digest.update(ready);
        self.stored_length += ready.len() as u64;
    }

    /// Ends the content: the last stored bytes, and what is known of all of them.
    fn finish(mut self, md5: Option<Digest>) -> Result<(Vec<u8>, NewBlob)> {
        let mut last = std::mem::take(&mut self.plain);
        let encoding = match (&self.gzip, &self.ungzip) {
            (None, None) => Encoding::Identity,
            _ => Encoding::Gzip,
        };
        if let Some(gzip) = self.gzip.take() {
            last = gzip.finish().map_err(Error::internal)?;
            self.count(&last);
        }
        let length = match self.ungzip.take() {
            None => self.received_length,
            Some(ungzip) => ungzip.finish().map_err(bad_gzip)?.count,
        };
        let received = Digest(self.received.finalize().into());
        if md5.is_some_and(|md5| md5 != received) {
            let error = Error::bad_request("Possible message integrity error.");
            return Err(error.with_name("content_md5_mismatch").into());
        }
        let blob = NewBlob {
            bytes: BlobBytes::Memory(Bytes::new()),
            hash: self.hash.finalize().into(),
            digest: Digest(self.digest.finalize().into()),
            encoding,
            length,
            stored_length: self.stored_length,
        };
        Ok((last, blob))
    }
}

fn too_large() -> Fail {
    Error::new(ErrorKind::AttachmentTooLarge, "Attachment is larger than the limit.").into()
}

fn bad_gzip(error: std::io::Error) -> Fail {
    match error.kind() {
        std::io::ErrorKind::FileTooLarge => too_large(),
        _ => Error::bad_request("Attachment is not valid gzip.").with_source(error).into(),
    }
}

/// Encodes content that is in memory.
fn encode(attachment: &Attachment, content: &Bytes, limit: u64) -> Result<NewBlob> {
    let mut encoder = Encoder::new(&attachment.content_type, attachment.encoding, limit);
    let mut bytes = encoder.push(content)?;
    let (last, mut blob) = encoder.finish(None)?;
    bytes.extend_from_slice(&last);
    blob.bytes = BlobBytes::Memory(bytes.into());
    Ok(blob)
}

/// Makes a document's attachments ready for its transaction: encodes what came with it, and uploads
/// what follows.
pub(crate) async fn prepare(
    inner: &Inner,
    shared: &Shared,
    attachments: Vec<Attachment>,
    parts: Option<Parts>,
    new_edits: bool,
) -> Result<Vec<PendingAttachment>> {
    let limit = inner.limits.attachment as u64;
    let mut uploaded: Vec<(String, NewBlob)> = Vec::new();
    let mut waiting: Vec<&Attachment> =
        attachments.iter().filter(|att| att.data == AttachmentData::Follows).collect();
    let mut parts = parts.unwrap_or_else(|| stream::empty().boxed());
    while !waiting.is_empty() {
        let missing = || Error::bad_request("Attachment is marked as following, but does not.");
        let part = parts.try_next().await?.ok_or_else(missing)?;
        let place = match &part.name {
            None => 0,
            Some(name) => waiting.iter().position(|att| att.name == *name).ok_or_else(|| {
                Error::bad_request("A part follows that belongs to no attachment.")
            })?,
        };
        let attachment = waiting.remove(place);
        let expected = Upload {
            content_type: &attachment.content_type,
            encoding: attachment.encoding,
            // As in CouchDB, it is that of the bytes as they come.
            md5: attachment.digest,
            limit,
        };
        let blob = upload(inner, shared, expected, part.body).await?;
        uploaded.push((attachment.name.clone(), blob));
    }
    let pending = attachments.into_iter().map(|att| {
        let content = match &att.data {
            AttachmentData::Stub => Content::Stub { revpos: att.revpos },
            AttachmentData::Inline(content) => Content::New(encode(&att, content, limit)?),
            AttachmentData::Follows => {
                let blob = uploaded.iter().find(|(name, _)| *name == att.name);
                let (_, blob) = blob.ok_or_else(|| corrupt("upload is missing"))?;
                Content::New(blob.clone())
            }
        };
        let revpos = if new_edits { None } else { att.revpos };
        Ok(PendingAttachment { name: att.name, content_type: att.content_type, revpos, content })
    });
    pending.collect()
}

/// What is known of bytes that come as a stream.
pub(crate) struct Upload<'a> {
    pub(crate) content_type: &'a str,
    pub(crate) encoding: Encoding,
    pub(crate) md5: Option<Digest>,
    pub(crate) limit: u64,
}

/// Stores bytes as they come. Short ones stay in memory until the document's own transaction.
pub(crate) async fn upload(
    inner: &Inner,
    shared: &Shared,
    what: Upload<'_>,
    mut body: ByteStream,
) -> Result<NewBlob> {
    let mut encoder = Encoder::new(what.content_type, what.encoding, what.limit);
    let mut ready = BytesMut::new();
    let mut chunks = ChunkWriter { inner, db: shared.id, upload: None, written: 0 };
    while let Some(bytes) = body.try_next().await? {
        ready.extend_from_slice(&encoder.push(&bytes)?);
        while ready.len() > CHUNK {
            chunks.write(ready.split_to(CHUNK).freeze()).await?;
        }
    }
    let (last, mut blob) = encoder.finish(what.md5)?;
    ready.extend_from_slice(&last);
    if chunks.upload.is_none() && ready.len() <= CHUNK {
        blob.bytes = BlobBytes::Memory(ready.split().freeze());
        return Ok(blob);
    }
    while !ready.is_empty() {
        let len = ready.len().min(CHUNK);
        chunks.write(ready.split_to(len).freeze()).await?;
    }
    if let Some(upload) = chunks.upload {
        blob.bytes = BlobBytes::Uploaded(upload);
    }
    Ok(blob)
}

struct ChunkWriter<'i> {
    inner: &'i Inner,
    db: DbId,
    upload: Option<Arc<Unclaimed>>,
    written: u32,
}

impl ChunkWriter<'_> {
    /// Writes the next chunk; waiting for it is what slows the sender down to the disk's rate.
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let (db, index) = (self.db, self.written);
        let known = self.upload.as_ref().map(|upload| upload.blob);
        let store = self.inner.store.clone();
        let begun = self
            .inner
            .transact(Durability::Deferred, move |tx| {
                let blob = match known {
                    Some(blob) => blob,
                    None => {
                        let mut state = state(tx, db)?;
                        let blob = state.next_blob;
                        state.next_blob += 1;
                        tx.put(Table::Meta, meta::state(db), state.encode());
                        blob
                    }
                };
                let mut count = Vec::new();
                put_uint(&mut count, u64::from(index) + 1);
                tx.put(Table::Meta, meta::upload(db, blob), count);
                tx.put(Table::Chunks, chunk_key(db, blob, index).to_vec(), bytes);
                let claimed = AtomicBool::new(false);
                // Made here, so that it is dropped if nobody waits for it any more.
                Ok(known.is_none().then(|| Arc::new(Unclaimed { store, db, blob, claimed })))
            })
            .await?;
        if begun.is_some() {
            self.upload = begun;
        }
        self.written += 1;
        Ok(())
    }
}

/// Drops the chunks of an upload, if no document has them.
fn drop_upload(tx: &mut Tx<'_>, db: DbId, blob: u64) -> Result<()> {
    let mark = meta::upload(db, blob);
    if let Some(count) = tx.get(Table::Meta, &mark)? {
        let count = Reader(&count).uint()?.try_into();
        delete_chunks(tx, db, blob, count.map_err(|_| corrupt("mark of an upload"))?);
        tx.delete(Table::Meta, mark);
    }
    Ok(())
}

fn delete_chunks(tx: &mut Tx<'_>, db: DbId, blob: u64, chunks: u32) {
    for index in 0..chunks {
        tx.delete(Table::Chunks, chunk_key(db, blob, index).to_vec());
    }
}

/// Drops the chunks of uploads that a stop of the process has cut off.
pub(crate) fn drop_unfinished_uploads(tx: &mut Tx<'_>) -> Result<()> {
    let marks = (Bound::Included(b"u/".as_slice()), Bound::Excluded(b"u0".as_slice()));
    for (mark, _) in tx.range(Table::Meta, marks, usize::MAX)? {
        let (db, blob) = meta::upload_in(&mark).ok_or_else(|| corrupt("mark of an upload"))?;
        drop_upload(tx, db, blob)?;
    }
    Ok(())
}

impl Writer<'_, '_> {
    /// Puts the rows of one attachment of a revision that is being written.
    pub(crate) fn store_attachment(
        &mut self,
        attachment: Resolved<'_>,
    ) -> Result<StoredAttachment> {
        match attachment {
            Resolved::Stored(stored) => {
                self.share_blob(stored.blob)?;
                Ok(stored)
            }
            Resolved::New { name, content_type, revpos, blob } => Ok(StoredAttachment {
                name: name.to_owned(),
                content_type: content_type.to_owned(),
                revpos,
                blob: self.store_blob(blob)?,
                digest: blob.digest,
                encoding: blob.encoding,
                length: blob.length,
                stored_length: blob.stored_length,
            }),
        }
    }

    /// Gives a blob one more owner, and a place if it has none yet.
    fn store_blob(&mut self, blob: &NewBlob) -> Result<u64> {
        let db = self.db;
        let by_hash = side::blob_by_hash(db, &blob.hash);
        if let Some(number) = self.tx.get(Table::Side, &by_hash)? {
            let number = number.as_ref().try_into().map_err(|_| corrupt("number of a blob"))?;
            let number = u64::from_be_bytes(number);
            self.share_blob(number)?;
            self.drop_uploaded(blob)?;
            return Ok(number);
        }
        let number = match &blob.bytes {
            BlobBytes::Uploaded(upload) => {
                self.tx.delete(Table::Meta, meta::upload(db, upload.blob));
                upload.blob
            }
            BlobBytes::Memory(bytes) => {
                let number = self.state.next_blob;
                self.state.next_blob += 1;
                for (index, start) in (0..).zip((0..bytes.len()).step_by(CHUNK)) {
                    let chunk = bytes.slice(start..bytes.len().min(start + CHUNK));
                    self.tx.put(Table::Chunks, chunk_key(db, number, index).to_vec(), chunk);
                }
                number
            }
        };
        let row = BlobRow { refs: 1, length: blob.stored_length, hash: blob.hash };
        self.state.active += blob.stored_length;
        self.tx.put(Table::Side, side::blob(db, number), row.encode());
        self.tx.put(Table::Side, by_hash, number.to_be_bytes().to_vec());
        Ok(number)
    }

    fn blob(&mut self, number: u64) -> Result<(Vec<u8>, BlobRow)> {
        let key = side::blob(self.db, number);
        let row = self.tx.get(Table::Side, &key)?;
        let row = BlobRow::decode(&row.ok_or_else(|| corrupt("blob is missing"))?)?;
        Ok((key, row))
    }

    /// Gives a stored blob one more owner.
    fn share_blob(&mut self, number: u64) -> Result<()> {
        let (key, mut row) = self.blob(number)?;
        row.refs += 1;
        self.tx.put(Table::Side, key, row.encode());
        Ok(())
    }

    /// Takes one owner from a blob; the last one takes the bytes with it.
    pub(crate) fn release_blob(&mut self, number: u64) -> Result<()> {
        let (key, mut row) = self.blob(number)?;
        if row.refs > 1 {
            row.refs -= 1;
            self.tx.put(Table::Side, key, row.encode());
            return Ok(());
        }
        self.tx.delete(Table::Side, key);
        self.tx.delete(Table::Side, side::blob_by_hash(self.db, &row.hash));
        delete_chunks(self.tx, self.db, number, row.chunks());
        self.state.active = self.state.active.saturating_sub(row.length);
        Ok(())
    }

    fn drop_uploaded(&mut self, blob: &NewBlob) -> Result<()> {
        match &blob.bytes {
            BlobBytes::Uploaded(upload) => drop_upload(self.tx, self.db, upload.blob),
            BlobBytes::Memory(_) => Ok(()),
        }
    }

    /// Drops what was uploaded for an edit that turned out to change nothing.
    pub(crate) fn drop_uploads(&mut self, edit: &Edit) -> Result<()> {
        for blob in edit.new_blobs() {
            self.drop_uploaded(blob)?;
        }
        Ok(())
    }
}

impl Edit {
    pub(crate) fn new_blobs(&self) -> impl Iterator<Item = &NewBlob> {
        self.attachments.iter().filter_map(|att| match &att.content {
            Content::New(blob) => Some(blob),
            Content::Stub { .. } => None,
        })
    }
}

/// All of an attachment's content, decoded unless `as_stored`.
pub(crate) fn read_all(
    snapshot: &Snapshot,
    db: DbId,
    attachment: &StoredAttachment,
    as_stored: bool,
) -> Result<Bytes> {
    let mut reader = ChunkReader::new(snapshot.clone(), db, attachment);
    let mut bytes = Vec::with_capacity(usize::try_from(attachment.length).unwrap_or_default());
    if as_stored || attachment.encoding == Encoding::Identity {
        while let Some(chunk) = reader.next()? {
            bytes.extend_from_slice(&chunk);
        }
        return Ok(bytes.into());
    }
    let mut decoder = GzDecoder::new(bytes);
    while let Some(chunk) = reader.next()? {
        decoder.write_all(&chunk).map_err(Error::internal)?;
    }
    Ok(decoder.finish().map_err(Error::internal)?.into())
}

/// An attachment's content as a stream; `range` applies to attachments that are stored as they are.
pub(crate) fn read(
    store: &Store,
    db: DbId,
    attachment: &StoredAttachment,
    as_stored: bool,
    range: Option<(u64, u64)>,
) -> ByteStream {
    let mut reader = ChunkReader::new(store.snapshot(), db, attachment);
    if let Some((first, last)) = range {
        reader.seek(first, last);
    }
    let decoder =
        (!as_stored && attachment.encoding == Encoding::Gzip).then(|| GzDecoder::new(Vec::new()));
    let chunks = stream::try_unfold((reader, decoder), |(mut reader, mut decoder)| async move {
        loop {
            let chunk = reader.next()?;
            let bytes = match (chunk, decoder.take()) {
                (None, None) => return Ok(None),
                (Some(chunk), None) => return Ok(Some((chunk, (reader, None)))),
                (Some(chunk), Some(mut gzip)) => {
                    gzip.write_all(&chunk).map_err(Error::internal)?;
                    let bytes = std::mem::take(gzip.get_mut());
                    decoder = Some(gzip);
                    bytes
                }
                (None, Some(gzip)) => gzip.finish().map_err(Error::internal)?,
            };
            if !bytes.is_empty() {
                return Ok(Some((Bytes::from(bytes), (reader, decoder))));
            }
        }
    });
    chunks.map_err(|Fail(error)| error).boxed()
}

struct ChunkReader {
    snapshot: Snapshot,
    db: DbId,
    blob: u64,
    /// The next byte, and the one behind the last, of the stored bytes.
    next: u64,
    end: u64,
}

impl ChunkReader {
    fn new(snapshot: Snapshot, db: DbId, attachment: &StoredAttachment) -> ChunkReader {
        let (blob, end) = (attachment.blob, attachment.stored_length);
        ChunkReader { snapshot, db, blob, next: 0, end }
    }

    fn seek(&mut self, first: u64, last: u64) {
        self.next = first;
        self.end = self.end.min(last.saturating_add(1));
    }

    fn next(&mut self) -> Result<Option<Bytes>> {
        if self.next >= self.end {
            return Ok(None);
        }
        let index = u32::try_from(self.next / CHUNK as u64).unwrap_or(u32::MAX);
        let start = u64::from(index) * CHUNK as u64;
        let chunk = self
            .snapshot
            .get(Table::Chunks, &chunk_key(self.db, self.blob, index))?
            .ok_or_else(|| corrupt("chunk of an attachment is missing"))?;
        let from = (self.next - start) as usize;
        let to = (self.end - start).min(chunk.len() as u64) as usize;
        if from >= to {
            return Err(corrupt("chunk of an attachment is too short").into());
        }
        self.next = start + to as u64;
        Ok(Some(chunk.slice(from..to)))
    }
}

/// The bytes that a range means, first and last; `None` if that is all of them.
///
/// # Errors
///
/// `RangeNotSatisfiable` if it lies outside.
pub(crate) fn resolve_range(range: ByteRange, length: u64) -> Result<(u64, u64)> {
    let last = length.checked_sub(1);
    let resolved = match (range, last) {
        (ByteRange::From(first), Some(last)) if first <= last => Some((first, last)),
        (ByteRange::Within(first, to), Some(last)) if first <= to && first <= last => {
            Some((first, to.min(last)))
        }
        (ByteRange::Last(count), Some(last)) if count > 0 => {
            Some((length.saturating_sub(count), last))
        }
        _ => None,
    };
    resolved.ok_or_else(|| {
        Error::new(ErrorKind::RangeNotSatisfiable, "Requested range not satisfiable").into()
    })
}
