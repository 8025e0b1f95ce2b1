//! The pass over a request's JSON: validates, normalises, and encodes for the revision hash.

use super::{Limits, term, text};
use crate::document::{Body, Document, is_kept, is_special};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::hash::Hasher;
use std::ops::Range;

/// The longest integer, in digits. They are kept exactly, and turning decimal digits into the
/// binary ones that the revision hash wants takes quadratic time.
pub(crate) const MAX_DIGITS: usize = 32_768;

/// Objects of up to so many members are searched for duplicates pair by pair.
const FEW_MEMBERS: usize = 24;

/// An array or an object that has begun.
struct Frame {
    object: bool,
    /// Where it begins in the text.
    text: usize,
    /// Where its list begins in the term.
    term: usize,
    /// An object's first member in [`Parser::members`].
    members: usize,
    /// An array's elements so far.
    elements: usize,
}

/// A member of an object that has begun.
struct Member {
    /// Where its name begins in the text, with the quote.
    text: usize,
    /// Where its pair begins in the term.
    term: usize,
    /// The length of its name in the text, with both quotes.
    name: usize,
    /// Equal for equal names.
    tag: u32,
}

/// The special members of a document: their text is put aside, and they are interpreted when the
/// whole document has been read and it is clear which of them count.
#[derive(Default)]
pub(crate) struct Specials {
    text: Vec<u8>,
    /// Where name and value are in the text. No two known ones have the same name.
    members: Vec<(Range<usize>, Range<usize>)>,
}

impl Specials {
    /// Name and value of each, in the order of the document, as normalised text.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.members
            .iter()
            .map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]))
    }

    /// Takes in a member whose value follows. Of several with one name the last counts. Of unknown
    /// ones one is enough: it is an error. So there are never more than a few.
    fn begin(&mut self, name: &[u8]) {
        let text = &self.text;
        let known = is_special(name);
        self.members.retain(|(old, _)| {
            if known { text[old.clone()] != *name } else { is_special(&text[old.clone()]) }
        });
        let start = self.text.len();
        self.text.extend_from_slice(name);
        let end = self.text.len();
        self.members.push((start..end, end..end));
    }

    /// The value has been written.
    fn end(&mut self) {
        let end = self.text.len();
        if let Some((_, value)) = self.members.last_mut() {
            value.end = end;
        }
    }

    fn clear(&mut self) {
        self.text.clear();
        self.members.clear();
    }
}

/// Reads JSON values from a text, one after the other.
pub(crate) struct Parser<'a> {
    source: &'a [u8],
    at: usize,
    limits: &'a Limits,
    /// The normalised text of what has been read.
    text: Vec<u8>,
    /// The term of what has been read.
    term: Vec<u8>,
    frames: Vec<Frame>,
    members: Vec<Member>,
    specials: Specials,
    /// How deep the value being read lies within the document.
    outer: usize,
    unescaped: Vec<u8>,
}

fn invalid() -> Error {
    Error::bad_request("invalid UTF-8 JSON")
}

