//! Which rows there are, and what is in them. Mirrors `docs/format.md`: change both together.
//!
//! Every database has a number that is never used again; its rows begin with it.

use super::codec::{Reader, put_bytes, put_rev, put_uint};
use super::corrupt;
use bytes::Bytes;
use settee_core::{Body, Digest, Encoding, Result, Rev, RevTree};

/// The number of a database.
pub(crate) type DbId = u32;

/// The largest body, attachments' metadata included, that is kept inside its document's row, in
/// bytes. A get of such a document is one lookup.
pub(crate) const INLINE_BODY: usize = 4096;

/// The size of an attachment's chunks, in bytes.
pub(crate) const CHUNK: usize = 128 * 1024;

/// So many consecutive sequences share one row that counts which of them are in use.
pub(crate) const SEQ_BLOCK: u64 = 1024;

/// Keys of [`Table::Meta`](settee_store::Table::Meta).
pub(crate) mod meta {
    use super::DbId;

    /// The place's own id.
    pub(crate) const UUID: &[u8] = b"uuid";
    /// The number that the next database gets.
    pub(crate) const NEXT_DB: &[u8] = b"next";

    /// A database by its name.
    pub(crate) fn name(name: &str) -> Vec<u8> {
        [b"d/", name.as_bytes()].concat()
    }

    /// The name in such a key.
    pub(crate) fn name_in(key: &[u8]) -> Option<&str> {
        std::str::from_utf8(key.strip_prefix(b"d/")?).ok()
    }

    /// A database's [`DbState`](super::DbState).
    pub(crate) fn state(db: DbId) -> Vec<u8> {
        [b"s/".as_slice(), &db.to_be_bytes()].concat()
    }

    /// A database's `_security`, as JSON.
    pub(crate) fn security(db: DbId) -> Vec<u8> {
        [b"x/".as_slice(), &db.to_be_bytes()].concat()
    }

    /// A database's `_auto_purge`, as JSON.
    pub(crate) fn auto_purge(db: DbId) -> Vec<u8> {
        [b"a/".as_slice(), &db.to_be_bytes()].concat()
    }

    /// An upload that is under way: its chunks belong to nobody yet.
    pub(crate) fn upload(db: DbId, blob: u64) -> Vec<u8> {
        [b"u/".as_slice(), &db.to_be_bytes(), &blob.to_be_bytes()].concat()
    }

    /// Database and blob of such a key.
    pub(crate) fn upload_in(key: &[u8]) -> Option<(DbId, u64)> {
        let (db, blob) = key.strip_prefix(b"u/")?.split_first_chunk()?;
        Some((u32::from_be_bytes(*db), u64::from_be_bytes(blob.try_into().ok()?)))
    }
}

/// A key of any table but `Meta`: the database's number, then the rest.
pub(crate) fn key(db: DbId, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + rest.len());
    key.extend_from_slice(&db.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

/// The key of a sequence, in `Seqs` and in `Bodies`.
pub(crate) fn seq_key(db: DbId, seq: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&db.to_be_bytes());
    key[4..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The sequence of such a key.
pub(crate) fn seq_in(key: &[u8]) -> Result<u64> {
    match key.get(4..).and_then(|rest| rest.try_into().ok()) {
        Some(seq) => Ok(u64::from_be_bytes(seq)),
        None => Err(corrupt("key of a sequence has the wrong length")),
    }
}

/// The id of a document in a key of `Docs`.
pub(crate) fn id_in(key: &[u8], prefix: usize) -> Result<&str> {
    key.get(prefix..)
        .and_then(|id| std::str::from_utf8(id).ok())
        .ok_or_else(|| corrupt("key of a document is not UTF-8"))
}

/// Keys of [`Table::Side`](settee_store::Table::Side).
pub(crate) mod side {
    use super::{DbId, SEQ_BLOCK};

    fn kind(db: DbId, kind: u8, rest: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(5 + rest.len());
        key.extend_from_slice(&db.to_be_bytes());
        key.push(kind);
        key.extend_from_slice(rest);
        key
    }

    /// A local document, by its id without `_local/`.
    pub(crate) fn local(db: DbId, id: &str) -> Vec<u8> {
        kind(db, b'l', id.as_bytes())
    }

    /// A document with more than one leaf that is alive. The value is empty.
    pub(crate) fn conflict(db: DbId, id: &str) -> Vec<u8> {
        kind(db, b'c', id.as_bytes())
    }

    /// One purged document, by the purge's sequence.
    pub(crate) fn purge(db: DbId, seq: u64) -> Vec<u8> {
        kind(db, b'p', &seq.to_be_bytes())
    }

    /// How many sequences of a block are in use.
    pub(crate) fn seq_count(db: DbId, block: u64) -> Vec<u8> {
        kind(db, b'n', &block.to_be_bytes())
    }

    /// The block that a sequence belongs to.
    pub(crate) fn seq_block(seq: u64) -> u64 {
        seq / SEQ_BLOCK
    }

    /// When changes were made: a [`TimeSeq`](crate::local::time_seq::TimeSeq).
    pub(crate) fn time_seq(db: DbId) -> Vec<u8> {
        kind(db, b't', &[])
    }

    /// A blob by its number.
    pub(crate) fn blob(db: DbId, blob: u64) -> Vec<u8> {
        kind(db, b'b', &blob.to_be_bytes())
    }

    /// The number of a blob by the SHA-256 of its stored bytes.
    pub(crate) fn blob_by_hash(db: DbId, hash: &[u8; 32]) -> Vec<u8> {
        kind(db, b'h', hash)
    }
}

/// The key of an attachment's chunk.
pub(crate) fn chunk_key(db: DbId, blob: u64, index: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&db.to_be_bytes());
    key[4..12].copy_from_slice(&blob.to_be_bytes());
    key[12..].copy_from_slice(&index.to_be_bytes());
    key
}

/// `Meta`, by name: which database this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DbEntry {
    pub(crate) id: DbId,
    /// Microseconds since 1970.
    pub(crate) created: u64,
}

