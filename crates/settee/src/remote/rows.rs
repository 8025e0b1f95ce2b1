//! Listings read as they come: an array of rows within an object, split into rows before the rest
//! has arrived; and lines.

use super::body::Body;
use super::http::{bad_reply, too_large};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use memchr::{memchr, memchr2};
use settee_core::json::{self, Limits};
use settee_core::wire::{Seq, row_error};
use settee_core::{Error, ErrorKind, Result};
use std::ops::Range;

/// Rows in one batch, at most.
const BATCH: usize = 1000;

/// The most that everything around the rows may take.
const MAX_AROUND: usize = 1 << 20;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// A member, or the object's end.
    Member,
    /// The value of the member whose name was read last.
    Value,
    /// A row, or the array's end.
    Row,
    Done,
}

/// How far a value has been looked at, so that a long one is looked at once.
#[derive(Debug, Clone, Copy, Default)]
struct Scan {
    at: usize,
    depth: usize,
    in_string: bool,
}

/// Splits a reply into rows.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// The member that holds the rows; none if the reply itself is the array.
    rows: Option<&'static str>,
    state: State,
    buffer: Vec<u8>,
    /// Everything before has been dealt with.
    start: usize,
    scan: Scan,
    name: String,
    /// The other members, as text.
    members: Vec<(String, Vec<u8>)>,
    around: usize,
    limit: usize,
}

impl Splitter {
    pub(crate) fn new(rows: Option<&'static str>, limit: usize) -> Splitter {
        Splitter {
            rows,
            state: State::Start,
            buffer: Vec::new(),
            start: 0,
            scan: Scan::default(),
            name: String::new(),
            members: Vec::new(),
            around: 0,
            limit,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scan.at -= self.start.min(self.scan.at);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the whole reply has been read.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether everything that comes before the rows has been read.
    pub(crate) fn has_head(&self) -> bool {
        matches!(self.state, State::Row | State::Done)
    }

    /// A member beside the rows.
    pub(crate) fn member(&self, name: &str) -> Option<String> {
        let (_, text) = self.members.iter().rfind(|member| member.0 == name)?;
        let text = json::normalize(text, &Limits::default()).ok()?;
        String::from_utf8(text.into()).ok()
    }

    /// The next row as a range of [`bytes`](Splitter::bytes); none if more must come first, or
    /// nothing will.
    pub(crate) fn next_row(&mut self) -> Result<Option<Range<usize>>> {
        self.advance(true)
    }

    /// Reads on to the next row, or to where the rows begin.
    fn advance(&mut self, into_rows: bool) -> Result<Option<Range<usize>>> {
        loop {
            if self.state == State::Row && !into_rows {
                return Ok(None);
            }
            self.skip(|byte| byte.is_ascii_whitespace() || byte == b',');
            let Some(&byte) = self.buffer.get(self.start) else { return Ok(None) };
            match (self.state, byte) {
                (State::Start, b'[') if self.rows.is_none() => self.step(State::Row),
                (State::Start, b'{') if self.rows.is_some() => self.step(State::Member),
                (State::Start, _) => {
                    return Err(bad_reply("The reply is not the JSON it should be."));
                }
                (State::Member, b'}') => self.step(State::Done),
                (State::Member, b'"') => {
                    let Some(name) = self.value()? else { return Ok(None) };
                    self.name = json::string(&String::from_utf8_lossy(&self.buffer[name]))
                        .ok_or_else(|| bad_reply("A member's name is no string."))?
                        .into_owned();
                    self.state = State::Value;
                }
                (State::Value, b':') => self.start += 1,
                (State::Value, b'[') if self.rows == Some(&self.name) => self.step(State::Row),
                (State::Value, _) => {
                    let Some(value) = self.value()? else { return Ok(None) };
                    self.around += value.len() + self.name.len();
                    if self.around > MAX_AROUND {
                        return Err(too_large(MAX_AROUND));
                    }
                    let text = self.buffer[value].to_vec();
                    self.members.push((std::mem::take(&mut self.name), text));
                    self.state = State::Member;
                }
                (State::Row, b']') => {
                    let object = self.rows.is_some();
                    self.step(if object { State::Member } else { State::Done });
                }
                (State::Row, _) => return self.value(),
                (State::Done, _) => {
                    // What comes behind the end is not ours.
                    self.start = self.buffer.len();
                    return Ok(None);
                }
                (State::Member, _) => {
                    return Err(bad_reply("The reply is not the JSON it should be."));
                }
            }
        }
    }

    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    fn step(&mut self, state: State) {
        self.start += 1;
        self.state = state;
    }

    fn skip(&mut self, what: impl Fn(u8) -> bool) {
        if self.scan.at > self.start {
            return;
        }
        while self.buffer.get(self.start).is_some_and(|&byte| what(byte)) {
            self.start += 1;
        }
        self.scan = Scan { at: self.start, ..Scan::default() };
    }

    /// Takes the value that begins here, if all of it is here.
    fn value(&mut self) -> Result<Option<Range<usize>>> {
        match self.value_end()? {
            Some(end) => {
                let value = self.start..end;
                self.start = end;
                self.scan = Scan { at: end, ..Scan::default() };
                Ok(Some(value))
            }
            None if self.buffer.len() - self.start > self.limit => Err(too_large(self.limit)),
            None => Ok(None),
        }
    }

    fn value_end(&mut self) -> Result<Option<usize>> {
        let text = &self.buffer;
        let scan = &mut self.scan;
        while let Some(&byte) = text.get(scan.at) {
            if scan.in_string {
                let Some(found) = memchr2(b'"', b'\\', &text[scan.at..]) else {
                    scan.at = text.len();
                    return Ok(None);
                };
                if text[scan.at + found] == b'"' {
                    scan.at += found + 1;
                    scan.in_string = false;
                    if scan.depth == 0 {
                        return Ok(Some(scan.at));
                    }
                    continue;
                }
                // What is escaped must be here too.
                if scan.at + found + 1 >= text.len() {
                    scan.at += found;
                    return Ok(None);
                }
                scan.at += found + 2;
                continue;
            }
            match byte {
                b'"' if scan.depth == 0 && scan.at > self.start => return Ok(Some(scan.at)),
                b'"' => scan.in_string = true,
                b'{' | b'[' => scan.depth += 1,
                b'}' | b']' => {
                    if scan.depth == 0 {
                        if scan.at == self.start {
                            return Err(bad_reply("The reply is not the JSON it should be."));
                        }
                        return Ok(Some(scan.at));
                    }
                    scan.depth -= 1;
                    if scan.depth == 0 {
                        return Ok(Some(scan.at + 1));
                    }
                }
                b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' if scan.depth == 0 => {
                    if scan.at == self.start {
                        return Err(bad_reply("The reply is not the JSON it should be."));
                    }
                    return Ok(Some(scan.at));
                }
                _ => {}
            }
            scan.at += 1;
        }
        Ok(None)
    }
}

/// A listing: what is known before its rows, and the rows in batches.
pub(crate) struct Listing<T> {
    pub(crate) total_rows: Option<u64>,
    pub(crate) offset: Option<u64>,
    pub(crate) update_seq: Option<Seq>,
    pub(crate) rows: BoxStream<'static, Result<Vec<T>>>,
}

/// Reads rows from a reply.
pub(crate) struct RowReader {
    body: Body,
    pub(crate) splitter: Splitter,
    limits: Limits,
}

impl RowReader {
    pub(crate) fn new(body: Body, rows: Option<&'static str>, limits: Limits) -> RowReader {
        RowReader { body, splitter: Splitter::new(rows, limits.document), limits }
    }

