//! Documents with their attachments' contents: `multipart/related` up, that or `multipart/mixed`
//! down.

use super::http::{bad_reply, too_large};
use crate::adapter::{ByteStream, Parts};
use crate::env;
use bytes::{Buf, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use futures_util::{StreamExt, TryStreamExt, stream};
use memchr::memmem;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use settee_core::document::WriteJson;
use settee_core::json::Limits;
use settee_core::wire::RevResult;
use settee_core::{Attachment, AttachmentData, Document, Encoding, Error, Result};
use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom, Write};

/// Contents that follow without a length are kept in memory up to this size, then in a file.
const SPOOL: usize = 1 << 20;

/// How deep parts may hold parts: revisions, and in them a document with its attachments.
const MAX_DEPTH: usize = 2;

/// What would end a name in quotes early.
const IN_QUOTES: &AsciiSet = &CONTROLS.add(b'"').add(b'\\').add(b'%');

/// A body that holds a document and what follows it.
pub(crate) struct Upload {
    pub(crate) content_type: String,
    pub(crate) length: u64,
    pub(crate) body: ByteStream,
}

/// A content on its way up.
enum Content {
    Memory(Bytes),
    /// The next of the parts.
    Part,
}

/// Puts a document and the contents of its attachments into one body of a known length.
pub(crate) async fn upload(mut doc: Document, parts: Option<Parts>) -> Result<Upload> {
    let parts = parts.unwrap_or_else(|| stream::empty().boxed());
    let follows = |att: &&Attachment| att.data == AttachmentData::Follows;
    // Servers take the parts in the document's order, and want to know their lengths before.
    let names = doc.attachments.iter().filter(follows).map(|att| att.name.clone()).collect();
    let mut parts = Incoming { parts, names, early: Vec::new() };
    for att in &mut doc.attachments {
        if att.data == AttachmentData::Follows && stored_length(att).is_none() {
            let (file, length) = spool(parts.take(&att.name).await?).await?;
            match att.encoding {
                Encoding::Identity => att.length = Some(length),
                Encoding::Gzip => att.encoded_length = Some(length),
            }
            parts.early.push((att.name.clone(), file));
        }
    }
    let boundary = env::hex(&env::random::<16>()?);
    let mut json = Vec::new();
    doc.write_json(&mut json, &WriteJson { att_encoding_info: true, follows: true });
    let mut head = format!("--{boundary}\r\nContent-Type: application/json\r\n\r\n").into_bytes();
    head.append(&mut json);
    let mut length = 0;
    let mut pieces = Vec::new();
    for att in std::mem::take(&mut doc.attachments) {
        let (content, size) = match &att.data {
            AttachmentData::Stub => continue,
            AttachmentData::Inline(bytes) => (Content::Memory(bytes.clone()), bytes.len() as u64),
            AttachmentData::Follows => (Content::Part, stored_length(&att).unwrap_or_default()),
        };
        head.extend_from_slice(
            format!("\r\n--{boundary}\r\n{}\r\n", part_head(&att, size)).as_bytes(),
        );
        length += head.len() as u64 + size;
        pieces.push((Bytes::from(std::mem::take(&mut head)), att.name, content, size));
    }
    head.extend_from_slice(format!("\r\n--{boundary}--").as_bytes());
    length += head.len() as u64;
    let end = stream::iter([Ok(Bytes::from(head))]);
    let contents = stream::unfold((pieces.into_iter(), parts), |(mut pieces, mut parts)| async {
        let (head, name, content, size) = pieces.next()?;
        let body: Result<ByteStream> = match content {
            Content::Memory(bytes) => Ok(stream::iter([Ok(bytes)]).boxed()),
            Content::Part => parts.take(&name).await.map(|body| exactly(body, size)),
        };
        let piece: ByteStream = match body {
            Ok(body) => stream::iter([Ok(head)]).chain(body).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        };
        Some((piece, (pieces, parts)))
    });
    Ok(Upload {
        content_type: format!("multipart/related; boundary=\"{boundary}\""),
        length,
        body: contents.flatten().chain(end).boxed(),
    })
}

/// The length of the bytes that come, as far as the document tells.
fn stored_length(att: &Attachment) -> Option<u64> {
    match att.encoding {
        Encoding::Identity => att.length,
        Encoding::Gzip => att.encoded_length,
    }
}

