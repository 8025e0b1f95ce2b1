//! One batch of changes: what of it the target lacks, read from the source and written to the target.
//!
//! All of it may be done again without harm, so a batch that fails is simply repeated: what has come
//! across meanwhile is no longer missing.

use super::backoff::is_transient;
use super::events::{Control, Denied, same_error};
use super::{Call, ReplicateOptions};
use crate::adapter::{Adapter, Location, Part, Parts};
use crate::env;
use futures_util::{StreamExt, TryStreamExt, stream};
use settee_core::options::{AttachmentOptions, BulkGetItem, Durability, GetOptions, WriteOptions};
use settee_core::wire::{Change, DocError, RevResult, RevsByDoc, Seq};
use settee_core::{
    Attachment, AttachmentData, Document, Encoding, Error, ErrorKind, Result, Rev, Revisions,
};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Attachments of a document that are larger than this together are not held in memory: they go
/// through in pieces, in a request of their own.
const STREAMED: u64 = 256 * 1024;

/// What a document takes in memory besides its body, roughly.
const OVERHEAD: usize = 256;

/// Changes that go through together.
pub(crate) struct Batch {
    pub(crate) changes: Vec<Change>,
    /// When these are done, everything up to here is.
    pub(crate) through: Seq,
    /// Whether these are the newest changes.
    pub(crate) caught_up: bool,
}

/// A batch that is at the target.
pub(crate) struct Done {
    pub(crate) through: Seq,
    pub(crate) caught_up: bool,
    /// How many changes there were.
    pub(crate) changes: usize,
}

pub(crate) struct Transfer {
    pub(crate) source: Arc<dyn Adapter>,
    pub(crate) target: Arc<dyn Adapter>,
    pub(crate) control: Arc<Control>,
    pub(crate) options: Arc<ReplicateOptions>,
    pub(crate) call: Call,
    /// How much is written at once. Becomes less when that turns out to be too much.
    pub(crate) bytes: AtomicUsize,
    /// Whether the target has nothing of what is being read, so that there is no use in asking.
    pub(crate) target_empty: AtomicBool,
}

/// A revision that the target lacks, and revisions it has that it may descend from.
#[derive(Clone)]
struct Wanted {
    id: String,
    rev: Rev,
    ancestors: Arc<[Rev]>,
}

/// Why a batch is not done.
enum Fail {
    /// It was too much at once; the next attempt makes smaller pieces.
    TooMuch,
    Error(Error),
}

impl From<Error> for Fail {
    fn from(error: Error) -> Fail {
        Fail::Error(error)
    }
}

impl Transfer {
    /// Brings a batch to the target.
    pub(crate) async fn batch(&self, batch: Batch) -> Result<Done> {
        let Batch { changes, through, caught_up } = batch;
        let done = Done { through, caught_up, changes: changes.len() };
        let mut revs = RevsByDoc::new();
        for change in changes {
            revs.entry(change.id).or_default().extend(change.revs);
        }
        if revs.is_empty() {
            return Ok(done);
        }
        let mut failures = 0;
        loop {
            match self.copy(&revs, failures == 0).await {
                Ok(()) => return Ok(done),
                Err(Fail::TooMuch) => {}
                Err(Fail::Error(error))
                    if is_transient(&error) && failures < self.options.retries =>
                {
                    tracing::debug!(%error, "a batch is tried again");
                    env::sleep(self.options.backoff.wait(failures)).await;
                    failures += 1;
                }
                Err(Fail::Error(error)) => return Err(error),
            }
        }
    }

    async fn copy(&self, revs: &RevsByDoc, first: bool) -> Result<(), Fail> {
        let mut wanted = self.missing(revs, first).await?;
        // Twice: an attachment that the target was thought to have may be gone from it, and a
        // revision may give way to the next while it is read.
        for last in [false, true] {
            if wanted.is_empty() {
                break;
            }
            wanted = self.round(wanted, last).await?;
        }
        Ok(())
    }

