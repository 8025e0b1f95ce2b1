//! The changes feed of a server, which outlives its connections.
//!
//! A feed first reads what there is, in one reply; a live one then follows with `feed=continuous`.
//! Whatever breaks, it begins again behind the last change it has handed out: so none is lost, and
//! some may come twice.

use super::database::Shared;
use super::http::{Call, bad_reply};
use super::retry::Backoff;
use super::rows::{LineReader, RowReader};
use super::runtime::with_runtime;
use super::url::encode;
use crate::adapter::{ChangesBatch, ChangesStream};
use futures_util::{StreamExt, stream};
use settee_core::json;
use settee_core::options::{ChangesOptions, Filter, Since, Style};
use settee_core::time::rfc3339;
use settee_core::wire::{Change, Seq, row_error};
use settee_core::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

/// How often in a row a feed that is not live is begun again.
const ATTEMPTS: u32 = 5;

/// The shortest heartbeat that is asked for.
const MIN_HEARTBEAT: Duration = Duration::from_millis(10);

/// Parameters that are not a filter function's to set.
const PARAMETERS: [&str; 14] = [
    "attachments",
    "conflicts",
    "descending",
    "feed",
    "filter",
    "heartbeat",
    "include_docs",
    "last-event-id",
    "limit",
    "return",
    "seq_interval",
    "since",
    "style",
    "timeout",
];

/// Reads changes.
pub(crate) async fn changes(db: Arc<Shared>, options: ChangesOptions) -> Result<ChangesStream> {
    let left = options.limit;
    let mut feed = Feed {
        db,
        since: options.since.clone(),
        options,
        left,
        phase: Phase::Lost,
        held: None,
        ahead: None,
        backoff: Backoff::new(),
    };
    if left == Some(0) {
        let batch = feed.nothing().await?;
        return Ok(stream::iter([Ok(batch)]).boxed());
    }
    if feed.since == Since::Now {
        // Now is when one asks, not when the first batch is taken.
        let now = feed.now().await?;
        let batch = ChangesBatch { changes: Vec::new(), last_seq: now.clone(), pending: 0 };
        feed.since = Since::Seq(now);
        feed.phase = if feed.options.live { Phase::CaughtUp } else { Phase::Ended };
        let first = stream::iter([Ok(batch)]);
        return Ok(first.chain(feed.into_stream()).boxed());
    }
    feed.begin(None).await?;
    Ok(feed.into_stream())
}

fn last_seq(reader: &RowReader) -> Result<Seq> {
    let seq = reader.splitter.member("last_seq").and_then(|text| Seq::from_json(&text));
    seq.ok_or_else(|| bad_reply("The changes have no last sequence."))
}

enum Phase {
    /// There are rows to come in a reply.
    Reading(RowReader),
    /// Everything has been reported.
    CaughtUp,
    /// Changes come as they happen.
    Following(LineReader),
    /// The connection broke.
    Lost,
    Ended,
}

struct Feed {
    db: Arc<Shared>,
    options: ChangesOptions,
    /// Everything up to here has been handed out.
    since: Since,
    left: Option<u64>,
    phase: Phase,
    /// Rows that may be the last, which are told with more than the others.
    held: Option<Vec<Change>>,
    /// How many changes there are behind, as far as that is known.
    ahead: Option<u64>,
    /// Grows while connections break without having brought a change.
    backoff: Backoff,
}

impl Feed {
    fn into_stream(self) -> ChangesStream {
        let batches = stream::unfold(self, |mut feed| async move {
            let batch = with_runtime(Box::pin(feed.next())).await?;
            if batch.is_err() {
                feed.phase = Phase::Ended;
            }
            Some((batch, feed))
        });
        batches.boxed()
    }

    /// The request for what comes behind.
    fn call(&self, feed: &str, with_limit: bool) -> Result<Call> {
        let options = &self.options;
        let path = self.db.path("_changes");
        let mut path = path.with("feed", feed);
        path = match &self.since {
            Since::Start => path,
            Since::Now => path.with("since", "now"),
            Since::Seq(seq) => path.with("since", seq),
            Since::Time(time) => path.with("since", rfc3339(*time)),
        };
        if with_limit {
            path = path.maybe("limit", self.left);
        }
        path = path.flag("descending", options.descending);
        if options.style == Style::AllDocs {
            path = path.with("style", "all_docs");
        }
        if options.include_docs {
            path = self.db.doc_options(path.with("include_docs", true), &options.doc);
        }
        let (filter, body) = match &options.filter {
            Filter::None => (None, None),
            Filter::Design => (Some("_design"), None),
            Filter::DocIds(ids) => {
                let mut ids: Vec<&String> = ids.iter().collect();
                ids.sort_unstable();
                let body = serde_json::json!({ "doc_ids": ids });
                (Some("_doc_ids"), Some(body.to_string()))
            }
            Filter::Selector(selector) => {
                let body = serde_json::json!({ "selector": selector.to_value() });
                (Some("_selector"), Some(body.to_string()))
            }
            Filter::Function(function) => {
                let theirs = |name: &str| !PARAMETERS.contains(&name);
                for (name, value) in function.query.iter().filter(|(name, _)| theirs(name)) {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    path = path.with(&encode(name), text);
                }
                (Some(function.name.as_str()), None)
            }
        };
        let path = path.maybe("filter", filter);
        Ok(match body {
            None => Call::get(path),
            Some(body) => Call::post(path).json(body).repeat(super::http::Repeat::Safe),
        })
    }

