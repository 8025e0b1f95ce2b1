//! Checkpoints: a `_local` document at either end says how far a replication has come.
//!
//! Each run has a session id, and both documents list the sessions that wrote them, newest first,
//! with the sequence each reached. Where both know a session, everything up to its sequence is at the
//! target, whatever has happened to either document since. A database that was deleted, restored or
//! replaced lacks the session, and then the replication starts from further back or from the
//! beginning. That is CouchDB's format and its rule.

use super::backoff::is_transient;
use super::events::Counters;
use super::id::VERSION;
use super::{Call, dates};
use crate::adapter::Adapter;
use crate::env;
use futures_util::future::{try_join, try_join4};
use serde_json::{Map, Value, json};
use settee_core::options::{GetOptions, WriteOptions};
use settee_core::wire::Seq;
use settee_core::{Document, Error, ErrorKind, Result, Rev};
use std::sync::Arc;

/// How many sessions the history keeps.
const SESSIONS: usize = 50;

/// How often a checkpoint is written again because somebody else wrote it meanwhile.
const ATTEMPTS: usize = 3;

/// Says in the target's document that the source takes no checkpoints, and which source that is: then
/// there is only one document to go by.
const READ_ONLY: &str = "read_only_source";

/// One end's document.
struct Log {
    db: Arc<dyn Adapter>,
    rev: Option<Rev>,
    body: Map<String, Value>,
}

impl Log {
    async fn read(db: Arc<dyn Adapter>, id: &str, call: &Call) -> Result<Log> {
        let found = call.run(db.get(id, &GetOptions::default())).await;
        match found {
            Ok(doc) => {
                let body = match doc.body.to_value() {
                    Value::Object(body) => body,
                    _ => Map::new(),
                };
                Ok(Log { db, rev: doc.rev, body })
            }
            Err(error) if error.is_not_found() && error.reason() != "Database does not exist." => {
                Ok(Log { db, rev: None, body: Map::new() })
            }
            Err(error) => Err(error),
        }
    }

    fn history(&self) -> &[Value] {
        self.body.get("history").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

/// The checkpoint of a replication that is running.
pub(crate) struct Checkpoint {
    id: String,
    session: String,
    call: Call,
    source: Log,
    target: Log,
    source_created: String,
    target_created: String,
    target_empty: bool,
    /// Whether checkpoints are wanted at all.
    enabled: bool,
    /// Whether the source refuses to keep checkpoints.
    read_only: bool,
    /// Where this run began.
    start: Seq,
    start_time: u64,
    /// The sessions before this one.
    older: Vec<Value>,
    /// What has been written last.
    saved: Seq,
    written: Option<Map<String, Value>>,
}

impl Checkpoint {
    /// Reads both ends' documents, and finds where to begin: at a sequence that both agree on.
    pub(crate) async fn open(
        source: Arc<dyn Adapter>,
        target: Arc<dyn Adapter>,
        id: &str,
        enabled: bool,
        since: Option<&Seq>,
        call: Call,
    ) -> Result<Checkpoint> {
        let id = format!("_local/{id}");
        let (source_info, target_info) =
            try_join(call.run(source.info()), call.run(target.info())).await?;
        let empty = |db| Log { db, rev: None, body: Map::new() };
        let (source, target) = match enabled {
            true => try_join(Log::read(source, &id, &call), Log::read(target, &id, &call)).await?,
            false => (empty(source), empty(target)),
        };
        let created = source_info.instance_start_time;
        let common = match target.body.get(READ_ONLY) {
            Some(source) if *source == created.as_str() => {
                Some((seq(&target.body, "source_last_seq"), target.history().to_vec()))
            }
            _ => common_ancestor(&source.body, &target.body),
        };
        let (saved, older) = common.unwrap_or((Seq::Number(0), Vec::new()));
        let start = match &saved {
            Seq::Number(0) => since.cloned().unwrap_or(Seq::Number(0)),
            seq => seq.clone(),
        };
        Ok(Checkpoint {
            id,
            session: env::hex(&env::random::<16>()?),
            call,
            source,
            target,
            source_created: created,
            target_created: target_info.instance_start_time,
            target_empty: target_info.doc_count + target_info.doc_del_count == 0,
            enabled,
            read_only: false,
            start,
            start_time: env::now_micros(),
            older,
            saved,
            written: None,
        })
    }

    /// Where to begin.
    pub(crate) fn start(&self) -> &Seq {
        &self.start
    }

    /// Whether there was nothing at the target yet.
    pub(crate) fn target_is_empty(&self) -> bool {
        self.target_empty
    }

    /// Where the next run would begin.
    pub(crate) fn saved(&self) -> &Seq {
        &self.saved
    }

    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    /// The sessions, newest first, as they were written last.
    pub(crate) fn history(&self) -> Vec<Value> {
        match &self.written {
            Some(body) => body.get("history").and_then(Value::as_array).cloned(),
            None => None,
        }
        .unwrap_or_else(|| self.older.clone())
    }

    /// Says at both ends that everything up to a sequence has come across.
    ///
    /// # Errors
    ///
    /// Those of both ends; `Internal` if one of them is not the database it was.
    pub(crate) async fn save(&mut self, seq: &Seq, counters: &Counters) -> Result<()> {
        if !self.enabled || *seq == self.saved {
            return Ok(());
        }
        let (source, target) = (self.source.db.clone(), self.target.db.clone());
        // What the checkpoint speaks of must outlast it: at the target the documents, at the source
        // the sequences.
        let commit_source = async {
            let committed = self.call.run(source.ensure_full_commit()).await;
            committed.or_else(|error| if is_refusal(&error) { Ok(()) } else { Err(error) })
        };
        let (.., source_info, target_info) = try_join4(
            commit_source,
            self.call.run(target.ensure_full_commit()),
            self.call.run(source.info()),
            self.call.run(target.info()),
        )
        .await?;
        let same = |before: &str, now: &str| before == now || before == "0" || now == "0";
        for (end, before, now) in [
            ("source", &self.source_created, &source_info.instance_start_time),
            ("target", &self.target_created, &target_info.instance_start_time),
        ] {
            if !same(before, now) {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("The {end} database has been replaced since the last checkpoint."),
                ));
            }
        }
        let body = self.body(seq, counters);
        if !self.read_only {
            match write(&mut self.source, &self.id, &self.session, &body, &self.call).await {
                Err(error) if is_refusal(&error) => self.read_only = true,
                result => result?,
            }
        }
        let mut body = body;
        if self.read_only {
            body.insert(READ_ONLY.to_owned(), Value::String(self.source_created.clone()));
        }
        write(&mut self.target, &self.id, &self.session, &body, &self.call).await?;
        self.saved = seq.clone();
        self.written = Some(body);
        Ok(())
    }

