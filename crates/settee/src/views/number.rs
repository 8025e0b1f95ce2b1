//! Numbers as reduce functions add them: integers stay exact, as they do in CouchDB.

use crate::local::codec::Reader;
use serde_json::Value;
use settee_core::{Result, json};
use std::cmp::Ordering;

/// A number. An integer becomes a float where it meets one, or outgrows 128 bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Integer(i128),
    Float(f64),
}

use Number::{Float, Integer};

impl Number {
    /// Reads a number; `None` if the text is any other value.
    pub(crate) fn parse(text: &str) -> Option<Number> {
        let first = *text.as_bytes().first()?;
        if first != b'-' && !first.is_ascii_digit() {
            return None;
        }
        // Most are short, and an `i64` is read much faster.
        if let Ok(integer) = text.parse::<i64>() {
            return Some(Integer(integer.into()));
        }
        match text.parse() {
            Ok(integer) => Some(Integer(integer)),
            Err(_) => text.parse().ok().map(Float),
        }
    }

    pub(crate) fn of(number: &serde_json::Number) -> Number {
        match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Integer(integer.into()),
            (None, Some(integer)) => Integer(integer.into()),
            (None, None) => Float(number.as_f64().unwrap_or_default()),
        }
    }

    pub(crate) fn to_value(self) -> Value {
        match self {
            Integer(integer) => match (i64::try_from(integer), u64::try_from(integer)) {
                (Ok(integer), _) => integer.into(),
                (Err(_), Ok(integer)) => integer.into(),
                (Err(_), Err(_)) => (integer as f64).into(),
            },
            Float(float) => float.into(),
        }
    }

    fn float(self) -> f64 {
        match self {
            Integer(integer) => integer as f64,
            Float(float) => float,
        }
    }

    pub(crate) fn add(self, other: Number) -> Number {
        if let (Integer(a), Integer(b)) = (self, other)
            && let Some(sum) = a.checked_add(b)
        {
            return Integer(sum);
        }
        Float(self.float() + other.float())
    }

    pub(crate) fn square(self) -> Number {
        match self {
            Integer(integer) if integer.checked_mul(integer).is_some() => {
                Integer(integer * integer)
            }
            other => Float(other.float() * other.float()),
        }
    }

    pub(crate) fn min(self, other: Number) -> Number {
        if self.compare(other).is_gt() { other } else { self }
    }

    pub(crate) fn max(self, other: Number) -> Number {
        if self.compare(other).is_lt() { other } else { self }
    }

    fn compare(self, other: Number) -> Ordering {
        match (self, other) {
            (Integer(a), Integer(b)) => a.cmp(&b),
            (a, b) => a.float().total_cmp(&b.float()),
        }
    }

    pub(crate) fn write_json(self, out: &mut Vec<u8>) {
        match self {
            Integer(integer) => out.extend_from_slice(integer.to_string().as_bytes()),
            Float(float) => json::write_float(out, float),
        }
    }

    /// 0 and 8 bytes of an integer, 1 and 16 of a larger one, 2 and 8 of a float; all big-endian.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Integer(integer) => match i64::try_from(integer) {
                Ok(integer) => {
                    out.push(0);
                    out.extend_from_slice(&integer.to_be_bytes());
                }
                Err(_) => {
                    out.push(1);
                    out.extend_from_slice(&integer.to_be_bytes());
                }
            },
            Float(float) => {
                out.push(2);
                out.extend_from_slice(&float.to_be_bytes());
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Number> {
        Ok(match reader.byte()? {
            0 => Integer(i64::from_be_bytes(reader.array()?).into()),
            1 => Integer(i128::from_be_bytes(reader.array()?)),
            _ => Float(f64::from_be_bytes(reader.array()?)),
        })
    }
}