    /// What of these revisions the target does not have.
    async fn missing(&self, revs: &RevsByDoc, first: bool) -> Result<Vec<Wanted>> {
        let checked = revs.values().map(Vec::len).sum::<usize>() as u64;
        let mut wanted = Vec::new();
        if first && self.target_empty.load(Ordering::Relaxed) {
            let none: Arc<[Rev]> = Arc::new([]);
            for (id, revs) in revs {
                wanted.extend(revs.iter().map(|rev| Wanted {
                    id: id.clone(),
                    rev: rev.clone(),
                    ancestors: none.clone(),
                }));
            }
        } else {
            for (id, missing) in self.call.run(self.target.revs_diff(revs)).await? {
                let ancestors: Arc<[Rev]> = missing.possible_ancestors.into();
                wanted.extend(missing.missing.into_iter().map(|rev| Wanted {
                    id: id.clone(),
                    rev,
                    ancestors: ancestors.clone(),
                }));
            }
        }
        if first {
            let found = wanted.len() as u64;
            self.control.count(|counters| {
                counters.missing_checked += checked;
                counters.missing_found += found;
            });
        }
        Ok(wanted)
    }

    /// Reads revisions and writes them. Returns those that have to be tried once more.
    async fn round(&self, wanted: Vec<Wanted>, last: bool) -> Result<Vec<Wanted>, Fail> {
        let mut writer = Writer::new(self, last);
        let mut small = Vec::new();
        let mut large = Vec::new();
        let mut design = Vec::new();
        let mut vanished = Vec::new();

        let options = GetOptions {
            revs: true,
            latest: true,
            att_encoding_info: true,
            ..GetOptions::default()
        };
        let items = wanted.iter().map(|wanted| wanted.item(false)).collect();
        let mut found = self.call.run(self.source.bulk_get(items, &options)).await?;
        // Two revisions may have become one by now.
        let mut seen = HashSet::new();
        let mut asked = wanted.iter().peekable();
        while let Some((_, results)) = self.call.run(found.try_next()).await? {
            let Some(want) = asked.next() else { break };
            let alone = asked.peek().is_none_or(|next| next.id != want.id) && seen.is_empty();
            for result in results {
                let doc = match result {
                    RevResult::Found(doc) => *doc,
                    RevResult::Missing(DocError { error, .. }) => {
                        if is_transient(&error) {
                            return Err(error.into());
                        }
                        vanished.push(want.clone());
                        continue;
                    }
                };
                let Some(rev) = doc.rev.clone() else { continue };
                if !alone && !seen.insert(rev) {
                    continue;
                }
                let needed = needed(&doc, &want.ancestors);
                let wait = match needed {
                    // Each for itself: they are refused for reasons of their own.
                    _ if want.id.starts_with("_design/") && needed.is_none() => &mut design,
                    None => {
                        writer.push(doc, want).await?;
                        continue;
                    }
                    Some(bytes) if bytes <= STREAMED => {
                        small.push((want.revised(&doc), bytes));
                        continue;
                    }
                    Some(_) => &mut large,
                };
                wait.push((doc, want.clone()));
            }
            if asked.peek().is_none_or(|next| next.id != want.id) {
                seen.clear();
            }
        }
        drop(found);
        self.small(small, &mut writer, &mut vanished).await?;
        writer.flush().await?;
        for (doc, want) in large.into_iter().chain(design) {
            writer.put(doc, &want).await?;
        }
        let mut again = writer.finish();
        if last {
            for want in vanished {
                // Purged, most likely: it is of no use to wait for it.
                tracing::warn!(id = want.id, rev = %want.rev, "the source lists a revision that it does not have");
            }
        } else {
            again.extend(vanished);
        }
        Ok(again)
    }