fn part_head(att: &Attachment, size: u64) -> String {
    let name = utf8_percent_encode(&att.name, IN_QUOTES).to_string();
    let content_type = att.content_type.replace(char::is_control, "");
    let encoding = match att.encoding {
        Encoding::Identity => "",
        Encoding::Gzip => "Content-Encoding: gzip\r\n",
    };
    format!(
        "Content-Disposition: attachment; filename=\"{name}\"\r\nContent-Type: {content_type}\r\n\
         Content-Length: {size}\r\n{encoding}"
    )
}

/// Parts, in whatever order they are wanted.
struct Incoming {
    parts: Parts,
    /// Of all attachments that follow.
    names: Vec<String>,
    /// Contents that came before they were wanted.
    early: Vec<(String, ByteStream)>,
}

impl Incoming {
    /// The content of an attachment.
    async fn take(&mut self, name: &str) -> Result<ByteStream> {
        if let Some(place) = self.early.iter().position(|(early, _)| early == name) {
            return Ok(self.early.remove(place).1);
        }
        loop {
            let missing = || Error::bad_request("Attachment is marked as following, but does not.");
            let part = self.parts.try_next().await?.ok_or_else(missing)?;
            match part.name {
                Some(other) if other != name => {
                    if !self.names.contains(&other) {
                        let reason = "A part follows that belongs to no attachment.";
                        return Err(Error::bad_request(reason));
                    }
                    self.early.push((other, spool(part.body).await?.0));
                }
                _ => return Ok(part.body),
            }
        }
    }
}

/// The same bytes, or an error if they are not as many as was said.
fn exactly(body: ByteStream, size: u64) -> ByteStream {
    let wrong = || Error::bad_request("A part is not as long as its attachment says.");
    let counted = stream::unfold((body, Some(size)), move |(mut body, left)| async move {
        let left = left?;
        match body.next().await {
            None if left == 0 => None,
            None => Some((Err(wrong()), (body, None))),
            Some(Err(error)) => Some((Err(error), (body, None))),
            Some(Ok(bytes)) => match left.checked_sub(bytes.len() as u64) {
                Some(left) => Some((Ok(bytes), (body, Some(left)))),
                None => Some((Err(wrong()), (body, None))),
            },
        }
    });
    counted.boxed()
}

/// Takes a content in, and gives it out again, with its length.
async fn spool(mut body: ByteStream) -> Result<(ByteStream, u64)> {
    let io = |error: std::io::Error| Error::internal(Box::new(error));
    let mut file = tempfile::spooled_tempfile(SPOOL);
    let mut length = 0;
    while let Some(bytes) = body.try_next().await? {
        file.write_all(&bytes).map_err(io)?;
        length += bytes.len() as u64;
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let body = stream::unfold(Some(file), move |file| async move {
        let mut file = file?;
        let mut piece = vec![0; 64 << 10];
        match file.read(&mut piece) {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some((Ok(Bytes::from(piece)), Some(file)))
            }
            Err(error) => Some((Err(io(error)), None)),
        }
    });
    Ok((body.boxed(), length))
}

/// A part that came.
struct Received {
    /// How many parts it lies in.
    depth: usize,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }

    /// The attachment's name.
    fn name(&self) -> Option<String> {
        let name = parameter(self.header("content-disposition")?, "filename")?;
        Some(percent_decode_str(&name).decode_utf8_lossy().into_owned())
    }
}

/// A parameter of a header, with or without quotes.
fn parameter(header: &str, name: &str) -> Option<String> {
    let mut rest = header;
    while let Some((_, after)) = rest.split_once(';') {
        let (found, value) = after.split_once('=')?;
        let value = value.trim_start();
        let (text, behind) = match value.strip_prefix('"') {
            Some(quoted) => {
                let mut text = String::new();
                let mut chars = quoted.char_indices();
                loop {
                    match chars.next()? {
                        (at, '"') => break (text, &quoted[at + 1..]),
                        (_, '\\') => text.push(chars.next()?.1),
                        (_, other) => text.push(other),
                    }
                }
            }
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_owned(), &value[end..])
            }
        };
        if found.trim().eq_ignore_ascii_case(name) {
            return Some(text);
        }
        rest = behind;
    }
    None
}