    fn body(&self, seq: &Seq, counters: &Counters) -> Map<String, Value> {
        let this = json!({
            "session_id": self.session,
            "start_time": dates::rfc1123(self.start_time),
            "end_time": dates::rfc1123(env::now_micros()),
            "start_last_seq": self.start,
            "end_last_seq": seq,
            "recorded_seq": seq,
            "missing_checked": counters.missing_checked,
            "missing_found": counters.missing_found,
            "docs_read": counters.docs_read,
            "docs_written": counters.docs_written,
            "doc_write_failures": counters.doc_write_failures,
            "bulk_get_docs": counters.bulk_get_docs,
            "bulk_get_attempts": counters.bulk_get_attempts,
        });
        let history: Vec<_> = [this].into_iter().chain(self.older.iter().cloned()).collect();
        let mut body = Map::new();
        body.insert("session_id".to_owned(), Value::String(self.session.clone()));
        body.insert("source_last_seq".to_owned(), json!(seq));
        body.insert("replication_id_version".to_owned(), Value::from(VERSION));
        body.insert(
            "history".to_owned(),
            Value::Array(history.into_iter().take(SESSIONS).collect()),
        );
        body
    }
}

/// Writes a checkpoint. Another replication with the same id may have written its own meanwhile: both
/// are true, so its sessions are kept behind ours.
async fn write(
    log: &mut Log,
    id: &str,
    session: &str,
    body: &Map<String, Value>,
    call: &Call,
) -> Result<()> {
    let mut body = body.clone();
    for attempt in 1.. {
        let mut doc = Document::from_value(Value::Object(body.clone()))?;
        doc.id = Some(id.to_owned());
        doc.rev = log.rev.clone();
        match call.run(log.db.put(doc, None, &WriteOptions::default())).await {
            Ok(saved) => {
                log.rev = Some(saved.rev);
                break;
            }
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
        let known = log.rev.take();
        *log = Log::read(log.db.clone(), id, call).await?;
        if log.rev.is_none() && known.is_some() {
            let reason = "The checkpoint is gone, and so may be what it speaks of.";
            return Err(Error::new(ErrorKind::Internal, reason));
        }
        let history = body.get_mut("history").and_then(Value::as_array_mut);
        if let Some(history) = history {
            let others = log.history().iter().filter(|other| session_of(other) != Some(session));
            let others: Vec<_> = others.filter(|other| !history.contains(other)).cloned().collect();
            history.splice(history.len().min(1).., others);
            history.truncate(SESSIONS);
        }
    }
    Ok(())
}

/// Whether somebody may not do what they asked for, and it is no use to ask again.
fn is_refusal(error: &Error) -> bool {
    !is_transient(error)
        && matches!(
            error.kind(),
            ErrorKind::Unauthorized | ErrorKind::Forbidden | ErrorKind::MethodNotAllowed
        )
}

fn session_of(entry: &Value) -> Option<&str> {
    entry.get("session_id")?.as_str()
}

fn seq(body: &Map<String, Value>, member: &str) -> Seq {
    let seq = body.get(member).cloned().unwrap_or(Value::Null);
    serde_json::from_value(seq).unwrap_or(Seq::Number(0))
}

/// The newest sequence that both documents agree on, and the history up to there.
fn common_ancestor(
    source: &Map<String, Value>,
    target: &Map<String, Value>,
) -> Option<(Seq, Vec<Value>)> {
    let history = |body: &Map<String, Value>| match body.get("history") {
        Some(Value::Array(history)) => history.clone(),
        _ => Vec::new(),
    };
    let (ours, theirs) = (history(source), history(target));
    let session = |body: &Map<String, Value>| body.get("session_id").cloned();
    if session(source).is_some() && session(source) == session(target) {
        return Some((seq(source, "source_last_seq"), ours));
    }
    let has = |entries: &[Value], id: Option<&str>| {
        id.is_some() && entries.iter().any(|entry| session_of(entry) == id)
    };
    let recorded = |entry: &Value| match entry {
        Value::Object(entry) => seq(entry, "recorded_seq"),
        _ => Seq::Number(0),
    };
    for n in 0..ours.len().min(theirs.len()) {
        if has(&theirs[n..], session_of(&ours[n])) {
            return Some((recorded(&ours[n]), ours[n + 1..].to_vec()));
        }
        if has(&ours[n + 1..], session_of(&theirs[n])) {
            return Some((recorded(&theirs[n]), theirs[n + 1..].to_vec()));
        }
    }
    None
}