    /// What is known without reading a change.
    async fn nothing(&self) -> Result<ChangesBatch> {
        let info = self.db.info().await?;
        let last_seq = match &self.since {
            Since::Start | Since::Time(_) => Seq::Number(0),
            Since::Now => info.update_seq.clone(),
            Since::Seq(seq) => seq.clone(),
        };
        let pending = u64::from(last_seq != info.update_seq);
        Ok(ChangesBatch { changes: Vec::new(), last_seq, pending })
    }

    /// Asks for what there is.
    async fn begin(&mut self, retries: Option<u32>) -> Result<()> {
        let mut call = self.call("normal", true)?;
        if let Some(retries) = retries {
            call = call.retries(retries);
        }
        let response = self.db.http.send(call).await?;
        let limits = self.db.limits();
        self.phase = Phase::Reading(RowReader::new(response.body, Some("results"), limits));
        self.held = None;
        Ok(())
    }

    /// Asks for what will be.
    async fn follow(&mut self) -> Result<()> {
        let heartbeat = self.options.heartbeat.unwrap_or(self.db.http.options.heartbeat);
        let heartbeat = heartbeat.max(MIN_HEARTBEAT);
        let mut call = self.call("continuous", true)?;
        // The head may come with the first sign of life.
        call = call.retries(0).wait(heartbeat * 3).idle(heartbeat * 3);
        call = call.add("heartbeat", heartbeat.as_millis());
        let response = self.db.http.send(call).await?;
        let limit = self.db.http.options.max_item;
        self.phase = Phase::Following(LineReader::new(response.body, limit));
        Ok(())
    }

    /// The next batch, across however many connections.
    async fn next(&mut self) -> Option<Result<ChangesBatch>> {
        let mut failures = 0;
        loop {
            let outcome = match &mut self.phase {
                Phase::Ended => return None,
                Phase::Reading(_) => self.read().await,
                Phase::CaughtUp => self.follow().await.map(|()| None),
                Phase::Following(_) => self.listen().await,
                Phase::Lost => self.begin(Some(0)).await.map(|()| None),
            };
            let error = match outcome {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => continue,
                Err(error) => error,
            };
            failures += 1;
            let live = self.options.live;
            let passing = matches!(
                error.kind(),
                ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::ServiceUnavailable
            ) || (error.status() >= 500 && error.kind() != ErrorKind::BadReply);
            let resumable = live || (!self.options.descending && failures < ATTEMPTS);
            match error.kind() {
                // The database is gone.
                ErrorKind::NotFound if live => {
                    self.phase = Phase::Ended;
                    return None;
                }
                _ if passing && resumable => {}
                _ => return Some(Err(error)),
            }
            tracing::debug!(%error, "a changes feed begins again");
            self.db.http.status.set(false);
            self.phase = Phase::Lost;
            super::runtime::sleep(self.backoff.next(None)).await;
        }
    }

    /// The newest sequence.
    async fn now(&mut self) -> Result<Seq> {
        // The changes behind it are none, and the filter has nothing to do.
        let path = self.db.path("_changes").with("since", "now").with("limit", 1);
        let reply = self.db.http.send(Call::get(path)).await.map_err(Error::from);
        let seq = async {
            let mut reader = RowReader::new(reply?.body, Some("results"), self.db.limits());
            reader.finish().await?;
            reader.check()?;
            last_seq(&reader)
        };
        match seq.await {
            // Long ago there was no `now`.
            Err(error) if error.kind() == ErrorKind::BadRequest => {
                Ok(self.db.info().await?.update_seq)
            }
            seq => seq,
        }
    }