    /// Reads documents whose attachments are small, with these, and hands them to the writer.
    async fn small(
        &self,
        small: Vec<(Wanted, u64)>,
        writer: &mut Writer<'_>,
        vanished: &mut Vec<Wanted>,
    ) -> Result<(), Fail> {
        let options = GetOptions {
            revs: true,
            attachments: true,
            att_encoding_info: true,
            ..GetOptions::default()
        };
        let mut small = small.into_iter().peekable();
        while small.peek().is_some() {
            let limit = self.bytes.load(Ordering::Relaxed) as u64;
            let mut group = Vec::new();
            let mut bytes = 0;
            while let Some((want, more)) =
                small.next_if(|(_, more)| group.is_empty() || bytes + more <= limit)
            {
                bytes += more;
                group.push(want);
            }
            let items = group.iter().map(|want| want.item(true)).collect();
            let mut found = self.call.run(self.source.bulk_get(items, &options)).await?;
            let mut asked = group.into_iter();
            while let Some((_, results)) = self.call.run(found.try_next()).await? {
                let Some(want) = asked.next() else { break };
                for result in results {
                    match result {
                        RevResult::Found(doc) => writer.push(*doc, &want).await?,
                        RevResult::Missing(DocError { error, .. }) if is_transient(&error) => {
                            return Err(error.into());
                        }
                        RevResult::Missing(_) => vanished.push(want.clone()),
                    }
                }
            }
        }
        Ok(())
    }

    /// The contents of attachments that follow, as they are read from the source. What goes wrong
    /// there is noted: the target's answer tells nothing of it.
    fn parts(&self, doc: &Document, stored: bool, watch: &Arc<Watch>) -> Parts {
        let id = doc.id.clone().unwrap_or_default();
        let rev = doc.rev.clone();
        let follows = doc.attachments.iter().filter(|att| att.data == AttachmentData::Follows);
        let follows: Vec<Attachment> = follows.cloned().collect();
        let (source, watch) = (self.source.clone(), watch.clone());
        let parts = stream::iter(follows).then(move |attachment| {
            let (source, watch) = (source.clone(), watch.clone());
            let (id, rev) = (id.clone(), rev.clone());
            async move {
                let options = AttachmentOptions { rev, range: None, accept_gzip: stored };
                let reader = source
                    .attachment(&id, &attachment.name, &options)
                    .await
                    .map_err(|error| watch.note(error))?;
                if reader.encoding != attachment.encoding {
                    watch.recoded.store(true, Ordering::Relaxed);
                    return Err(watch.note(cut_short()));
                }
                let length = match attachment.encoding {
                    Encoding::Identity => attachment.length,
                    Encoding::Gzip => attachment.encoded_length,
                };
                let state = (reader.body, length, watch);
                let body = stream::try_unfold(state, |(mut body, left, watch)| async move {
                    let bytes = body.try_next().await.map_err(|error| watch.note(error))?;
                    watch.pieces.fetch_add(1, Ordering::Relaxed);
                    match (bytes, left) {
                        (None, None | Some(0)) => Ok(None),
                        // Not every connection that breaks says so.
                        (None, Some(_)) => Err(watch.note(cut_short())),
                        (Some(bytes), left) => {
                            let left = match left.map(|left| left.checked_sub(bytes.len() as u64)) {
                                Some(None) => return Err(watch.note(cut_short())),
                                Some(left) => left,
                                None => None,
                            };
                            Ok(Some((bytes, (body, left, watch))))
                        }
                    }
                });
                Ok(Part { name: Some(attachment.name), body: body.boxed() })
            }
        });
        parts.boxed()
    }

    fn write_options(&self) -> WriteOptions {
        // What is written here is made durable before a checkpoint speaks of it, and not before. A
        // server, however, may lose what it has not made durable, come back, and nobody notices.
        let durability = match self.target.location() {
            Location::Local { .. } => Durability::Deferred,
            Location::Remote { .. } => Durability::Flush,
        };
        WriteOptions { new_edits: false, durability }
    }
}

fn cut_short() -> Error {
    Error::new(ErrorKind::Internal, "An attachment is not as long as it should be.")
}