/// Reads the parts of a body one after the other; parts that hold parts are entered.
struct Reader {
    body: ByteStream,
    buffer: BytesMut,
    /// The outermost first. Of each, what separates its parts.
    boundaries: Vec<Vec<u8>>,
    limit: usize,
    /// Whether a boundary must come next, at whose line's start the buffer is.
    ended: bool,
}

impl Reader {
    fn new(content_type: &str, body: ByteStream, limit: usize) -> Result<Reader> {
        let boundary = boundary(content_type)?;
        // The first boundary may stand at the very start.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        Ok(Reader { body, buffer, boundaries: vec![boundary], limit, ended: false })
    }

    async fn more(&mut self) -> Result<()> {
        match self.body.try_next().await? {
            Some(bytes) => {
                self.buffer.extend_from_slice(&bytes);
                Ok(())
            }
            None => {
                let kind = settee_core::ErrorKind::Unreachable;
                Err(Error::new(kind, "The reply ended before it was complete."))
            }
        }
    }

    /// Takes everything before the next occurrence of something, and that too.
    async fn until(&mut self, end: &[u8]) -> Result<Bytes> {
        let mut from = 0;
        loop {
            if let Some(found) = memmem::find(&self.buffer[from..], end) {
                let taken = self.buffer.split_to(from + found).freeze();
                self.buffer.advance(end.len());
                return Ok(taken);
            }
            if self.buffer.len() > self.limit {
                return Err(too_large(self.limit));
            }
            from = self.buffer.len().saturating_sub(end.len() - 1);
            self.more().await?;
        }
    }

    async fn next(&mut self) -> Result<Option<Received>> {
        let Some(boundary) = self.boundaries.last().cloned() else { return Ok(None) };
        if !self.ended {
            // What comes before the first boundary is nothing.
            self.until(&boundary).await?;
        }
        self.ended = false;
        loop {
            while self.buffer.len() < 2 {
                self.more().await?;
            }
            if !self.buffer.starts_with(b"--") {
                break;
            }
            // The last part of these; go on in what they lie in.
            self.buffer.advance(2);
            self.boundaries.pop();
            let Some(outer) = self.boundaries.last().cloned() else { return Ok(None) };
            self.until(&outer).await?;
        }
        self.until(b"\n").await?;
        let headers = self.headers().await?;
        let mut part = Received { depth: self.boundaries.len() - 1, headers, body: Bytes::new() };
        let content_type = part.header("content-type").unwrap_or_default();
        if content_type.trim_start().to_ascii_lowercase().starts_with("multipart/") {
            if self.boundaries.len() >= MAX_DEPTH {
                return Err(bad_reply("The parts of the reply hold parts too deep."));
            }
            let inner = boundary_of(content_type)?;
            self.boundaries.push(inner);
            // As at the very start.
            let mut buffer = BytesMut::from(&b"\r\n"[..]);
            buffer.extend_from_slice(&self.buffer);
            self.buffer = buffer;
            return Ok(Some(part));
        }
        let boundary = self.boundaries.last().cloned().unwrap_or_default();
        part.body = self.until(&boundary).await?;
        self.ended = true;
        Ok(Some(part))
    }

