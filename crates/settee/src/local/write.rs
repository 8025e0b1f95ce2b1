//! Writing documents: what happens between a parsed document and the rows of a commit.
//!
//! [`prepare`] runs where the caller is: it checks the document, compresses and hashes its
//! attachments and its revision. [`Writer`] runs on the commit thread, alone: it meets the document's
//! current row, decides, and puts rows. It decides before it puts, so a document that is refused
//! leaves nothing, and the others of its request go on.

use super::attachments::{Content, NewBlob, PendingAttachment};
use super::schema::{
    BodyRow, DbId, DbState, DocRow, INLINE_BODY, LocalRow, SeqRow, StoredAttachment, key, meta,
    seq_key, side,
};
use super::{Result, corrupt};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use settee_core::id::{self, DocKind};
use settee_core::rev_tree::Stored;
use settee_core::wire::Saved;
use settee_core::{Document, Error, ErrorKind, Rev, RevId, RevTree, Revisions};
use settee_store::{Table, Tx};

/// A document on its way to the commit thread.
pub(crate) struct Edit {
    pub(crate) id: String,
    kind: DocKind,
    /// The revision that is edited, or with `new_edits=false` the one that is brought.
    rev: Option<Rev>,
    /// With `new_edits=false`: the revision and its ancestors.
    path: Option<Revisions>,
    /// The document, for its body and, should it have to be made again, its hash.
    doc: Document,
    pub(crate) attachments: Vec<PendingAttachment>,
    /// The new revision's hash as an edit of `rev`, if it could be made beforehand.
    hash: Option<[u8; 16]>,
}

/// Checks a document and does what can be done before the commit thread has it.
pub(crate) fn prepare(
    id: String,
    mut doc: Document,
    attachments: Vec<PendingAttachment>,
    new_edits: bool,
) -> Result<Edit> {
    let kind = id::check_doc_id(&id)?;
    if kind == DocKind::Local && !attachments.is_empty() {
        return Err(Error::bad_request("_local documents can not have attachments.").into());
    }
    let rev = doc.rev.clone();
    let path = match (new_edits || kind == DocKind::Local, doc.revisions.take(), &rev) {
        (true, ..) => None,
        (false, Some(path), _) if !path.ids.is_empty() => Some(path),
        (false, _, Some(rev)) => Some(Revisions { start: rev.pos, ids: vec![rev.id.clone()] }),
        (false, ..) => {
            let reason = "Document rev must be given when new_edits is false.";
            return Err(Error::new(ErrorKind::BadRequest, reason).into());
        }
    };
    if let Some(path) = &path {
        RevTree::check(path)?;
    }
    let mut edit = Edit { id, kind, rev, path, doc, attachments, hash: None };
    let known: Option<Vec<_>> = edit.attachments.iter().map(PendingAttachment::known).collect();
    if edit.path.is_none()
        && kind != DocKind::Local
        && let Some(known) = known
    {
        edit.hash =
            Some(edit.doc.revision_hash(edit.doc.deleted, edit.rev.as_ref(), known.into_iter())?);
    }
    Ok(edit)
}

/// The rows of one database, while a transaction changes them.
pub(crate) struct Writer<'w, 't> {
    pub(crate) tx: &'w mut Tx<'t>,
    pub(crate) db: DbId,
    pub(crate) state: DbState,
    /// The update sequence as the transaction found it.
    before: u64,
    /// What is to be added to the counts of sequences in use, by block.
    seq_counts: FxHashMap<u64, i64>,
}

impl<'w, 't> Writer<'w, 't> {
    /// Begins to change a database, which must exist.
    pub(crate) fn new(tx: &'w mut Tx<'t>, db: DbId) -> Result<Writer<'w, 't>> {
        let state = super::databases::state(tx, db)?;
        Ok(Writer { tx, db, state, before: state.update_seq, seq_counts: FxHashMap::default() })
    }

