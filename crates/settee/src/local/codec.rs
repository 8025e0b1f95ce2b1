//! How rows are put together: varints, and byte strings behind their length.

use crate::local::corrupt;
use settee_core::{Result, Rev, RevId};

/// Appends an unsigned number, seven bits a byte, lowest first.
pub(crate) fn put_uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends bytes behind their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a revision: its generation, then 0 and 16 bytes, or the length of its text and the text.
pub(crate) fn put_rev(out: &mut Vec<u8>, rev: &Rev) {
    put_uint(out, rev.pos);
    match &rev.id {
        RevId::Hash(hash) => {
            out.push(0);
            out.extend_from_slice(hash);
        }
        RevId::Text(text) => put_bytes(out, text.as_bytes()),
    }
}

/// Reads what the functions above wrote.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8> {
        let (&byte, rest) = self.0.split_first().ok_or_else(|| corrupt("row ends early"))?;
        self.0 = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn uint(&mut self) -> Result<u64> {
        // Most are small, and rows are full of them.
        match self.0.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.0 = rest;
                Ok(u64::from(byte))
            }
            _ => self.long_uint(),
        }
    }

    fn long_uint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(corrupt("number is too long"))
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (bytes, rest) =
            self.0.split_at_checked(len).ok_or_else(|| corrupt("row ends early"))?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| corrupt("row ends early"))
    }

    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.uint()?;
        self.take(usize::try_from(len).map_err(|_| corrupt("row ends early"))?)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| corrupt("text is not UTF-8"))
    }

    pub(crate) fn rev(&mut self) -> Result<Rev> {
        let pos = self.uint()?;
        let id = match self.uint()? {
            0 => RevId::Hash(self.array()?),
            len => {
                let len = usize::try_from(len).map_err(|_| corrupt("row ends early"))?;
                let text = std::str::from_utf8(self.take(len)?)
                    .map_err(|_| corrupt("revision is not UTF-8"))?;
                RevId::Text(text.into())
            }
        };
        Ok(Rev { pos, id })
    }
}
