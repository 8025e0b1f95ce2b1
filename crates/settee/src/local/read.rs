//! Reading documents: from rows to what a caller asked for.

use super::Result;
use super::attachments;
use super::corrupt;
use super::schema::{BodyRow, DbId, DocRow, LocalRow, key, seq_key, side};
use settee_core::document::{Meta, RevStatus};
use settee_core::id::{self, DocKind};
use settee_core::options::{GetOptions, OpenRevs};
use settee_core::rev_tree::Stored;
use settee_core::wire::{DocError, RevResult};
use settee_core::{
    Attachment, AttachmentData, Body, Document, Encoding, Error, Rev, RevId, RevTree,
};
use settee_store::{Snapshot, Store, Table};

/// A document's row.
pub(crate) fn doc_row(snapshot: &Snapshot, db: DbId, id: &str) -> Result<Option<DocRow>> {
    let row = snapshot.get(Table::Docs, &key(db, id.as_bytes()))?;
    Ok(row.as_ref().map(DocRow::decode).transpose()?)
}

/// One document.
pub(crate) fn get(store: &Store, db: DbId, id: &str, options: &GetOptions) -> Result<Document> {
    // What cannot be written is just not there.
    if id::check_doc_id(id).map_err(|_| Error::missing())? == DocKind::Local {
        return get_local(&store.snapshot(), db, id);
    }
    // The common read: the winner, its body in the row, nothing else asked. One lookup.
    if options == &GetOptions::default() {
        let row = store.get(Table::Docs, &key(db, id.as_bytes()))?.ok_or_else(Error::missing)?;
        let row = DocRow::decode(&row)?;
        if row.deleted {
            return Err(Error::deleted().into());
        }
        if let Some(body) = &row.body {
            let body = BodyRow::decode(body)?;
            return Ok(document(id, row.winner, false, &body));
        }
    }
    let snapshot = store.snapshot();
    let row = doc_row(&snapshot, db, id)?.ok_or_else(Error::missing)?;
    let read = Read { snapshot: &snapshot, db, id, row: &row };
    let Some(rev) = &options.rev else {
        if row.deleted {
            return Err(Error::deleted().into());
        }
        return read.winner(options);
    };
    let tree = row.tree()?;
    let rev = if options.latest {
        tree.latest(rev).into_iter().next().map(|leaf| leaf.rev)
    } else {
        Some(rev.clone())
    };
    let rev = rev.ok_or_else(Error::missing)?;
    read.revision(&tree, &rev, options)?.ok_or_else(|| Error::missing().into())
}

fn get_local(snapshot: &Snapshot, db: DbId, id: &str) -> Result<Document> {
    let key = side::local(db, id.strip_prefix("_local/").unwrap_or(id));
    let row = snapshot.get(Table::Side, &key)?.ok_or_else(Error::missing)?;
    let row = LocalRow::decode(&row)?;
    Ok(local_document(id.to_owned(), row))
}

pub(crate) fn local_document(id: String, row: LocalRow) -> Document {
    Document {
        id: Some(id),
        rev: Some(Rev { pos: 0, id: RevId::Text(row.rev.to_string().into()) }),
        body: Body::from_stored(row.text),
        ..Document::default()
    }
}

/// Some leaves of a document.
pub(crate) fn open_revs(
    store: &Store,
    db: DbId,
    id: &str,
    revs: &OpenRevs,
    options: &GetOptions,
) -> Result<Vec<RevResult>> {
    let snapshot = store.snapshot();
    let missing = |rev: &Rev| {
        RevResult::Missing(DocError {
            id: id.to_owned(),
            rev: Some(rev.clone()),
            error: Error::missing(),
        })
    };
    let Some(row) = doc_row(&snapshot, db, id)? else {
        return match revs {
            OpenRevs::All => Err(Error::missing().into()),
            OpenRevs::Revs(revs) => Ok(revs.iter().map(missing).collect()),
        };
    };
    let tree = row.tree()?;
    let read = Read { snapshot: &snapshot, db, id, row: &row };
    let mut results = Vec::new();
    let mut push = |rev: &Rev| -> Result<()> {
        results.push(match read.revision(&tree, rev, options)? {
            Some(doc) => RevResult::Found(Box::new(doc)),
            None => missing(rev),
        });
        Ok(())
    };
    match revs {
        OpenRevs::All => {
            for leaf in tree.leaves() {
                push(&leaf.rev)?;
            }
        }
        OpenRevs::Revs(revs) if options.latest => {
            let mut seen = Vec::new();
            for rev in revs {
                let latest = tree.latest(rev);
                if latest.is_empty() {
                    push(rev)?;
                }
                for leaf in latest {
                    if !seen.contains(&leaf.rev) {
                        push(&leaf.rev)?;
                        seen.push(leaf.rev);
                    }
                }
            }
        }
        OpenRevs::Revs(revs) => {
            for rev in revs {
                push(rev)?;
            }
        }
    }
    Ok(results)
}