    /// Puts the rows that all changes together make.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.state.update_seq > self.before {
            self.note_time(self.before)?;
        }
        for (block, more) in self.seq_counts {
            if more == 0 {
                continue;
            }
            let key = side::seq_count(self.db, block);
            let count = match self.tx.get(Table::Side, &key)? {
                None => 0,
                Some(row) => seq_count_in(&row)?,
            };
            match count.checked_add_signed(more) {
                None => return Err(corrupt("count of sequences").into()),
                Some(0) => self.tx.delete(Table::Side, key),
                Some(count) => self.tx.put(Table::Side, key, count.to_be_bytes().to_vec()),
            }
        }
        self.tx.put(Table::Meta, meta::state(self.db), self.state.encode());
        Ok(())
    }

    /// Writes one document.
    pub(crate) fn write(&mut self, edit: &Edit) -> Result<Saved> {
        if edit.kind == DocKind::Local {
            return self.write_local(edit);
        }
        let key = key(self.db, edit.id.as_bytes());
        let row = self.tx.get(Table::Docs, &key)?;
        let old = row.as_ref().map(DocRow::decode).transpose()?;
        let tree = match &old {
            Some(old) => old.tree()?,
            None => RevTree::default(),
        };
        let doc = OldDoc { key, len: row.map_or(0, |row| row.len()), row: old, tree };
        match &edit.path {
            None => self.write_edit(edit, doc),
            Some(path) => self.write_replicated(edit, path, doc),
        }
    }

    /// An edit: it must be based on a leaf, and makes a new revision.
    ///
    /// A document that is wholly deleted is only created anew, by an edit that names no revision: as
    /// in CouchDB, deletions are nothing to build on.
    fn write_edit(&mut self, edit: &Edit, doc: OldDoc) -> Result<Saved> {
        let parent = match (&edit.rev, &doc.row) {
            (None, None) => None,
            (None, Some(row)) if row.deleted && !edit.doc.deleted => Some(row.winner.clone()),
            (Some(_), Some(row)) if row.deleted => return Err(Error::conflict().into()),
            (Some(rev), Some(_)) if doc.tree.get(rev).is_some_and(|node| node.leaf) => {
                Some(rev.clone())
            }
            _ => return Err(Error::conflict().into()),
        };
        let pos = parent.as_ref().map_or(1, |parent| parent.pos + 1);
        let stubs = match &parent {
            Some(parent) if edit.has_stubs() => self.stored_body(&doc, parent)?,
            _ => None,
        };
        let attachments = edit.resolve(pos, |name| {
            let stored = stubs.as_ref()?.attachments.iter().find(|stored| stored.name == name)?;
            Some(stored.clone())
        })?;
        let hash = match edit.hash {
            Some(hash) if parent == edit.rev => hash,
            _ => edit.doc.revision_hash(
                edit.doc.deleted,
                parent.as_ref(),
                attachments.iter().map(Resolved::hashed),
            )?,
        };
        let mut ids = vec![RevId::Hash(hash)];
        ids.extend(parent.map(|parent| parent.id));
        self.add(edit, &Revisions { start: pos, ids }, attachments, doc)
    }

    /// A revision from elsewhere, with its ancestors.
    fn write_replicated(&mut self, edit: &Edit, path: &Revisions, doc: OldDoc) -> Result<Saved> {
        let revs = || {
            let ids = path.ids.iter().enumerate();
            ids.map_while(|(age, id)| {
                Some(Rev { pos: path.start.checked_sub(age as u64)?, id: id.clone() })
            })
        };
        let mut known = Vec::new();
        if edit.has_stubs() {
            // What a stub stands for came with an ancestor that is here.
            for rev in revs() {
                known.extend(self.stored_body(&doc, &rev)?);
            }
        }
        let attachments = edit.resolve(path.start, |name| {
            let mut stored = known.iter().flat_map(|body| &body.attachments);
            stored.find(|stored| stored.name == name).cloned()
        })?;
        self.add(edit, path, attachments, doc)
    }

    /// Adds a revision to a document: from here on nothing is refused any more.
    fn add(
        &mut self,
        edit: &Edit,
        path: &Revisions,
        attachments: Vec<Resolved>,
        mut doc: OldDoc,
    ) -> Result<Saved> {
        let id = path.ids.first().ok_or_else(|| corrupt("revision without id"))?.clone();
        let saved = Saved { id: edit.id.clone(), rev: Rev { pos: path.start, id } };
        let seq = self.state.update_seq + 1;
        let node = Stored { deleted: edit.doc.deleted, seq };
        if !doc.tree.merge(path, node).changed() {
            self.drop_uploads(edit)?;
            return Ok(saved);
        }
        self.state.update_seq = seq;
        // The revision may have been known, with its body, and just its ancestors are new.
        let kept = doc.tree.get(&saved.rev).and_then(|known| known.stored) == Some(node);
        let body = if kept {
            let mut stored = Vec::with_capacity(attachments.len());
            for attachment in attachments {
                stored.push(self.store_attachment(attachment)?);
            }
            let text = edit.doc.body.text().clone();
            Some((seq, BodyRow { attachments: stored, text }))
        } else {
            self.drop_uploads(edit)?;
            None
        };
        let dropped = doc.tree.stem(self.state.revs_limit);
        self.put_doc(edit.id.as_str(), doc, seq, body, &dropped)?;
        Ok(saved)
    }

    /// Puts a document's rows after its tree has changed.
    ///
    /// `new` is the body that came with this change, by its sequence; `dropped` are the sequences of
    /// bodies that the tree has let go.
    pub(crate) fn put_doc(
        &mut self,
        id: &str,
        doc: OldDoc,
        seq: u64,
        new: Option<(u64, BodyRow)>,
        dropped: &[u64],
    ) -> Result<()> {
        let OldDoc { key, len, row: old, tree } = doc;
        let Some(winner) = tree.winner().map(|leaf| leaf.stored) else {
            return Err(corrupt("document without leaves").into());
        };
        for &seq in dropped {
            self.drop_body(old.as_ref(), seq)?;
        }
        // The old row's own body stays there only if it is the winner's still.
        let mut inline = None;
        if let Some(old) = &old
            && let Some(body) = &old.body
        {
            if old.body_seq == winner.seq {
                inline = Some(body.clone());
            } else if !dropped.contains(&old.body_seq) {
                self.put_body(old.body_seq, body.clone());
            }
        }
        let mut sizes = None;
        if let Some((body_seq, body)) = new {
            let encoded = body.encode();
            if body_seq == winner.seq {
                sizes = Some((body.external(), encoded.len() as u64));
            }
            if body_seq == winner.seq && encoded.len() <= INLINE_BODY {
                inline = Some(encoded);
            } else {
                self.put_body(body_seq, encoded);
            }
        }
        let sizes = match (sizes, &old) {
            (Some(sizes), _) => sizes,
            (None, Some(old)) if old.body_seq == winner.seq => (old.external, old.body_len),
            _ => match self.tx.get(Table::Bodies, &seq_key(self.db, winner.seq))? {
                Some(body) => (BodyRow::decode(&body)?.external(), body.len() as u64),
                None => return Err(corrupt("the winner's body is missing").into()),
            },
        };
        if let Some(old) = &old
            && !dropped.contains(&old.body_seq)
            && tree.get(&old.winner).is_some_and(|node| !node.leaf)
        {
            self.state.old += old.body_len;
        }
        let row = DocRow::new(&tree, seq, sizes, inline)?;
        let leaves = tree.leaves().into_iter().map(|leaf| leaf.rev).collect();
        let seq_row = SeqRow { deleted: row.deleted, id: id.to_owned(), leaves };

        self.count_doc(old.as_ref(), Some(&row));
        if row.conflicted != old.as_ref().is_some_and(|old| old.conflicted) {
            let key = side::conflict(self.db, id);
            match row.conflicted {
                true => self.tx.put(Table::Side, key, Bytes::new()),
                false => self.tx.delete(Table::Side, key),
            }
        }
        if let Some(old) = &old {
            self.delete_seq(old.seq);
        }
        *self.seq_counts.entry(side::seq_block(seq)).or_default() += 1;
        self.tx.put(Table::Seqs, seq_key(self.db, seq).to_vec(), seq_row.encode());
        let encoded = row.encode();
        self.state.active = (self.state.active + encoded.len() as u64).saturating_sub(len as u64);
        self.tx.put(Table::Docs, key, encoded);
        Ok(())
    }

    /// Removes every row of a document whose last revision is gone.
    pub(crate) fn remove_doc(&mut self, id: &str, doc: OldDoc, dropped: &[u64]) -> Result<()> {
        for &seq in dropped {
            self.drop_body(doc.row.as_ref(), seq)?;
        }
        if let Some(old) = &doc.row {
            self.delete_seq(old.seq);
            if old.conflicted {
                self.tx.delete(Table::Side, side::conflict(self.db, id));
            }
        }
        self.count_doc(doc.row.as_ref(), None);
        self.state.active = self.state.active.saturating_sub(doc.len as u64);
        self.tx.delete(Table::Docs, doc.key);
        Ok(())
    }

    /// Puts a document's row again after its tree has let bodies go, which is no change.
    pub(crate) fn replace_tree(&mut self, doc: OldDoc, dropped: &[u64]) -> Result<()> {
        let OldDoc { key, len, row: Some(old), tree } = doc else { return Ok(()) };
        for &seq in dropped {
            self.drop_body(Some(&old), seq)?;
        }
        let sizes = (old.external, old.body_len);
        let row = DocRow::new(&tree, old.seq, sizes, old.body)?.encode();
        self.state.active = (self.state.active + row.len() as u64).saturating_sub(len as u64);
        self.tx.put(Table::Docs, key, row);
        Ok(())
    }

    /// The current row of a document, and its tree.
    pub(crate) fn old_doc(&mut self, id: &str) -> Result<Option<OldDoc>> {
        let key = key(self.db, id.as_bytes());
        let Some(row) = self.tx.get(Table::Docs, &key)? else {
            return Ok(None);
        };
        let len = row.len();
        let row = DocRow::decode(&row)?;
        let tree = row.tree()?;
        Ok(Some(OldDoc { key, len, row: Some(row), tree }))
    }

    fn delete_seq(&mut self, seq: u64) {
        *self.seq_counts.entry(side::seq_block(seq)).or_default() -= 1;
        self.tx.delete(Table::Seqs, seq_key(self.db, seq).to_vec());
    }

    fn count_doc(&mut self, old: Option<&DocRow>, new: Option<&DocRow>) {
        let count =
            |row: Option<&DocRow>, deleted| u64::from(row.is_some_and(|r| r.deleted == deleted));
        let state = &mut self.state;
        state.doc_count = (state.doc_count + count(new, false)).saturating_sub(count(old, false));
        state.doc_del_count =
            (state.doc_del_count + count(new, true)).saturating_sub(count(old, true));
        let external = |row: Option<&DocRow>| row.map_or(0, |row| row.external);
        state.external = (state.external + external(new)).saturating_sub(external(old));
    }

    fn put_body(&mut self, seq: u64, body: Bytes) {
        self.state.active += body.len() as u64;
        self.tx.put(Table::Bodies, seq_key(self.db, seq).to_vec(), body);
    }

    /// Lets a stored revision's body go, and the attachments that only it had.
    pub(crate) fn drop_body(&mut self, row: Option<&DocRow>, seq: u64) -> Result<()> {
        let body = match row {
            Some(DocRow { body_seq, body: Some(body), .. }) if *body_seq == seq => body.clone(),
            _ => {
                let key = seq_key(self.db, seq);
                let body = self.tx.get(Table::Bodies, &key)?;
                let body = body.ok_or_else(|| corrupt("a stored revision's body is missing"))?;
                self.tx.delete(Table::Bodies, key.to_vec());
                let len = body.len() as u64;
                self.state.active = self.state.active.saturating_sub(len);
                self.state.old = self.state.old.saturating_sub(len);
                body
            }
        };
        for attachment in BodyRow::decode(&body)?.attachments {
            self.release_blob(attachment.blob)?;
        }
        Ok(())
    }

    /// The body of a revision, if it is stored.
    fn stored_body(&mut self, doc: &OldDoc, rev: &Rev) -> Result<Option<BodyRow>> {
        let Some(stored) = doc.tree.get(rev).and_then(|node| node.stored) else {
            return Ok(None);
        };
        let body = match &doc.row {
            Some(DocRow { body_seq, body: Some(body), .. }) if *body_seq == stored.seq => {
                Some(body.clone())
            }
            _ => self.tx.get(Table::Bodies, &seq_key(self.db, stored.seq))?,
        };
        let body = body.ok_or_else(|| corrupt("a stored revision's body is missing"))?;
        Ok(Some(BodyRow::decode(&body)?))
    }

    /// A local document: one revision, no history, no conflicts; CouchDB counts it up from whatever
    /// revision the writer gives.
    fn write_local(&mut self, edit: &Edit) -> Result<Saved> {
        let id = edit.id.strip_prefix("_local/").unwrap_or(&edit.id);
        let key = side::local(self.db, id);
        let number = match &edit.rev {
            None => 0,
            Some(Rev { pos: 0, id: RevId::Text(number) }) => number.parse().unwrap_or(0),
            Some(_) => return Err(Error::bad_request("Invalid rev format").into()),
        };
        let rev = match edit.doc.deleted {
            true if self.tx.get(Table::Side, &key)?.is_none() => {
                return Err(Error::missing().into());
            }
            true => {
                self.tx.delete(Table::Side, key);
                0
            }
            false => {
                let rev = u64::saturating_add(number, 1);
                let text = edit.doc.body.text().clone();
                self.tx.put(Table::Side, key, LocalRow { rev, text }.encode());
                rev
            }
        };
        let rev = Rev { pos: 0, id: RevId::Text(rev.to_string().into()) };
        Ok(Saved { id: edit.id.clone(), rev })
    }
}

