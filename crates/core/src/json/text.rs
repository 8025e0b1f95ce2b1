//! The pieces of normalised JSON text: strings and floats, written and read.

use std::borrow::Cow;

/// The first quote, backslash or control character at or behind `at`, or the end.
#[inline]
pub(crate) fn plain_end(text: &[u8], mut at: usize) -> usize {
    // Eight bytes at a time: each comparison sets the top bit of the bytes it holds for. A borrow
    // can set it for bytes behind such a one too, but the lowest bit set is always right.
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    while let Some(&chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let slash = word ^ (ONES * b'\\' as u64);
        let hits = (quote.wrapping_sub(ONES) & !quote
            | slash.wrapping_sub(ONES) & !slash
            | word.wrapping_sub(ONES * 0x20) & !word)
            & TOPS;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = text.get(at) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            break;
        }
        at += 1;
    }
    at
}

/// Appends the content of the string whose opening quote is at `at`; returns where it ends.
/// `None` if it is no string.
pub(crate) fn unescape(text: &[u8], at: usize, out: &mut Vec<u8>) -> Option<usize> {
    let mut at = at + 1;
    loop {
        let end = plain_end(text, at);
        out.extend_from_slice(text.get(at..end)?);
        at = end + 2;
        match text.get(end)? {
            b'"' => return Some(end + 1),
            b'\\' => {}
            _ => return None,
        }
        out.push(match text.get(end + 1)? {
            byte @ (b'"' | b'\\' | b'/') => *byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = hex4(text, at)?;
                at += 4;
                // Half of a pair is good only in front of the other half.
                if (0xD800..0xDC00).contains(&code) && text.get(at..at + 2)? == b"\\u" {
                    let low = hex4(text, at + 2)?.checked_sub(0xDC00).filter(|&low| low < 0x400)?;
                    code = 0x10000 + ((code - 0xD800) << 10 | low);
                    at += 6;
                }
                let mut utf8 = [0; 4];
                let utf8 = char::from_u32(code)?.encode_utf8(&mut utf8);
                out.extend_from_slice(utf8.as_bytes());
                continue;
            }
            _ => return None,
        });
    }
}

fn hex4(text: &[u8], at: usize) -> Option<u32> {
    text.get(at..at + 4)?
        .iter()
        .try_fold(0, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
}

/// Appends a string with its quotes, with no more escapes than JSON demands.
pub(crate) fn escape(out: &mut Vec<u8>, content: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push(b'"');
    let mut at = 0;
    loop {
        let end = plain_end(content, at);
        out.extend_from_slice(&content[at..end]);
        let Some(&byte) = content.get(end) else { break };
        let short = match byte {
            b'"' | b'\\' => byte,
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => b'u',
        };
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            let digit = |nibble: u8| HEX[usize::from(nibble)];
            out.extend_from_slice(&[b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
        }
        at = end + 1;
    }
    out.push(b'"');
}

/// The content of a string in normalised text; `None` if this is no string.
pub(crate) fn string(text: &[u8]) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if plain_end(inner, 0) == inner.len() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    let mut content = Vec::with_capacity(inner.len());
    let end = unescape(text, 0, &mut content)?;
    if end == text.len() { String::from_utf8(content).ok().map(Cow::Owned) } else { None }
}

/// Whether a float (a JSON number with a fraction) is written as [`float`] would write it. May say
/// no when in doubt.
pub(crate) fn is_normal_float(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    // Different decimals of up to 15 digits are different floats, so none of them can be written
    // shorter than without trailing zeros.
    let Some(point) = digits.iter().position(|&byte| byte == b'.') else { return false };
    let fraction = &digits[point + 1..];
    digits.len() <= 16
        && fraction.iter().all(u8::is_ascii_digit)
        && (fraction == b"0" || !fraction.ends_with(b"0"))
        && (digits[0] != b'0' || fraction == b"0" || !fraction.starts_with(b"000000"))
}

/// Appends the shortest decimal that reads back as this float, and looks like a float: what
/// JavaScript prints, with `.0` where that would look like an integer.
pub(crate) fn float(out: &mut Vec<u8>, number: f64) {
    use std::io::Write as _;
    // `d.ddde-x`, at most 17 digits, a sign, a point and an exponent of three digits with its sign.
    let mut buffer = [0; 32];
    let mut rest = &mut buffer[..];
    if write!(rest, "{:e}", number.abs()).is_err() {
        return;
    }
    let unused = rest.len();
    let shortest = &buffer[..buffer.len() - unused];
    let Some(e) = shortest.iter().position(|&byte| byte == b'e') else { return };
    let exponent: i32 = std::str::from_utf8(&shortest[e + 1..])
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let digits = [&shortest[..1], shortest.get(2..e).unwrap_or(&[])];
    let count = 1 + digits[1].len() as i32;
    if number.is_sign_negative() {
        out.push(b'-');
    }
    let zeros = |out: &mut Vec<u8>, count: i32| out.extend((0..count).map(|_| b'0'));
    match exponent {
        -6..0 => {
            out.extend_from_slice(b"0.");
            zeros(out, -exponent - 1);
            digits.iter().for_each(|part| out.extend_from_slice(part));
        }
        0..21 => {
            out.extend_from_slice(digits[0]);
            let (whole, fraction) = digits[1].split_at(digits[1].len().min(exponent as usize));
            out.extend_from_slice(whole);
            zeros(out, exponent + 1 - count);
            out.push(b'.');
            out.extend_from_slice(if fraction.is_empty() { b"0" } else { fraction });
        }
        _ => {
            out.extend_from_slice(&shortest[..e]);
            out.push(b'e');
            if exponent > 0 {
                out.push(b'+');
            }
            out.extend_from_slice(&shortest[e + 1..]);
        }
    }
}
