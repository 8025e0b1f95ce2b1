//! Erlang's external term format, as far as JSON values need it.
//!
//! CouchDB hashes a revision over this encoding of the document, so it has to agree byte for byte
//! with `term_to_binary(…, [{minor_version, 1}])`.

/// The first byte of every encoded term.
pub(crate) const VERSION: u8 = 131;

const NEW_FLOAT: u8 = 70;
const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const ATOM: u8 = 100;
const SMALL_TUPLE: u8 = 104;
const NIL: u8 = 106;
const STRING: u8 = 107;
const LIST: u8 = 108;
const BINARY: u8 = 109;
const SMALL_BIG: u8 = 110;
const LARGE_BIG: u8 = 111;

/// The term of `{}`.
pub(crate) const EMPTY_OBJECT: &[u8] = &[SMALL_TUPLE, 1, NIL];

/// A list of more elements is never a `STRING`.
const LONGEST_STRING: usize = 65535;

pub(crate) fn atom(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(&[ATOM, 0, name.len() as u8]);
    out.extend_from_slice(name.as_bytes());
}

pub(crate) fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(BINARY);
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn float(out: &mut Vec<u8>, number: f64) {
    out.push(NEW_FLOAT);
    out.extend_from_slice(&number.to_be_bytes());
}

pub(crate) fn tuple(out: &mut Vec<u8>, arity: u8) {
    out.extend_from_slice(&[SMALL_TUPLE, arity]);
}

pub(crate) fn integer(out: &mut Vec<u8>, number: i64) {
    if let Ok(small) = u8::try_from(number) {
        out.extend_from_slice(&[SMALL_INTEGER, small]);
    } else if let Ok(medium) = i32::try_from(number) {
        out.push(INTEGER);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        big(out, number < 0, &number.unsigned_abs().to_le_bytes());
    }
}

/// An integer of any size, from its decimal digits.
pub(crate) fn decimal(out: &mut Vec<u8>, negative: bool, digits: &[u8]) {
    /// As many digits as always fit a limb.
    const STEP: usize = 19;
    let mut limbs: Vec<u64> = Vec::with_capacity(digits.len() / STEP + 1);
    for chunk in digits.chunks(STEP) {
        let mut scale = 1u64;
        let mut carry = 0u64;
        for digit in chunk {
            scale = scale.wrapping_mul(10);
            carry = carry * 10 + u64::from(digit - b'0');
        }
        for limb in &mut limbs {
            let sum = u128::from(*limb) * u128::from(scale) + u128::from(carry);
            *limb = sum as u64;
            carry = (sum >> 64) as u64;
        }
        if carry > 0 {
            limbs.push(carry);
        }
    }
    if let [] | [_] = limbs[..] {
        let magnitude = limbs.first().copied().unwrap_or(0);
        let number = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
        if let Ok(number) = i64::try_from(number) {
            return integer(out, number);
        }
    }
    let bytes: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
    big(out, negative, &bytes);
}

/// An integer from its magnitude, least significant byte first.
fn big(out: &mut Vec<u8>, negative: bool, magnitude: &[u8]) {
    let len = magnitude.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    match u8::try_from(len) {
        Ok(len) => out.extend_from_slice(&[SMALL_BIG, len]),
        Err(_) => {
            out.push(LARGE_BIG);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
    out.push(u8::from(negative));
    out.extend_from_slice(&magnitude[..len]);
}

/// The end of a list whose length was known at its begin.
pub(crate) fn nil(out: &mut Vec<u8>) {
    out.push(NIL);
}

/// A list of so many elements, which come next, and then [`nil`].
pub(crate) fn list(out: &mut Vec<u8>, count: u32) {
    out.push(LIST);
    out.extend_from_slice(&count.to_be_bytes());
}

/// Begins a list of elements still to be counted; [`close_list`] takes the position returned.
pub(crate) fn open_list(out: &mut Vec<u8>) -> usize {
    list(out, 0);
    out.len() - 5
}

/// Ends a list whose elements are never small integers alone, such as an object's members.
pub(crate) fn close_list(out: &mut Vec<u8>, at: usize, count: usize) {
    if count == 0 {
        out.truncate(at);
    } else {
        out[at + 1..at + 5].copy_from_slice(&(count as u32).to_be_bytes());
    }
    out.push(NIL);
}

/// Ends the list of an array's elements. Erlang writes lists of nothing but bytes as strings.
pub(crate) fn close_array(out: &mut Vec<u8>, at: usize, count: usize) {
    let elements = at + 5;
    if count == 0
        || count > LONGEST_STRING
        || out.len() != elements + 2 * count
        || out[elements..].iter().step_by(2).any(|&tag| tag != SMALL_INTEGER)
    {
        return close_list(out, at, count);
    }
    // Each element takes two bytes now and one afterwards, and the header shrinks by two.
    out[at] = STRING;
    out[at + 1..at + 3].copy_from_slice(&(count as u16).to_be_bytes());
    for i in 0..count {
        out[at + 3 + i] = out[elements + 2 * i + 1];
    }
    out.truncate(at + 3 + count);
}