impl DbEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_uint(&mut out, u64::from(self.id));
        put_uint(&mut out, self.created);
        out
    }

    pub(crate) fn decode(row: &[u8]) -> Result<DbEntry> {
        let mut row = Reader(row);
        let id = row.uint()?.try_into().map_err(|_| corrupt("number of a database"))?;
        Ok(DbEntry { id, created: row.uint()? })
    }
}

/// `Meta`, by number: what changes with every write to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DbState {
    pub(crate) doc_count: u64,
    pub(crate) doc_del_count: u64,
    pub(crate) update_seq: u64,
    pub(crate) purge_seq: u64,
    /// The oldest purge that is still listed.
    pub(crate) first_purge: u64,
    pub(crate) next_blob: u64,
    pub(crate) revs_limit: u64,
    pub(crate) purged_infos_limit: u64,
    /// Bytes of the winners' bodies and attachments, as JSON and content.
    pub(crate) external: u64,
    /// Bytes of rows and chunks in use.
    pub(crate) active: u64,
    /// Bytes, about, of bodies that a compaction would drop.
    pub(crate) old: u64,
    /// When the newest interval of [`TimeSeq`](super::time_seq::TimeSeq) began, in seconds since
    /// 1970; 0 if there is none.
    pub(crate) newest_interval: u64,
}

impl Default for DbState {
    fn default() -> DbState {
        DbState {
            doc_count: 0,
            doc_del_count: 0,
            update_seq: 0,
            purge_seq: 0,
            first_purge: 1,
            next_blob: 1,
            revs_limit: 1000,
            purged_infos_limit: 1000,
            external: 0,
            active: 0,
            old: 0,
            newest_interval: 0,
        }
    }
}

impl DbState {
    fn fields(&mut self) -> [&mut u64; 12] {
        [
            &mut self.doc_count,
            &mut self.doc_del_count,
            &mut self.update_seq,
            &mut self.purge_seq,
            &mut self.first_purge,
            &mut self.next_blob,
            &mut self.revs_limit,
            &mut self.purged_infos_limit,
            &mut self.external,
            &mut self.active,
            &mut self.old,
            &mut self.newest_interval,
        ]
    }

    pub(crate) fn encode(mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        for field in self.fields() {
            put_uint(&mut out, *field);
        }
        out
    }

    pub(crate) fn decode(row: &[u8]) -> Result<DbState> {
        let mut row = Reader(row);
        let mut state = DbState::default();
        for field in state.fields() {
            // Rows from before a field existed end without it.
            if !row.0.is_empty() {
                *field = row.uint()?;
            }
        }
        Ok(state)
    }
}

const DELETED: u8 = 1;
const CONFLICTED: u8 = 2;
const INLINE: u8 = 4;

