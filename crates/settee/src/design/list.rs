//! Lists: the rows of a view as anything.
//!
//! The function runs on a thread of the engine and takes one row after the other; its output goes
//! out as it comes. Neither gets ahead of the other: the thread waits in [`Pipe`] until whoever reads
//! the response comes for more.

use super::{Functions, Rendered, Request, Response, view_options};
use crate::adapter::ViewRows;
use crate::script::ListIo;
use bytes::Bytes;
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value, json};
use settee_core::document::WriteJson;
use settee_core::options::{DocSet, ViewOptions};
use settee_core::wire::ViewRow;
use settee_core::{Error, ErrorKind, Result};
use std::sync::mpsc;

impl Functions {
    /// Answers `/{db}/_design/{ddoc}/_list/{name}/{view}`, where the view may be `other/view` of
    /// another design document.
    ///
    /// # Errors
    ///
    /// As [`Database::list`](crate::Database::list).
    pub async fn list(
        &self,
        ddoc: &str,
        name: &str,
        view: Option<&str>,
        request: &Request,
    ) -> Result<Rendered> {
        let view = view.filter(|view| view.split('/').count() <= 2);
        let view = view.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "Invalid path.").with_name("list_error")
        })?;
        let (other, view) = view.split_once('/').unwrap_or((ddoc, view));
        let options = view_options(request)?;
        let rows = self.rows(other, view, &options).await?;
        self.list_rows(ddoc, name, rows, options.include_docs, request).await
    }

    /// The rows of a view or of `_all_docs`.
    pub(super) async fn rows(
        &self,
        ddoc: &str,
        view: &str,
        options: &ViewOptions,
    ) -> Result<ViewRows> {
        if view != "_all_docs" {
            return self.db.view(ddoc, view, options).await;
        }
        crate::view::listing(&*self.db, DocSet::All, options.clone()).await
    }

    /// Calls a list function with the rows given.
    ///
    /// # Errors
    ///
    /// As [`list`](Functions::list).
    pub async fn list_rows(
        &self,
        ddoc: &str,
        name: &str,
        rows: ViewRows,
        include_docs: bool,
        request: &Request,
    ) -> Result<Rendered> {
        let design = self.open(ddoc).await?;
        let object = self.request_object(request, None).await?;
        let (events, receiver) = unbounded();
        let (answer, answers) = mpsc::channel();
        let pipe = Pipe { events, answers, rows: Vec::new().into_iter() };
        self.db.script()?.list(&design.source, name, head(&rows), object, Box::new(pipe));
        let outside = Outside { events: receiver, answer, rows: Some(rows), include_docs };
        outside.start().await
    }
}

/// What is known before the first row, as functions get it.
fn head(rows: &ViewRows) -> String {
    let mut head = Map::new();
    if let Some(total) = rows.total_rows {
        head.insert("total_rows".to_owned(), total.into());
    }
    if let Some(offset) = rows.offset {
        head.insert("offset".to_owned(), offset.into());
    }
    if let Some(seq) = &rows.update_seq {
        head.insert("update_seq".to_owned(), json!(seq));
    }
    Value::Object(head).to_string()
}

/// What the function's thread says.
enum Event {
    Start(String),
    Send(String),
    Row,
    End(Result<()>),
}

/// What it is answered: the next rows, none behind the last; or to go on.
enum Answer {
    Rows(Vec<String>),
    GoOn,
}

/// The function's side.
struct Pipe {
    events: UnboundedSender<Event>,
    answers: mpsc::Receiver<Answer>,
    rows: std::vec::IntoIter<String>,
}

impl Pipe {
    fn ask(&self, event: Event) -> Result<Answer> {
        let gone = || Error::new(ErrorKind::Internal, "nobody reads the list any more");
        self.events.unbounded_send(event).map_err(|_| gone())?;
        self.answers.recv().map_err(|_| gone())
    }
}

impl ListIo for Pipe {
    fn start(&mut self, response: &str) -> Result<()> {
        self.ask(Event::Start(response.to_owned())).map(drop)
    }

    fn send(&mut self, text: &str) -> Result<()> {
        self.ask(Event::Send(text.to_owned())).map(drop)
    }

    fn row(&mut self) -> Result<Option<String>> {
        if let Some(row) = self.rows.next() {
            return Ok(Some(row));
        }
        if let Answer::Rows(rows) = self.ask(Event::Row)? {
            self.rows = rows.into_iter();
        }
        Ok(self.rows.next())
    }

    fn end(self: Box<Self>, result: Result<()>) {
        // Nobody may be there any more to hear it.
        let _ = self.events.unbounded_send(Event::End(result));
    }
}

/// The reader's side.
struct Outside {
    events: UnboundedReceiver<Event>,
    answer: mpsc::Sender<Answer>,
    /// `None` behind the last.
    rows: Option<ViewRows>,
    include_docs: bool,
}

/// What comes of an event.
enum Step {
    Started(String),
    Output(String),
    Ended,
}

impl Outside {
    fn go_on(&self, answer: Answer) {
        // A thread that has ended needs no answer.
        let _ = self.answer.send(answer);
    }

    /// Serves the function until it has something for the reader. It then waits until it is answered.
    async fn step(&mut self) -> Result<Step> {
        loop {
            match self.events.next().await {
                Some(Event::Start(response)) => return Ok(Step::Started(response)),
                Some(Event::Send(text)) => return Ok(Step::Output(text)),
                Some(Event::Row) => {
                    let rows = self.next_rows().await?;
                    self.go_on(Answer::Rows(rows));
                }
                Some(Event::End(result)) => return result.map(|()| Step::Ended),
                None => return Err(Error::new(ErrorKind::Internal, "the list function is gone")),
            }
        }
    }

    /// The next batch of rows, as JSON; empty behind the last.
    async fn next_rows(&mut self) -> Result<Vec<String>> {
        while let Some(rows) = &mut self.rows {
            match rows.rows.try_next().await? {
                None => self.rows = None,
                Some(batch) if batch.is_empty() => {}
                Some(batch) => {
                    let text = |row: ViewRow| {
                        let mut out = Vec::new();
                        row.write_json(&mut out, self.include_docs, &WriteJson::default());
                        String::from_utf8(out).map_err(Error::internal)
                    };
                    return batch.into_iter().map(text).collect();
                }
            }
        }
        Ok(Vec::new())
    }

    /// Waits for the head of the response.
    async fn start(mut self) -> Result<Rendered> {
        let response = match self.step().await? {
            Step::Started(response) => response,
            Step::Output(_) | Step::Ended => "{}".to_owned(),
        };
        // As in CouchDB, which takes a list for JSON unless it says otherwise.
        let response = Response::parse(&response, 200, "application/json")?;
        let first = response.body;
        let first = stream::iter(Some(first).filter(|body| !body.is_empty()).map(Ok));
        let rest = stream::try_unfold(self, |mut outside| async move {
            outside.go_on(Answer::GoOn);
            match outside.step().await? {
                Step::Output(text) => Ok(Some((Bytes::from(text), outside))),
                Step::Started(_) | Step::Ended => Ok(None),
            }
        });
        let body = first.chain(rest).boxed();
        Ok(Rendered { code: response.code, headers: response.headers, body })
    }
}