    async fn headers(&mut self) -> Result<Vec<(String, String)>> {
        let mut headers = Vec::new();
        let mut size = 0;
        loop {
            let line = self.until(b"\n").await?;
            size += line.len();
            if size > 64 << 10 {
                return Err(too_large(64 << 10));
            }
            let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            if line.is_empty() {
                return Ok(headers);
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }
}

fn boundary(content_type: &str) -> Result<Vec<u8>> {
    boundary_of(content_type)
}

fn boundary_of(content_type: &str) -> Result<Vec<u8>> {
    let boundary = parameter(content_type, "boundary").filter(|text| !text.is_empty());
    let boundary = boundary.ok_or_else(|| bad_reply("The reply's parts have no boundary."))?;
    Ok(format!("\r\n--{boundary}").into_bytes())
}

/// Reads a document whose attachments' contents follow it.
pub(crate) async fn read_document(
    content_type: &str,
    body: ByteStream,
    limits: &Limits,
    decode: bool,
) -> Result<Document> {
    let mut reader = Reader::new(content_type, body, limits.document)?;
    let first = reader.next().await?.ok_or_else(|| bad_reply("The reply has no parts."))?;
    let mut doc = parse(&first.body, limits)?;
    let mut waiting = following(&doc);
    while let Some(part) = reader.next().await? {
        take_in(&mut doc, &mut waiting, part, decode, limits)?;
    }
    complete(doc, &waiting)
}

/// Reads revisions: documents with or without contents that follow them, or what is missing.
pub(crate) async fn read_revisions(
    content_type: &str,
    body: ByteStream,
    id: &str,
    limits: &Limits,
    decode: bool,
) -> Result<Vec<RevResult>> {
    let mut reader = Reader::new(content_type, body, limits.document)?;
    let mut results = Vec::new();
    let mut open: Option<(Document, VecDeque<usize>)> = None;
    let mut starting = false;
    while let Some(part) = reader.next().await? {
        let content_type = part.header("content-type").unwrap_or_default();
        let inner = content_type.to_ascii_lowercase().starts_with("multipart/");
        if part.depth == 0 {
            if let Some((doc, waiting)) = open.take() {
                results.push(RevResult::Found(Box::new(complete(doc, &waiting)?)));
            }
            starting = inner;
            if !inner {
                let failed = parameter(content_type, "error").is_some_and(|error| error == "true");
                results.push(match failed {
                    true => RevResult::parse(&part.body, id, limits)?,
                    false => RevResult::Found(Box::new(parse(&part.body, limits)?)),
                });
            }
        } else if std::mem::take(&mut starting) {
            let doc = parse(&part.body, limits)?;
            let waiting = following(&doc);
            open = Some((doc, waiting));
        } else if let Some((doc, waiting)) = &mut open {
            take_in(doc, waiting, part, decode, limits)?;
        }
    }
    if let Some((doc, waiting)) = open.take() {
        results.push(RevResult::Found(Box::new(complete(doc, &waiting)?)));
    }
    Ok(results)
}

/// A document of a reply.
pub(crate) fn parse(text: &[u8], limits: &Limits) -> Result<Document> {
    Document::parse(text, limits).map_err(|error| bad_reply(error.to_string()).with_source(error))
}

/// The places of the attachments whose contents follow.
fn following(doc: &Document) -> VecDeque<usize> {
    let follows = |(_, att): &(usize, &Attachment)| att.data == AttachmentData::Follows;
    doc.attachments.iter().enumerate().filter(follows).map(|(place, _)| place).collect()
}

/// Puts a part where it belongs: to the attachment it names, or else to the next.
fn take_in(
    doc: &mut Document,
    waiting: &mut VecDeque<usize>,
    part: Received,
    decode: bool,
    limits: &Limits,
) -> Result<()> {
    let name = part.name();
    let named = waiting.iter().position(|&at| Some(&doc.attachments[at].name) == name.as_ref());
    let place = waiting.remove(named.unwrap_or(0));
    let place = place.ok_or_else(|| bad_reply("A part belongs to no attachment."))?;
    let att = &mut doc.attachments[place];
    let gzip = match part.header("content-encoding") {
        Some(encoding) => encoding.eq_ignore_ascii_case("gzip"),
        None => att.encoding == Encoding::Gzip,
    };
    let mut data = part.body;
    if gzip {
        att.encoding = Encoding::Gzip;
        att.encoded_length = Some(data.len() as u64);
    }
    if gzip && decode {
        data = gunzip(&data, limits.attachment)?;
        att.encoding = Encoding::Identity;
        att.encoded_length = None;
        att.length = Some(data.len() as u64);
    }
    att.data = AttachmentData::Inline(data);
    Ok(())
}

fn complete(doc: Document, waiting: &VecDeque<usize>) -> Result<Document> {
    match waiting.is_empty() {
        true => Ok(doc),
        false => Err(bad_reply("An attachment is said to follow, and does not.")),
    }
}

/// Decodes what is in memory, unless it becomes too large.
pub(crate) fn gunzip(data: &[u8], limit: usize) -> Result<Bytes> {
    let mut content = Vec::new();
    let mut decoder = MultiGzDecoder::new(data).take(limit as u64 + 1);
    let read = decoder.read_to_end(&mut content);
    read.map_err(|error| {
        bad_reply("An attachment is not the gzip it should be.").with_source(error)
    })?;
    if content.len() > limit {
        return Err(too_large(limit));
    }
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Part;
    use futures_executor::block_on;

    fn body(text: &str, size: usize) -> ByteStream {
        let pieces: Vec<_> =
            text.as_bytes().chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        stream::iter(pieces).boxed()
    }

    const LIMITS: Limits = Limits { depth: 50, document: 10_000, attachment: 10_000 };

    #[test]
    fn revisions_are_read_wherever_the_pieces_end() {
        let text = "preamble\r\n--out\r\nContent-Type: application/json\r\n\r\n\
            {\"_id\":\"a\",\"_rev\":\"1-x\"}\r\n--out\r\n\
            Content-Type: application/json; error=\"true\"\r\n\r\n{\"missing\":\"3-z\"}\r\n--out\r\n\
            Content-Type: multipart/related; boundary=\"in\"\r\n\r\n--in\r\n\
            Content-Type: application/json\r\n\r\n{\"_id\":\"a\",\"_rev\":\"2-y\",\"_attachments\":\
            {\"p\":{\"follows\":true,\"length\":2},\"q\":{\"follows\":true,\"length\":1}}}\r\n--in\r\n\
            Content-Disposition: attachment; filename=\"q\"\r\n\r\nQ\r\n--in\r\n\r\n\r\n\r\n--in--\r\n\
            --out--";
        for size in [1, 2, 3, 7, 50, 5000] {
            let parts = read_revisions(
                "multipart/mixed; boundary=\"out\"",
                body(text, size),
                "a",
                &LIMITS,
                true,
            );
            let results = block_on(parts).unwrap();
            let [RevResult::Found(_), RevResult::Missing(missing), RevResult::Found(doc)] =
                &results[..]
            else {
                panic!("{results:?}")
            };
            assert_eq!(missing.rev.as_ref().unwrap().to_string(), "3-z");
            assert_eq!(doc.attachments[0].data, AttachmentData::Inline("\r\n".into()));
            assert_eq!(doc.attachments[1].data, AttachmentData::Inline("Q".into()));
        }
    }

    #[test]
    fn what_goes_up_is_as_long_as_was_said_and_reads_back() {
        let part =
            |name: &str, text: &str| Ok(Part { name: Some(name.to_owned()), body: body(text, 2) });
        for known in [true, false] {
            // Parts may as well come in another order.
            let mut doc: Document = r#"{"_id":"a","_attachments":{
                "one":{"follows":true,"length":5},"two":{"data":"eHl6"},
                "three \"3\"":{"follows":true,"length":0}}}"#
                .parse()
                .unwrap();
            let mut parts = vec![part("one", "11111"), part("three \"3\"", "")];
            parts.reverse();
            if !known {
                doc.attachments[0].length = None;
            }
            let parts = stream::iter(parts).boxed();
            let sent = block_on(upload(doc, Some(parts))).unwrap();
            let bytes: Vec<Bytes> = block_on(sent.body.try_collect()).unwrap();
            let bytes = bytes.concat();
            assert_eq!(bytes.len() as u64, sent.length);
            let text = String::from_utf8(bytes).unwrap();
            let doc = read_document(&sent.content_type, body(&text, 10), &LIMITS, true);
            let doc = block_on(doc).unwrap();
            let contents = ["11111", "xyz", ""].map(|text| AttachmentData::Inline(text.into()));
            assert_eq!(doc.attachments.into_iter().map(|a| a.data).collect::<Vec<_>>(), contents);
        }
    }

    #[test]
    fn a_part_of_another_length_is_an_error() {
        for text in ["1234", "123456"] {
            let doc = r#"{"_attachments":{"one":{"follows":true,"length":5}}}"#.parse().unwrap();
            let parts = vec![Ok(Part { name: None, body: body(text, 2) })];
            let sent = block_on(upload(doc, Some(stream::iter(parts).boxed()))).unwrap();
            assert!(block_on(sent.body.try_collect::<Vec<Bytes>>()).is_err());
        }
    }
}
