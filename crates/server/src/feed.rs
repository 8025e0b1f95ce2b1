//! The body of a feed, live or not: rows as they come, a heartbeat or an end when none come.
//!
//! Ten thousand of these must be cheap, so each is one value that is polled by its connection: no
//! task, one coarse timer, and no buffer while nothing happens.

use crate::app::App;
use crate::query::Feed as Format;
use crate::stats::OpenFeed;
use axum::body::Bytes;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use settee_core::Result;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Where rows come from, and what is said of the last.
pub(crate) trait Source: Send + Unpin + 'static {
    /// Some rows, as they come.
    type Batch;

    /// The next rows; `None` when there will be no more.
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Self::Batch>>>;

    /// Writes rows. Returns whether there are no more for the moment, so that a long poll may end.
    fn write(&mut self, batch: Self::Batch, rows: &mut RowWriter) -> bool;

    /// Writes the members of the feed's end: `"last_seq":…` and what else there is.
    fn write_end(&self, out: &mut Vec<u8>);
}

/// Puts rows into the form that a kind of feed has.
pub(crate) struct RowWriter {
    out: Vec<u8>,
    format: Format,
    /// Whether there has been a row.
    any: bool,
}

impl RowWriter {
    /// Adds a row: its JSON, and its sequence.
    pub(crate) fn row(&mut self, json: impl FnOnce(&mut Vec<u8>), seq: impl FnOnce(&mut Vec<u8>)) {
        let out = &mut self.out;
        match self.format {
            Format::Normal | Format::Longpoll => {
                if self.any {
                    out.extend_from_slice(b",\r\n");
                }
                json(out);
            }
            Format::Continuous => {
                json(out);
                out.push(b'\n');
            }
            Format::EventSource => {
                out.extend_from_slice(b"data: ");
                json(out);
                out.extend_from_slice(b"\nid: ");
                seq(out);
                out.extend_from_slice(b"\n\n");
            }
        }
        self.any = true;
    }
}

/// How long a feed waits for rows.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// Until the rows end.
    Forever,
    /// So long, then it sends a sign of life.
    Heartbeat(Duration),
    /// So long, then it ends.
    Timeout(Duration),
}

impl Patience {
    /// As CouchDB decides: a heartbeat if asked for, else an end.
    pub(crate) fn of(
        format: Format,
        heartbeat: Option<Duration>,
        timeout: Option<Duration>,
        most: Duration,
    ) -> Patience {
        match (format, heartbeat) {
            (Format::Normal, _) => Patience::Forever,
            (_, Some(heartbeat)) => Patience::Heartbeat(heartbeat.min(most)),
            (_, None) => Patience::Timeout(timeout.map_or(most, |timeout| timeout.min(most))),
        }
    }

    fn span(self) -> Option<Duration> {
        match self {
            Patience::Forever => None,
            Patience::Heartbeat(span) | Patience::Timeout(span) => Some(span),
        }
    }
}

/// The body of a feed.
pub(crate) struct Feed<S> {
    source: S,
    rows: RowWriter,
    patience: Patience,
    timer: Option<Pin<Box<Sleep>>>,
    closing: Option<BoxFuture<'static, ()>>,
    stage: Stage,
    _open: Option<OpenFeed>,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Head,
    Rows,
    Done,
}

impl<S: Source> Feed<S> {
    pub(crate) fn new(app: &App, source: S, format: Format, patience: Patience) -> Feed<S> {
        let is_live = format != Format::Normal;
        Feed {
            source,
            rows: RowWriter { out: Vec::new(), format, any: false },
            patience,
            timer: patience.span().map(|span| Box::pin(tokio::time::sleep(span))),
            closing: is_live.then(|| Box::pin(app.closing()) as BoxFuture<'static, ()>),
            stage: Stage::Head,
            _open: is_live.then(|| app.stats.open_feed()),
        }
    }

    fn end(&mut self) {
        self.stage = Stage::Done;
        (self.timer, self.closing) = (None, None);
        let out = &mut self.rows.out;
        match self.rows.format {
            Format::Normal | Format::Longpoll => out.extend_from_slice(b"\n],\n"),
            Format::Continuous => out.push(b'{'),
            Format::EventSource => return,
        }
        self.source.write_end(out);
        out.extend_from_slice(b"}\n");
    }

    /// Whether the server is to stop.
    fn is_closing(&mut self, cx: &mut Context<'_>) -> bool {
        self.closing.as_mut().is_some_and(|closing| closing.as_mut().poll(cx).is_ready())
    }

    /// Whether the timer has gone off.
    fn is_time(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }

    fn restart_timer(&mut self) {
        if let (Some(timer), Some(span)) = (&mut self.timer, self.patience.span()) {
            timer.as_mut().reset(Instant::now() + span);
        }
    }

    /// What to send when the timer has gone off.
    fn on_timer(&mut self) {
        match self.patience {
            Patience::Heartbeat(_) => {
                self.restart_timer();
                self.rows.out.extend_from_slice(match self.rows.format {
                    Format::EventSource => b"event: heartbeat\ndata: \n\n",
                    _ => b"\n",
                });
            }
            _ => self.end(),
        }
    }
}

impl<S: Source> Stream for Feed<S> {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let feed = self.get_mut();
        match feed.stage {
            Stage::Done => return Poll::Ready(None),
            Stage::Head => {
                feed.stage = Stage::Rows;
                if matches!(feed.rows.format, Format::Normal | Format::Longpoll) {
                    return Poll::Ready(Some(Ok(Bytes::from_static(b"{\"results\":[\n"))));
                }
            }
            Stage::Rows => {}
        }
        while feed.stage != Stage::Done && feed.rows.out.is_empty() {
            match feed.source.poll_batch(cx) {
                Poll::Ready(Some(Ok(batch))) => {
                    let caught_up = feed.source.write(batch, &mut feed.rows);
                    if !feed.rows.out.is_empty() {
                        feed.restart_timer();
                    }
                    if feed.rows.format == Format::Longpoll && caught_up && feed.rows.any {
                        feed.end();
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    feed.stage = Stage::Done;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => feed.end(),
                Poll::Pending if feed.is_closing(cx) => feed.end(),
                Poll::Pending if feed.is_time(cx) => feed.on_timer(),
                Poll::Pending => return Poll::Pending,
            }
        }
        match std::mem::take(&mut feed.rows.out) {
            written if written.is_empty() => Poll::Ready(None),
            written => Poll::Ready(Some(Ok(written.into()))),
        }
    }
}
