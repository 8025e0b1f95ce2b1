//! Revision ids: `N-32hex`, parsed, printed, ordered; and the hash that makes new ones.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The part of a revision behind the dash.
///
/// CouchDB's own are 16 bytes, written as 32 hex digits; peers may use any other text. They are
/// compared as bytes: the digits' value for the one kind, the text for the other.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum RevId {
    /// 32 hex digits.
    Hash([u8; 16]),
    /// Any other text, not empty, at most [`RevId::MAX_TEXT`] bytes.
    Text(Box<str>),
}

impl RevId {
    /// The longest revision text, in bytes, that is taken from a peer.
    pub const MAX_TEXT: usize = 255;

    /// What revisions are compared by.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            RevId::Hash(hash) => hash,
            RevId::Text(text) => text.as_bytes(),
        }
    }
}

impl FromStr for RevId {
    type Err = Error;

    fn from_str(text: &str) -> Result<RevId> {
        if text.len() == 32 {
            let mut hash = [0; 16];
            for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                let digit = |c: u8| (c as char).to_digit(16);
                match (digit(pair[0]), digit(pair[1])) {
                    (Some(high), Some(low)) => *byte = (high << 4 | low) as u8,
                    _ => return Err(Error::bad_request("Invalid rev format")),
                }
            }
            return Ok(RevId::Hash(hash));
        }
        if text.is_empty() || text.len() > RevId::MAX_TEXT || text.contains(char::is_control) {
            return Err(Error::bad_request("Invalid rev format"));
        }
        Ok(RevId::Text(text.into()))
    }
}

impl Ord for RevId {
    fn cmp(&self, other: &RevId) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for RevId {
    fn partial_cmp(&self, other: &RevId) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        match self {
            RevId::Hash(hash) => {
                let mut text = [0; 32];
                for (pair, byte) in text.chunks_exact_mut(2).zip(hash) {
                    pair[0] = HEX[usize::from(byte >> 4)];
                    pair[1] = HEX[usize::from(byte & 15)];
                }
                f.write_str(std::str::from_utf8(&text).unwrap_or_default())
            }
            RevId::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for RevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A revision: its generation and its id, `1-967a00dff5e02add41819138abb3284d`.
///
/// The order is CouchDB's among leaves that are equally alive: higher generation, then higher id.
///
/// ```
/// use settee_core::Rev;
///
/// let rev: Rev = "1-967a00dff5e02add41819138abb3284d".parse()?;
/// assert_eq!(rev.pos, 1);
/// assert_eq!(rev.to_string(), "1-967a00dff5e02add41819138abb3284d");
/// assert!("967a00dff5e02add41819138abb3284d".parse::<Rev>().is_err());
/// # Ok::<(), settee_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rev {
    /// The generation: 1 for a document's first edit.
    pub pos: u64,
    /// The id within the generation.
    pub id: RevId,
}

impl Rev {
    /// A revision from a generation and a hash.
    pub fn new(pos: u64, hash: [u8; 16]) -> Rev {
        Rev { pos, id: RevId::Hash(hash) }
    }
}

impl FromStr for Rev {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rev> {
        let invalid = || Error::bad_request("Invalid rev format");
        let (pos, id) = text.split_once('-').ok_or_else(invalid)?;
        if pos.is_empty() || !pos.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        // Generations are counted in steps of one; what does not fit in 48 bits was never counted.
        let pos = pos.parse().ok().filter(|&pos: &u64| pos < 1 << 48).ok_or_else(invalid)?;
        Ok(Rev { pos, id: id.parse()? })
    }
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pos, self.id)
    }
}

impl fmt::Debug for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Rev {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Rev {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Rev, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|e: Error| serde::de::Error::custom(e.reason().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_print_as_they_were_read() {
        for text in ["1-967a00dff5e02add41819138abb3284d", "7-abc", "12-x-y", "0-1"] {
            assert_eq!(text.parse::<Rev>().unwrap().to_string(), text);
        }
        let upper: Rev = "1-967A00DFF5E02ADD41819138ABB3284D".parse().unwrap();
        assert_eq!(upper.to_string(), "1-967a00dff5e02add41819138abb3284d");
    }

    #[test]
    fn what_is_no_revision_is_refused() {
        for text in [
            "",
            "1",
            "1-",
            "-abc",
            "+1-abc",
            "a-b",
            "1-zzza00dff5e02add41819138abb3284d",
            "99999999999999999999-a",
            "1-a\nb",
        ] {
            assert_eq!(text.parse::<Rev>().unwrap_err().status(), 400, "{text:?}");
        }
    }

    #[test]
    fn generations_are_compared_as_numbers() {
        let rev = |text: &str| text.parse::<Rev>().unwrap();
        assert!(rev("10-a") > rev("9-b"));
        assert!(rev("2-b") > rev("2-a"));
    }
}