impl<'a> Parser<'a> {
    pub(crate) fn new(source: &'a [u8], limits: &'a Limits) -> Result<Parser<'a>> {
        if source.len() >= u32::MAX as usize {
            return Err(Error::new(ErrorKind::TooLarge, "the request entity is too large"));
        }
        // Once for all of it, so that strings need not be looked at again.
        std::str::from_utf8(source).map_err(|error| invalid().with_source(error))?;
        Ok(Parser {
            source,
            at: 0,
            limits,
            text: Vec::with_capacity(source.len().min(1 << 16)),
            term: Vec::with_capacity(source.len().min(1 << 16)),
            frames: Vec::new(),
            members: Vec::new(),
            specials: Specials::default(),
            outer: 0,
            unescaped: Vec::new(),
        })
    }

    /// Reads a value and nothing behind it; returns its normalised text.
    pub(crate) fn whole_text(mut self) -> Result<Vec<u8>> {
        self.value::<false>()?;
        self.end()?;
        Ok(self.text)
    }

    /// Reads a value and nothing behind it; returns its term.
    pub(crate) fn whole_term(mut self) -> Result<Vec<u8>> {
        self.value::<true>()?;
        self.end()?;
        Ok(self.term)
    }

    /// Whether only white space is left.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.at == self.source.len() { Ok(()) } else { Err(invalid()) }
    }

    /// The next byte that is not white space, without taking it.
    pub(crate) fn peek(&mut self) -> Result<u8> {
        self.skip_space();
        self.source.get(self.at).copied().ok_or_else(invalid)
    }

    /// Takes the next byte that is not white space.
    fn next(&mut self) -> Result<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    /// Takes the opening `{` or `[`; says whether anything is in between it and its end.
    fn open(&mut self, end: u8) -> Result<bool> {
        self.at += 1;
        if self.peek()? == end {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes a comma or the end; says whether there is more.
    fn more(&mut self, end: u8) -> Result<bool> {
        match self.next()? {
            b',' => Ok(true),
            byte if byte == end => Ok(false),
            _ => Err(invalid()),
        }
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.source.get(self.at) {
            self.at += 1;
        }
    }

    /// Calls `each` at every member's value with its name; `each` has to take the value.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, String) -> Result<()>,
    ) -> Result<()> {
        let mut more = self.open(b'}')?;
        while more {
            let name = self.name()?;
            each(self, name)?;
            more = self.more(b'}')?;
        }
        Ok(())
    }

    /// Calls `each` at every element; `each` has to take it.
    pub(crate) fn array(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let mut more = self.open(b']')?;
        while more {
            each(self)?;
            more = self.more(b']')?;
        }
        Ok(())
    }

    /// Takes a member's name and the colon.
    fn name(&mut self) -> Result<String> {
        let start = self.text.len();
        self.key::<false>()?;
        let name = text::string(&self.text[start..self.text.len() - 1]).map(String::from);
        self.text.truncate(start);
        name.ok_or_else(invalid)
    }

    /// Takes a value; returns its normalised text.
    pub(crate) fn value_text(&mut self) -> Result<Vec<u8>> {
        let start = self.text.len();
        self.value::<false>()?;
        Ok(self.text.split_off(start))
    }

    /// Takes a document.
    pub(crate) fn document(&mut self) -> Result<Document> {
        let body = self.document_body()?;
        self.finish_document(body)
    }

    /// Interprets the special members of the document whose body was just taken.
    pub(crate) fn finish_document(&self, body: Body) -> Result<Document> {
        Document::from_parts(body, &self.specials, self.limits)
    }

    /// Takes a document as far as JSON goes.
    pub(crate) fn document_body(&mut self) -> Result<Body> {
        self.text.clear();
        self.term.clear();
        self.members.clear();
        self.specials.clear();
        if self.peek()? != b'{' {
            self.value::<false>()?;
            return Err(Error::bad_request("Document must be a JSON object"));
        }
        self.outer = 1;
        self.text.push(b'{');
        term::tuple(&mut self.term, 1);
        let list = term::open_list(&mut self.term);
        let mut more = self.open(b'}')?;
        while more {
            self.document_member()?;
            more = self.more(b'}')?;
        }
        self.close_object::<true>(&Frame {
            object: true,
            text: 0,
            term: list,
            members: 0,
            elements: 0,
        });
        self.outer = 0;
        // Copies, so that what is kept of a document is no larger than it has to be.
        Ok(Body::parsed(Bytes::copy_from_slice(&self.text), Bytes::copy_from_slice(&self.term)))
    }

    fn document_member(&mut self) -> Result<()> {
        let (text, term) = (self.text.len(), self.term.len());
        if text > 1 {
            self.text.push(b',');
        }
        let start = self.text.len();
        self.key::<true>()?;
        let name = &self.text[start..self.text.len() - 1];
        if name.get(1) != Some(&b'_') || is_kept(name) {
            return self.value::<true>();
        }
        self.specials.begin(name);
        // Neither stored nor hashed.
        self.members.pop();
        self.text.truncate(text);
        self.term.truncate(term);
        // Values may be large attachments, so they are written where they are to stay.
        std::mem::swap(&mut self.text, &mut self.specials.text);
        self.value::<false>()?;
        std::mem::swap(&mut self.text, &mut self.specials.text);
        self.specials.end();
        Ok(())
    }

    /// Takes a value of any kind, without recursion.
    fn value<const TERM: bool>(&mut self) -> Result<()> {
        let base = self.frames.len();
        loop {
            match self.peek()? {
                b'"' => self.string::<TERM>()?,
                b'{' => {
                    self.push::<TERM>(true)?;
                    if self.open(b'}')? {
                        self.key::<TERM>()?;
                        continue;
                    }
                    self.pop::<TERM>();
                }
                b'[' => {
                    self.push::<TERM>(false)?;
                    if self.open(b']')? {
                        continue;
                    }
                    self.pop::<TERM>();
                }
                b'-' | b'0'..=b'9' => self.number::<TERM>()?,
                b't' => self.literal::<TERM>("true")?,
                b'f' => self.literal::<TERM>("false")?,
                b'n' => self.literal::<TERM>("null")?,
                _ => return Err(invalid()),
            }
            // A value has ended, and maybe what it is in.
            loop {
                if self.frames.len() == base {
                    return Ok(());
                }
                let next = self.next()?;
                let Some(frame) = self.frames.last_mut() else { return Ok(()) };
                frame.elements += 1;
                match (next, frame.object) {
                    (b',', object) => {
                        self.text.push(b',');
                        if object {
                            self.key::<TERM>()?;
                        }
                        break;
                    }
                    (b'}', true) | (b']', false) => self.pop::<TERM>(),
                    _ => return Err(invalid()),
                }
            }
        }
    }

    fn push<const TERM: bool>(&mut self, object: bool) -> Result<()> {
        if self.frames.len() + self.outer >= self.limits.depth {
            return Err(Error::bad_request(format!(
                "JSON nested deeper than {} levels",
                self.limits.depth
            )));
        }
        let text = self.text.len();
        self.text.push(if object { b'{' } else { b'[' });
        let mut term = 0;
        if TERM {
            if object {
                term::tuple(&mut self.term, 1);
            }
            term = term::open_list(&mut self.term);
        }
        self.frames.push(Frame { object, text, term, members: self.members.len(), elements: 0 });
        Ok(())
    }

    fn pop<const TERM: bool>(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if frame.object {
            self.close_object::<TERM>(&frame);
        } else {
            self.text.push(b']');
            if TERM {
                term::close_array(&mut self.term, frame.term, frame.elements);
            }
        }
    }

    fn close_object<const TERM: bool>(&mut self, frame: &Frame) {
        let dead = duplicates(&self.text, &self.members[frame.members..]);
        if !dead.is_empty() {
            self.remove_members::<TERM>(frame, &dead);
        }
        self.text.push(b'}');
        if TERM {
            let count = self.members.len() - frame.members - dead.len();
            term::close_list(&mut self.term, frame.term, count);
        }
        self.members.truncate(frame.members);
    }

    /// Takes members, by their ascending numbers, out of text and term.
    fn remove_members<const TERM: bool>(&mut self, frame: &Frame, dead: &[usize]) {
        let members = &self.members[frame.members..];
        let mut dead = dead.iter().copied().peekable();
        let (mut text, mut term) = (frame.text + 1, frame.term + 5);
        for (i, member) in members.iter().enumerate() {
            if dead.next_if_eq(&i).is_some() {
                continue;
            }
            if text > frame.text + 1 {
                self.text[text] = b',';
                text += 1;
            }
            let next = members.get(i + 1);
            let end = next.map_or(self.text.len(), |next| next.text - 1);
            self.text.copy_within(member.text..end, text);
            text += end - member.text;
            if TERM {
                let end = next.map_or(self.term.len(), |next| next.term);
                self.term.copy_within(member.term..end, term);
                term += end - member.term;
            }
        }
        self.text.truncate(text);
        if TERM {
            self.term.truncate(term);
        }
    }

    /// Takes a member's name and the colon.
    fn key<const TERM: bool>(&mut self) -> Result<()> {
        if self.peek()? != b'"' {
            return Err(invalid());
        }
        let (start, term) = (self.text.len(), self.term.len());
        if TERM {
            term::tuple(&mut self.term, 2);
        }
        self.string::<TERM>()?;
        let name = &self.text[start..];
        let mut hasher = rustc_hash::FxHasher::default();
        hasher.write(name);
        let tag = hasher.finish() as u32;
        self.members.push(Member { text: start, term, name: name.len(), tag });
        if self.next()? != b':' {
            return Err(invalid());
        }
        self.text.push(b':');
        Ok(())
    }

    fn literal<const TERM: bool>(&mut self, word: &str) -> Result<()> {
        if !self.source[self.at..].starts_with(word.as_bytes()) {
            return Err(invalid());
        }
        self.at += word.len();
        self.text.extend_from_slice(word.as_bytes());
        if TERM {
            term::atom(&mut self.term, word);
        }
        Ok(())
    }

    fn string<const TERM: bool>(&mut self) -> Result<()> {
        let open = self.at;
        let end = text::plain_end(self.source, open + 1);
        match self.source.get(end) {
            Some(b'"') => {
                self.at = end + 1;
                self.text.extend_from_slice(&self.source[open..=end]);
                if TERM {
                    term::binary(&mut self.term, &self.source[open + 1..end]);
                }
                Ok(())
            }
            Some(b'\\') => self.escaped_string::<TERM>(),
            _ => Err(invalid()),
        }
    }

    fn escaped_string<const TERM: bool>(&mut self) -> Result<()> {
        self.unescaped.clear();
        self.at = text::unescape(self.source, self.at, &mut self.unescaped).ok_or_else(invalid)?;
        text::escape(&mut self.text, &self.unescaped);
        if TERM {
            term::binary(&mut self.term, &self.unescaped);
        }
        Ok(())
    }

    fn number<const TERM: bool>(&mut self) -> Result<()> {
        let start = self.at;
        let byte = |at: usize| self.source.get(at).copied().unwrap_or(0);
        let digits_end = |mut at: usize| {
            while byte(at).is_ascii_digit() {
                at += 1;
            }
            at
        };
        let negative = byte(start) == b'-';
        let whole = start + usize::from(negative);
        let mut at = digits_end(whole);
        if at == whole || (byte(whole) == b'0' && at > whole + 1) {
            return Err(invalid());
        }
        let digits = &self.source[whole..at];
        if !matches!(byte(at), b'.' | b'e' | b'E') {
            self.at = at;
            return self.integer::<TERM>(negative, digits);
        }
        if byte(at) == b'.' {
            let fraction = at + 1;
            at = digits_end(fraction);
            if at == fraction {
                return Err(invalid());
            }
        }
        if matches!(byte(at), b'e' | b'E') {
            let exponent = at + 1 + usize::from(matches!(byte(at + 1), b'+' | b'-'));
            at = digits_end(exponent);
            if at == exponent {
                return Err(invalid());
            }
        }
        self.at = at;
        let source = &self.source[start..at];
        let number = std::str::from_utf8(source).ok().and_then(|text| text.parse::<f64>().ok());
        let number = number.filter(|number| number.is_finite()).ok_or_else(invalid)?;
        if text::is_normal_float(source) {
            self.text.extend_from_slice(source);
        } else {
            text::float(&mut self.text, number);
        }
        if TERM {
            term::float(&mut self.term, number);
        }
        Ok(())
    }

    fn integer<const TERM: bool>(&mut self, negative: bool, digits: &[u8]) -> Result<()> {
        if digits.len() > MAX_DIGITS {
            return Err(Error::bad_request(format!("Integer of more than {MAX_DIGITS} digits")));
        }
        if negative && digits != b"0" {
            self.text.push(b'-');
        }
        self.text.extend_from_slice(digits);
        if TERM {
            if digits.len() <= 18 {
                let number = digits.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
                term::integer(&mut self.term, if negative { -number } else { number });
            } else {
                term::decimal(&mut self.term, negative, digits);
            }
        }
        Ok(())
    }
}

/// The numbers of those members that have a later one of the same name, ascending.
fn duplicates(text: &[u8], members: &[Member]) -> Vec<usize> {
    let name = |member: &Member| &text[member.text..member.text + member.name];
    let mut dead = Vec::new();
    if members.len() <= FEW_MEMBERS {
        for (i, member) in members.iter().enumerate() {
            if members[i + 1..]
                .iter()
                .any(|later| later.tag == member.tag && name(later) == name(member))
            {
                dead.push(i);
            }
        }
        return dead;
    }
    // Sorting takes the same time whatever the names are; a hash table does not.
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_unstable_by_key(|&i| (members[i].tag, name(&members[i]), i));
    for pair in order.windows(2) {
        let (this, next) = (&members[pair[0]], &members[pair[1]]);
        if this.tag == next.tag && name(this) == name(next) {
            dead.push(pair[0]);
        }
    }
    dead.sort_unstable();
    dead
}