/// Reads of one document at one moment.
pub(crate) struct Read<'r> {
    pub(crate) snapshot: &'r Snapshot,
    pub(crate) db: DbId,
    pub(crate) id: &'r str,
    pub(crate) row: &'r DocRow,
}

impl Read<'_> {
    /// The winner, deleted or not.
    pub(crate) fn winner(&self, options: &GetOptions) -> Result<Document> {
        let body = self.body(self.row.body_seq)?;
        let mut doc = document(self.id, self.row.winner.clone(), self.row.deleted, &body);
        let plain = GetOptions { rev: None, latest: false, ..options.clone() };
        if plain != GetOptions::default() {
            // Without other leaves and without history to tell, the tree stays closed.
            let tree = self.row.tree()?;
            self.add(&mut doc, &body, &tree, options)?;
        }
        Ok(doc)
    }

    /// One revision, if its body is here.
    pub(crate) fn revision(
        &self,
        tree: &RevTree,
        rev: &Rev,
        options: &GetOptions,
    ) -> Result<Option<Document>> {
        let Some(Stored { deleted, seq }) = tree.get(rev).and_then(|node| node.stored) else {
            return Ok(None);
        };
        let body = self.body(seq)?;
        let mut doc = document(self.id, rev.clone(), deleted, &body);
        self.add(&mut doc, &body, tree, options)?;
        Ok(Some(doc))
    }

    /// The body that a write brought.
    pub(crate) fn body(&self, seq: u64) -> Result<BodyRow> {
        if let Some(body) = &self.row.body
            && self.row.body_seq == seq
        {
            return Ok(BodyRow::decode(body)?);
        }
        let body = self.snapshot.get(Table::Bodies, &seq_key(self.db, seq))?;
        let body = body.ok_or_else(|| corrupt("a stored revision's body is missing"))?;
        Ok(BodyRow::decode(&body)?)
    }

    /// Adds to a document what was asked for.
    fn add(
        &self,
        doc: &mut Document,
        body: &BodyRow,
        tree: &RevTree,
        options: &GetOptions,
    ) -> Result<()> {
        let Some(rev) = doc.rev.clone() else { return Ok(()) };
        if options.revs {
            doc.revisions = tree.ancestry(&rev);
        }
        if options.revs_info {
            let info = tree.ancestry_stored(&rev).map(|(rev, stored)| match stored {
                None => (rev, RevStatus::Missing),
                Some(Stored { deleted: true, .. }) => (rev, RevStatus::Deleted),
                Some(_) => (rev, RevStatus::Available),
            });
            doc.meta.revs_info = Some(info.collect());
        }
        if options.local_seq {
            doc.meta.local_seq = Some(self.row.seq);
        }
        let others = |deleted| {
            let leaves = tree.leaves().into_iter();
            let others = leaves.filter(|leaf| leaf.stored.deleted == deleted && leaf.rev != rev);
            others.map(|leaf| leaf.rev).collect()
        };
        if options.conflicts {
            doc.meta.conflicts = others(false);
        }
        if options.deleted_conflicts {
            doc.meta.deleted_conflicts = others(true);
        }
        if options.attachments {
            // What the newest of these revisions had, the caller has.
            let known = options.atts_since.iter().filter(|since| {
                tree.ancestry(&rev).is_some_and(|path| {
                    let age = path.start.checked_sub(since.pos);
                    let id = age.and_then(|age| path.ids.get(usize::try_from(age).ok()?));
                    id == Some(&since.id)
                })
            });
            let since = known.map(|rev| rev.pos).max().unwrap_or(0);
            for (attachment, stored) in doc.attachments.iter_mut().zip(&body.attachments) {
                if stored.revpos > since {
                    let as_stored = options.att_encoding_info;
                    let data = attachments::read_all(self.snapshot, self.db, stored, as_stored)?;
                    if !as_stored {
                        attachment.encoding = Encoding::Identity;
                        attachment.encoded_length = None;
                    }
                    attachment.data = AttachmentData::Inline(data);
                }
            }
        }
        Ok(())
    }
}

/// A document with stubs for attachments.
fn document(id: &str, rev: Rev, deleted: bool, body: &BodyRow) -> Document {
    let attachments = body.attachments.iter().map(|stored| Attachment {
        name: stored.name.clone(),
        content_type: stored.content_type.clone(),
        revpos: Some(stored.revpos),
        digest: Some(stored.digest),
        length: Some(stored.length),
        encoding: stored.encoding,
        encoded_length: (stored.encoding != Encoding::Identity).then_some(stored.stored_length),
        data: AttachmentData::Stub,
    });
    Document {
        id: Some(id.to_owned()),
        rev: Some(rev),
        deleted,
        revisions: None,
        attachments: attachments.collect(),
        meta: Meta::default(),
        body: body.body(),
    }
}