/// `Docs`: a document, by its id.
#[derive(Debug, Clone)]
pub(crate) struct DocRow {
    /// The winner is a deletion.
    pub(crate) deleted: bool,
    /// More than one leaf is alive.
    pub(crate) conflicted: bool,
    /// The document's latest change.
    pub(crate) seq: u64,
    /// The winner.
    pub(crate) winner: Rev,
    /// The sequence of the write that brought the winner: the key of its body.
    pub(crate) body_seq: u64,
    /// What the winner adds to [`DbState::external`].
    pub(crate) external: u64,
    /// The length of the winner's [`BodyRow`].
    pub(crate) body_len: u64,
    /// The tree, still encoded: most reads have no use for it.
    tree: Bytes,
    /// The winner's [`BodyRow`], if it is small.
    pub(crate) body: Option<Bytes>,
}

impl DocRow {
    pub(crate) fn new(
        tree: &RevTree,
        seq: u64,
        (external, body_len): (u64, u64),
        body: Option<Bytes>,
    ) -> Result<DocRow> {
        let winner = tree.winner().ok_or_else(|| corrupt("document without revisions"))?;
        let (deleted, body_seq) = (winner.stored.deleted, winner.stored.seq);
        let winner = winner.rev.clone();
        let mut encoded = Vec::new();
        tree.encode(&mut encoded);
        Ok(DocRow {
            deleted,
            conflicted: tree.is_conflicted(),
            seq,
            winner,
            body_seq,
            external,
            body_len,
            tree: encoded.into(),
            body,
        })
    }

    pub(crate) fn tree(&self) -> Result<RevTree> {
        RevTree::decode(&self.tree)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = self.body.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(64 + self.tree.len() + body.len());
        out.push(
            if self.deleted { DELETED } else { 0 }
                | if self.conflicted { CONFLICTED } else { 0 }
                | if self.body.is_some() { INLINE } else { 0 },
        );
        put_uint(&mut out, self.seq);
        put_rev(&mut out, &self.winner);
        put_uint(&mut out, self.body_seq);
        put_uint(&mut out, self.external);
        put_uint(&mut out, self.body_len);
        put_bytes(&mut out, &self.tree);
        out.extend_from_slice(body);
        out
    }

    pub(crate) fn decode(row: &Bytes) -> Result<DocRow> {
        let mut reader = Reader(row);
        let flags = reader.byte()?;
        let seq = reader.uint()?;
        let winner = reader.rev()?;
        let body_seq = reader.uint()?;
        let external = reader.uint()?;
        let body_len = reader.uint()?;
        let tree = row.slice_ref(reader.bytes()?);
        let body = (flags & INLINE != 0).then(|| row.slice_ref(reader.0));
        Ok(DocRow {
            deleted: flags & DELETED != 0,
            conflicted: flags & CONFLICTED != 0,
            seq,
            winner,
            body_seq,
            external,
            body_len,
            tree,
            body,
        })
    }
}

/// The head of a [`DocRow`]: what a listing without documents needs.
pub(crate) struct DocHead {
    pub(crate) deleted: bool,
    pub(crate) winner: Rev,
}

impl DocHead {
    pub(crate) fn decode(row: &[u8]) -> Result<DocHead> {
        let mut reader = Reader(row);
        let flags = reader.byte()?;
        reader.uint()?;
        Ok(DocHead { deleted: flags & DELETED != 0, winner: reader.rev()? })
    }
}

/// One attachment of a stored revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredAttachment {
    pub(crate) name: String,
    pub(crate) content_type: String,
    pub(crate) revpos: u64,
    /// Where its bytes are.
    pub(crate) blob: u64,
    /// MD5 of the stored bytes.
    pub(crate) digest: Digest,
    pub(crate) encoding: Encoding,
    /// Length of the content.
    pub(crate) length: u64,
    /// Length of the stored bytes.
    pub(crate) stored_length: u64,
}

/// A stored revision: its attachments and its text. In `Bodies`, or inside of a [`DocRow`].
#[derive(Debug, Clone)]
pub(crate) struct BodyRow {
    pub(crate) attachments: Vec<StoredAttachment>,
    pub(crate) text: Bytes,
}