/// A document as a transaction finds it, with the tree that is changed.
pub(crate) struct OldDoc {
    key: Vec<u8>,
    /// The length of the row.
    len: usize,
    pub(crate) row: Option<DocRow>,
    pub(crate) tree: RevTree,
}

/// An attachment of an edit, with its stub looked up.
pub(crate) enum Resolved<'e> {
    /// What the stub stands for.
    Stored(StoredAttachment),
    /// What has come with the write, and the generation that it belongs to.
    New { name: &'e str, content_type: &'e str, revpos: u64, blob: &'e NewBlob },
}

impl Resolved<'_> {
    /// What the revision's hash is made of.
    fn hashed(&self) -> (&str, &str, &settee_core::Digest) {
        match self {
            Resolved::Stored(stored) => (&stored.name, &stored.content_type, &stored.digest),
            Resolved::New { name, content_type, blob, .. } => (name, content_type, &blob.digest),
        }
    }
}

impl Edit {
    fn has_stubs(&self) -> bool {
        self.attachments.iter().any(|att| matches!(att.content, Content::Stub { .. }))
    }

    /// Looks up the stubs. `pos` is the generation of the revision that is written.
    fn resolve(
        &self,
        pos: u64,
        find: impl Fn(&str) -> Option<StoredAttachment>,
    ) -> Result<Vec<Resolved<'_>>> {
        let mut resolved = Vec::with_capacity(self.attachments.len());
        for PendingAttachment { name, content_type, revpos, content } in &self.attachments {
            resolved.push(match content {
                Content::New(blob) => {
                    Resolved::New { name, content_type, revpos: revpos.unwrap_or(pos), blob }
                }
                Content::Stub { revpos } => match find(name) {
                    Some(stored) if revpos.is_none_or(|revpos| revpos == stored.revpos) => {
                        Resolved::Stored(stored)
                    }
                    _ => {
                        let reason = format!("Invalid attachment stub in {} for {name}", self.id);
                        return Err(Error::new(ErrorKind::MissingStub, reason).into());
                    }
                },
            });
        }
        Ok(resolved)
    }
}

pub(crate) fn seq_count_in(row: &[u8]) -> Result<u64> {
    let count = row.try_into().map_err(|_| corrupt("count of sequences"))?;
    Ok(u64::from_be_bytes(count))
}