    /// The next batch of what there is.
    async fn read(&mut self) -> Result<Option<ChangesBatch>> {
        let Phase::Reading(reader) = &mut self.phase else { return Ok(None) };
        let rows = match reader.next_batch(Change::parse).await {
            Ok(rows) => rows,
            Err(error) => {
                // What was held is good; after it the feed begins again.
                return match self.held.take() {
                    Some(rows) if !rows.is_empty() && !self.options.descending => {
                        self.phase = Phase::Lost;
                        Ok(Some(self.hand_out(rows, None, 1)))
                    }
                    _ => Err(error),
                };
            }
        };
        if !rows.is_empty() {
            let more = if self.options.descending { 0 } else { rows.len() as u64 };
            let Some(rows) = self.held.replace(rows) else { return Ok(None) };
            let pending = self.pending_behind(&rows).await.max(more);
            return Ok(Some(self.hand_out(rows, None, pending)));
        }
        reader.check()?;
        let last_seq = last_seq(reader)?;
        let pending = reader.splitter.member("pending").and_then(|text| text.parse().ok());
        let rows = self.held.take().unwrap_or_default();
        let left = self.left.map(|left| left.saturating_sub(rows.len() as u64));
        // Who does not say how many there are may have more, if there were as many as asked for.
        let pending = pending.unwrap_or(u64::from(left == Some(0)));
        self.phase = match self.options.live && left != Some(0) {
            true => Phase::CaughtUp,
            false => Phase::Ended,
        };
        Ok(Some(self.hand_out(rows, Some(last_seq), pending)))
    }

    /// How many changes there are behind some that are not the last. The reply says so at its end
    /// only; so this is asked for once, and then counted.
    async fn pending_behind(&mut self, rows: &[Change]) -> u64 {
        if self.options.descending {
            return 0;
        }
        if let Some(ahead) = self.ahead {
            return ahead.saturating_sub(rows.len() as u64);
        }
        let Some(last) = rows.last() else { return 0 };
        let path = self.db.path("_changes").with("since", &last.seq).with("limit", 1);
        let count = async {
            let reply: serde_json::Value = self.db.http.fetch(Call::get(path).retries(0)).await?;
            let rows = reply.get("results").and_then(|rows| rows.as_array()).map_or(0, Vec::len);
            let pending = reply.get("pending").and_then(|pending| pending.as_u64());
            Ok::<_, Error>(pending.unwrap_or(0) + rows as u64)
        };
        count.await.unwrap_or(0)
    }

    fn hand_out(&mut self, changes: Vec<Change>, last: Option<Seq>, pending: u64) -> ChangesBatch {
        let last_row = changes.last().map(|change| change.seq.clone());
        let last_seq = last.or(last_row).unwrap_or(match &self.since {
            Since::Seq(seq) => seq.clone(),
            _ => Seq::Number(0),
        });
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(changes.len() as u64);
        }
        if !changes.is_empty() {
            self.backoff = Backoff::new();
        }
        self.since = Since::Seq(last_seq.clone());
        self.ahead = Some(pending);
        ChangesBatch { changes, last_seq, pending }
    }

    /// The next batch of what happens.
    async fn listen(&mut self) -> Result<Option<ChangesBatch>> {
        let limits = self.db.limits();
        let Phase::Following(reader) = &mut self.phase else { return Ok(None) };
        let mut rows = Vec::new();
        let mut end = None;
        let each = |line: &[u8]| {
            // An empty line says that the server is still there.
            if line.is_empty() {
                return Ok(());
            }
            match Change::parse(line, &limits) {
                Ok(change) => rows.push(change),
                Err(error) => end = Some(last_line(line, error)?),
            }
            Ok(())
        };
        let more = match reader.next_lines(each).await {
            Ok(more) => more,
            // Rows that came before are good.
            Err(_) if !rows.is_empty() => None,
            Err(error) => return Err(error),
        };
        if more.is_none() || end.is_some() {
            // The server has ended the feed, as some do after a while.
            self.phase = Phase::Lost;
            if rows.is_empty() && end.is_some() {
                super::runtime::sleep(self.backoff.next(None)).await;
            }
        }
        let left = self.left.map(|left| left.saturating_sub(rows.len() as u64));
        if left == Some(0) {
            self.phase = Phase::Ended;
        }
        if rows.is_empty() {
            return match end.is_none() && more.is_none() {
                true => Err(Error::new(ErrorKind::Unreachable, "The feed's connection was lost.")),
                false => Ok(None),
            };
        }
        Ok(Some(self.hand_out(rows, end, u64::from(more == Some(true)))))
    }
}

/// The sequence in the line that ends a feed.
fn last_line(line: &[u8], otherwise: Error) -> Result<Seq> {
    let Ok(text) = json::normalize(line, &json::Limits::default()) else { return Err(otherwise) };
    let text = std::str::from_utf8(&text).unwrap_or_default();
    for (name, value) in json::members(text) {
        match name.as_ref() {
            "last_seq" => return Seq::from_json(value).ok_or(otherwise),
            "error" => return Err(row_error(text)),
            _ => {}
        }
    }
    Err(otherwise)
}