    /// Some more rows; none if there are no more.
    pub(crate) async fn next_batch<T>(
        &mut self,
        parse: impl Fn(&[u8], &Limits) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut batch = Vec::new();
        loop {
            while batch.len() < BATCH
                && let Some(row) = self.splitter.next_row()?
            {
                let text = self.splitter.bytes(row);
                batch.push(parse(text, &self.limits).map_err(|error| meant_error(text, error))?);
            }
            if !batch.is_empty() || self.splitter.is_done() {
                return Ok(batch);
            }
            self.read().await?;
        }
    }

    /// Reads until everything that comes before the rows is known.
    pub(crate) async fn head(&mut self) -> Result<()> {
        loop {
            self.splitter.advance(false)?;
            if self.splitter.has_head() {
                return Ok(());
            }
            self.read().await?;
        }
    }

    /// The reply as the listing that it is. What it says behind its rows may be an error.
    pub(crate) async fn listing<T: Send + 'static>(
        mut self,
        parse: fn(&[u8], &Limits) -> Result<T>,
    ) -> Result<Listing<T>> {
        self.head().await?;
        let number = |name| self.splitter.member(name).and_then(|text| text.parse().ok());
        let (total_rows, offset) = (number("total_rows"), number("offset"));
        let update_seq = self.splitter.member("update_seq");
        let update_seq = update_seq.filter(|text| text != "null");
        let update_seq = update_seq.and_then(|text| Seq::from_json(&text));
        let rows = stream::unfold(Some(self), move |reader| async move {
            let mut reader = reader?;
            match reader.next_batch(parse).await {
                Ok(rows) if rows.is_empty() => match reader.check() {
                    Ok(()) => None,
                    Err(error) => Some((Err(error), None)),
                },
                Ok(rows) => Some((Ok(rows), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Listing { total_rows, offset, update_seq, rows: rows.boxed() })
    }

    /// Reads to the end; whatever rows come are passed over.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        while !self.splitter.is_done() {
            if self.splitter.next_row()?.is_none() && !self.splitter.is_done() {
                self.read().await?;
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        match self.body.try_next().await? {
            Some(bytes) => {
                self.splitter.push(&bytes);
                Ok(())
            }
            None => match self.splitter.member("error") {
                Some(_) => Err(self.error()),
                None => {
                    let reason = "The reply ended before it was complete.";
                    Err(Error::new(ErrorKind::Unreachable, reason))
                }
            },
        }
    }

    fn error(&self) -> Error {
        let member = |name| self.splitter.member(name).unwrap_or("null".to_owned());
        row_error(&format!(r#"{{"error":{},"reason":{}}}"#, member("error"), member("reason")))
    }

    /// What the reply says beside its rows, now that it is read; an error, if that is what it says.
    pub(crate) fn check(&self) -> Result<()> {
        match self.splitter.member("error") {
            Some(_) => Err(self.error()),
            None => Ok(()),
        }
    }
}

/// The error that stands where a row should, if it is one: a server that fails within a listing has
/// no other way to say so.
fn meant_error(text: &[u8], otherwise: Error) -> Error {
    let Ok(text) = json::normalize(text, &Limits::default()) else { return otherwise };
    let text = std::str::from_utf8(&text).unwrap_or_default();
    let has = |name| json::members(text).any(|member| member.0 == name);
    match has("error") && has("reason") && !has("id") && !has("key") {
        true => row_error(text),
        false => otherwise,
    }
}

/// Reads lines.
pub(crate) struct LineReader {
    body: Body,
    buffer: Vec<u8>,
    /// So much of the buffer holds no line's end.
    seen: usize,
    limit: usize,
}

impl LineReader {
    pub(crate) fn new(body: Body, limit: usize) -> LineReader {
        LineReader { body, buffer: Vec::new(), seen: 0, limit }
    }

    /// The lines that have come, at least one of them unless the reply has ended, each through a
    /// function; and whether a further one has begun.
    pub(crate) async fn next_lines(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<()> + Send,
    ) -> Result<Option<bool>> {
        loop {
            let Some(bytes) = self.body.try_next().await? else { return Ok(None) };
            self.buffer.extend_from_slice(&bytes);
            let mut start = 0;
            while let Some(found) = memchr(b'\n', &self.buffer[start.max(self.seen)..]) {
                let end = start.max(self.seen) + found;
                each(self.buffer[start..end].trim_ascii())?;
                start = end + 1;
            }
            self.buffer.drain(..start);
            self.seen = self.buffer.len();
            if self.seen > self.limit {
                return Err(too_large(self.limit));
            }
            if start > 0 {
                return Ok(Some(self.seen > 0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows and members of a reply that comes in pieces of a size.
    fn split(text: &str, rows: Option<&'static str>, size: usize) -> Result<(Vec<String>, bool)> {
        let mut splitter = Splitter::new(rows, 1000);
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            splitter.push(piece);
            while let Some(row) = splitter.next_row()? {
                found.push(String::from_utf8_lossy(splitter.bytes(row)).into_owned());
            }
        }
        if let Some(seq) = splitter.member("last_seq") {
            found.push(format!("last_seq={seq}"));
        }
        Ok((found, splitter.is_done()))
    }

    #[test]
    fn rows_are_split_wherever_the_pieces_end() {
        let text = r#" {"total":3,"x":{"y":[1]},"rows":[ {"a":"]}\"\\"},
            {"b":[{}]} ,7,"s"],"last_seq" : "3-x" } "#;
        for size in 1..text.len() {
            let (rows, done) = split(text, Some("rows"), size).unwrap();
            assert!(done);
            let expected = [r#"{"a":"]}\"\\"}"#, r#"{"b":[{}]}"#, "7", "\"s\"", "last_seq=\"3-x\""];
            assert_eq!(rows, expected, "pieces of {size}");
        }
        for size in 1..9 {
            let (rows, done) = split(r#"[{"ok":1},{}]"#, None, size).unwrap();
            assert_eq!((rows, done), (vec![r#"{"ok":1}"#.to_owned(), "{}".to_owned()], true));
        }
    }

    #[test]
    fn what_is_no_listing_is_refused_and_what_is_cut_is_not_done() {
        for text in ["<html>", "[]", "{7:1}", "{\"rows\":[}", "{\"a\":}"] {
            assert_eq!(
                split(text, Some("rows"), 3).unwrap_err().kind(),
                ErrorKind::BadReply,
                "{text}"
            );
        }
        let (rows, done) = split(r#"{"rows":[{"a":1},{"b""#, Some("rows"), 4).unwrap();
        assert_eq!((rows.len(), done), (1, false));
    }

    #[test]
    fn a_row_without_end_is_refused_early() {
        let text = format!("{{\"rows\":[\"{}", "x".repeat(2000));
        assert_eq!(split(&text, Some("rows"), 100).unwrap_err().kind(), ErrorKind::BadReply);
    }
}