impl BodyRow {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.text.len() + 2 + self.attachments.len() * 80);
        put_uint(&mut out, self.attachments.len() as u64);
        for att in &self.attachments {
            put_bytes(&mut out, att.name.as_bytes());
            put_bytes(&mut out, att.content_type.as_bytes());
            put_uint(&mut out, att.revpos);
            put_uint(&mut out, att.blob);
            out.extend_from_slice(&att.digest.0);
            out.push(matches!(att.encoding, Encoding::Gzip).into());
            put_uint(&mut out, att.length);
            put_uint(&mut out, att.stored_length);
        }
        out.extend_from_slice(&self.text);
        out.into()
    }

    pub(crate) fn decode(row: &Bytes) -> Result<BodyRow> {
        let mut reader = Reader(row);
        let count = reader.uint()?;
        let mut attachments = Vec::new();
        for _ in 0..count {
            attachments.push(StoredAttachment {
                name: reader.text()?.to_owned(),
                content_type: reader.text()?.to_owned(),
                revpos: reader.uint()?,
                blob: reader.uint()?,
                digest: Digest(reader.array()?),
                encoding: if reader.byte()? == 0 { Encoding::Identity } else { Encoding::Gzip },
                length: reader.uint()?,
                stored_length: reader.uint()?,
            });
        }
        Ok(BodyRow { attachments, text: row.slice_ref(reader.0) })
    }

    /// Bytes as JSON and content: what this revision adds to [`DbState::external`] as a winner.
    pub(crate) fn external(&self) -> u64 {
        let text = self.text.len() as u64;
        self.attachments.iter().fold(text, |sum, att| sum.saturating_add(att.length))
    }

    pub(crate) fn body(&self) -> Body {
        Body::from_stored(self.text.clone())
    }
}

/// `Seqs`: a document's latest change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeqRow {
    pub(crate) deleted: bool,
    pub(crate) id: String,
    /// Every leaf, winner first.
    pub(crate) leaves: Vec<Rev>,
}

impl SeqRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.id.len() + self.leaves.len() * 18);
        out.push(if self.deleted { DELETED } else { 0 });
        put_bytes(&mut out, self.id.as_bytes());
        for leaf in &self.leaves {
            put_rev(&mut out, leaf);
        }
        out
    }

    /// Reads the row; of the leaves just the winner unless `all`.
    pub(crate) fn decode(row: &[u8], all: bool) -> Result<SeqRow> {
        let mut reader = Reader(row);
        let deleted = reader.byte()? & DELETED != 0;
        let id = reader.text()?.to_owned();
        let mut leaves = vec![reader.rev()?];
        while all && !reader.0.is_empty() {
            leaves.push(reader.rev()?);
        }
        Ok(SeqRow { deleted, id, leaves })
    }
}

/// `Side`, by number: an attachment's stored bytes and how many stored revisions have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobRow {
    pub(crate) refs: u64,
    /// Length of the stored bytes.
    pub(crate) length: u64,
    /// SHA-256 of the stored bytes.
    pub(crate) hash: [u8; 32],
}

impl BlobRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(44);
        put_uint(&mut out, self.refs);
        put_uint(&mut out, self.length);
        out.extend_from_slice(&self.hash);
        out
    }

    pub(crate) fn decode(row: &[u8]) -> Result<BlobRow> {
        let mut row = Reader(row);
        Ok(BlobRow { refs: row.uint()?, length: row.uint()?, hash: row.array()? })
    }

    pub(crate) fn chunks(&self) -> u32 {
        chunk_count(self.length)
    }
}

/// How many chunks so many bytes take.
pub(crate) fn chunk_count(length: u64) -> u32 {
    u32::try_from(length.div_ceil(CHUNK as u64)).unwrap_or(u32::MAX)
}

/// `Side`: a document of `_local/`.
pub(crate) struct LocalRow {
    /// The number behind the dash of its revision `0-N`.
    pub(crate) rev: u64,
    pub(crate) text: Bytes,
}

impl LocalRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(10 + self.text.len());
        put_uint(&mut out, self.rev);
        out.extend_from_slice(&self.text);
        out
    }

    pub(crate) fn decode(row: &Bytes) -> Result<LocalRow> {
        let mut reader = Reader(row);
        Ok(LocalRow { rev: reader.uint()?, text: row.slice_ref(reader.0) })
    }
}

/// `Side`: what one purge took from one document.
pub(crate) struct PurgeRow {
    pub(crate) id: String,
    pub(crate) revs: Vec<Rev>,
}

impl PurgeRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, self.id.as_bytes());
        for rev in &self.revs {
            put_rev(&mut out, rev);
        }
        out
    }

    pub(crate) fn decode(row: &[u8]) -> Result<PurgeRow> {
        let mut reader = Reader(row);
        let id = reader.text()?.to_owned();
        let mut revs = Vec::new();
        while !reader.0.is_empty() {
            revs.push(reader.rev()?);
        }
        Ok(PurgeRow { id, revs })
    }
}