/// What goes on in the source while the target takes attachments.
#[derive(Default)]
struct Watch {
    pieces: AtomicU64,
    /// Whether the source gives bytes in another encoding than they are stored in.
    recoded: AtomicBool,
    failed: Mutex<Option<Error>>,
}

impl Watch {
    fn note(&self, error: Error) -> Error {
        let same = same_error(&error);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        same
    }

    fn failed(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Wanted {
    fn item(&self, attachments: bool) -> BulkGetItem {
        BulkGetItem {
            id: self.id.clone(),
            rev: Some(self.rev.clone()),
            atts_since: if attachments { self.ancestors.to_vec() } else { Vec::new() },
        }
    }

    /// The revision that was found, instead of the one that was asked for.
    fn revised(&self, doc: &Document) -> Wanted {
        let rev = doc.rev.clone().unwrap_or_else(|| self.rev.clone());
        Wanted { rev, ..self.clone() }
    }
}

/// The generation of the newest of these revisions that a revision descends from.
fn known_since(path: Option<&Revisions>, ancestors: &[Rev]) -> u64 {
    let Some(path) = path else { return 0 };
    let known = ancestors.iter().filter(|ancestor| {
        let age = path.start.checked_sub(ancestor.pos).and_then(|age| usize::try_from(age).ok());
        age.and_then(|age| path.ids.get(age)) == Some(&ancestor.id)
    });
    known.map(|ancestor| ancestor.pos).max().unwrap_or(0)
}

fn is_needed(attachment: &Attachment, since: u64) -> bool {
    attachment.data == AttachmentData::Stub && attachment.revpos.is_none_or(|revpos| revpos > since)
}

/// How many bytes of attachments the target needs with a document; `None` if it has them all.
fn needed(doc: &Document, ancestors: &[Rev]) -> Option<u64> {
    if doc.attachments.is_empty() {
        return None;
    }
    let since = known_since(doc.revisions.as_ref(), ancestors);
    let needed = doc.attachments.iter().filter(|attachment| is_needed(attachment, since));
    // One of unknown length is taken for a long one.
    needed
        .map(|att| att.encoded_length.or(att.length).unwrap_or(STREAMED + 1))
        .reduce(u64::saturating_add)
}

/// Collects documents and writes them when there are enough.
struct Writer<'t> {
    transfer: &'t Transfer,
    /// Whether what fails now is not tried again.
    last: bool,
    docs: Vec<Document>,
    wanted: Vec<(Rev, Arc<[Rev]>)>,
    bytes: usize,
    again: Vec<Wanted>,
}

impl<'t> Writer<'t> {
    fn new(transfer: &'t Transfer, last: bool) -> Writer<'t> {
        let (docs, wanted, again) = (Vec::new(), Vec::new(), Vec::new());
        Writer { transfer, last, docs, wanted, bytes: 0, again }
    }

    async fn push(&mut self, doc: Document, want: &Wanted) -> Result<(), Fail> {
        let inline = doc.attachments.iter().map(|attachment| match &attachment.data {
            AttachmentData::Inline(data) => data.len(),
            _ => 0,
        });
        let bytes = doc.body.text().len() + inline.sum::<usize>() + OVERHEAD;
        let limit = self.transfer.bytes.load(Ordering::Relaxed);
        if !self.docs.is_empty() && self.bytes + bytes > limit {
            self.flush().await?;
        }
        self.bytes += bytes;
        let rev = doc.rev.clone().unwrap_or_else(|| want.rev.clone());
        self.wanted.push((rev, want.ancestors.clone()));
        self.docs.push(doc);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Fail> {
        if self.docs.is_empty() {
            return Ok(());
        }
        let Transfer { target, control, call, .. } = self.transfer;
        let bytes = std::mem::take(&mut self.bytes);
        let docs = std::mem::take(&mut self.docs);
        let wanted = std::mem::take(&mut self.wanted);
        let count = docs.len() as u64;
        let only = match &docs[..] {
            [doc] => Some(doc.id.clone().unwrap_or_default()),
            _ => None,
        };
        control.count(|counters| {
            counters.docs_read += count;
            counters.bulk_get_docs += count;
            counters.bulk_get_attempts += count;
        });
        let results = match call.run(target.bulk_docs(docs, &self.transfer.write_options())).await {
            Ok(results) => results,
            Err(error) => {
                let too_large =
                    matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::DocumentTooLarge);
                return match only {
                    Some(id) if too_large => {
                        let rev = wanted.into_iter().next().map(|(rev, _)| rev);
                        control.deny(Denied { id, rev, error: Arc::new(error) });
                        Ok(())
                    }
                    None if too_large || error.kind() == ErrorKind::Timeout => {
                        // Next time half of it.
                        self.transfer.bytes.fetch_min((bytes / 2).max(1), Ordering::Relaxed);
                        Err(if too_large { Fail::TooMuch } else { error.into() })
                    }
                    _ => Err(error.into()),
                };
            }
        };
        let mut written = 0;
        for (result, (rev, ancestors)) in results.into_iter().zip(wanted) {
            match result {
                Ok(_) => written += 1,
                Err(failed) => {
                    let want = Wanted { id: failed.id.clone(), rev, ancestors };
                    self.refused(failed.error, want)?;
                }
            }
        }
        control.count(|counters| counters.docs_written += written);
        Ok(())
    }

    /// Writes one document in a request of its own, with the attachments that the target needs.
    async fn put(&mut self, doc: Document, want: &Wanted) -> Result<(), Fail> {
        let Transfer { target, control, call, .. } = self.transfer;
        let since = known_since(doc.revisions.as_ref(), &want.ancestors);
        let want = want.revised(&doc);
        control.count(|counters| counters.docs_read += 1);
        // As stored first; should the source not give the bytes so, as content.
        for stored in [true, false] {
            let mut doc = doc.clone();
            let mut follow = false;
            for attachment in doc.attachments.iter_mut().filter(|att| is_needed(att, since)) {
                attachment.data = AttachmentData::Follows;
                follow = true;
                if !stored {
                    attachment.encoding = Encoding::Identity;
                    attachment.encoded_length = None;
                }
            }
            let watch = Arc::new(Watch::default());
            let parts = follow.then(|| self.transfer.parts(&doc, stored, &watch));
            let options = self.transfer.write_options();
            let written = target.put(doc, parts, &options);
            let written = call.run_while(written, || watch.pieces.load(Ordering::Relaxed)).await;
            match (watch.failed(), written) {
                (_, Ok(_)) => control.count(|counters| counters.docs_written += 1),
                (Some(_), _) if stored && watch.recoded.load(Ordering::Relaxed) => continue,
                // The revision has given way to its successor.
                (Some(error), _) if error.is_not_found() && !self.last => self.again.push(want),
                (Some(error), _) if error.is_not_found() => {
                    let error = Error::new(ErrorKind::Internal, "a document changes all the time");
                    return Err(error.into());
                }
                (Some(error), _) => return Err(error.into()),
                (None, Err(error)) => self.refused(error, want)?,
            }
            break;
        }
        Ok(())
    }

    /// The target does not take a document.
    fn refused(&mut self, error: Error, want: Wanted) -> Result<(), Fail> {
        match error.kind() {
            // What was thought to be there is not: everything, then.
            ErrorKind::MissingStub if !self.last => {
                self.again.push(Wanted { ancestors: Arc::new([]), ..want });
                Ok(())
            }
            // The database is gone, or the target is unwell.
            ErrorKind::NotFound => Err(error.into()),
            _ if is_transient(&error) => Err(error.into()),
            _ => {
                let Wanted { id, rev, .. } = want;
                self.transfer.control.deny(Denied { id, rev: Some(rev), error: Arc::new(error) });
                Ok(())
            }
        }
    }

    fn finish(self) -> Vec<Wanted> {
        self.again
    }
}
