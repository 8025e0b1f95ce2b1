//! View collation: CouchDB's order of JSON keys, as bytes that compare with `memcmp`.
//!
//! [`encode_key`] turns a key into bytes whose order is the keys' order; keys that CouchDB takes for
//! equal have equal bytes. The bytes of one key are never the beginning of another's, so they can
//! be put one after the other: arrays and objects nest, and a row of a view is stored under its key
//! with the document's id behind it, as it is. [`split_key`] takes the two apart again.
//!
//! # Form
//!
//! A tag, then for
//! - a number: the nearest double, 8 bytes, its bits turned so that they sort; from 2^53 on another
//!   two with what an integer differs from that double
//! - a string: its ICU sort key (raw collation: its bytes, a zero escaped), then an end mark
//! - an array: its elements, then an end mark; an object: its names and values, then an end mark
//!
//! # Ranges
//!
//! Every key is above [`LOWEST`] and below [`HIGHEST`]. Those rows whose key is exactly `k` lie from
//! the bytes of `k` to the same with [`HIGHEST`] behind them. CouchDB's own idioms for open ranges,
//! `{}` behind all arrays and `"\ufff0"` behind all strings, work because they do there.

use crate::error::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use std::cmp::Ordering;
use std::fmt;
use std::sync::LazyLock;

/// Changes when the same key gets other bytes than before, as it may with a newer version of
/// Unicode. What is stored under keys has to be stored anew then.
pub const VERSION: u32 = 1;

/// Below every key.
pub const LOWEST: &[u8] = &[];

/// Above every key, and above every document id.
pub const HIGHEST: &[u8] = &[0xff];

/// Which order the keys of a view have (`options.collation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Collation {
    /// `null`, `false`, `true`, numbers, strings, arrays, objects; strings in the root order of the
    /// Unicode Collation Algorithm.
    #[default]
    Unicode,
    /// Numbers, `false`, `null`, `true`, objects, arrays, strings; strings by their bytes.
    Raw,
}

/// The tags of one collation. None is used by both, so a key tells which one it is in.
struct Tags {
    null: u8,
    no: u8,
    yes: u8,
    number: u8,
    string: u8,
    array: u8,
    object: u8,
}

const UNICODE: Tags =
    Tags { null: 0x10, no: 0x20, yes: 0x30, number: 0x40, string: 0x50, array: 0x60, object: 0x70 };
const RAW: Tags =
    Tags { null: 0x28, no: 0x18, yes: 0x38, number: 0x08, string: 0x68, array: 0x58, object: 0x48 };

/// Ends strings, arrays and objects. Lower than what could come instead, so the shorter sorts first.
const END: u8 = 0;
/// Behind a zero that is part of a raw string; behind one that ends it comes [`RAW_END`].
const RAW_ZERO: u8 = 0xff;
const RAW_END: u8 = 1;

/// From here on not every integer is a double.
const BIG: f64 = 9_007_199_254_740_992.0;

/// Appends a key in [Unicode collation](Collation::Unicode).
///
/// ```
/// use serde_json::json;
/// use settee_core::collate::encode_key;
///
/// let bytes = |key| {
///     let mut out = Vec::new();
///     encode_key(&key, &mut out);
///     out
/// };
/// assert!(bytes(json!(null)) < bytes(json!(-1)));
/// assert!(bytes(json!(10)) < bytes(json!("a")));
/// assert!(bytes(json!("a")) < bytes(json!("A")));
/// assert!(bytes(json!("B")) < bytes(json!(["a"])));
/// assert!(bytes(json!(["a", 1])) < bytes(json!(["a", {}])));
/// assert_eq!(bytes(json!(1)), bytes(json!(1.0)));
/// ```
pub fn encode_key(key: &Value, out: &mut Vec<u8>) {
    Collation::Unicode.encode_key(key, out);
}

/// Appends a key given as JSON text in [Unicode collation](Collation::Unicode).
pub fn encode_key_text(json: &[u8], out: &mut Vec<u8>) -> Result<()> {
    Collation::Unicode.encode_key_text(json, out)
}

/// Appends the key that is this string in [Unicode collation](Collation::Unicode).
pub fn encode_string(string: &str, out: &mut Vec<u8>) {
    Collation::Unicode.encode_string(string, out);
}

/// Compares two keys in [Unicode collation](Collation::Unicode), without encoding them.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    Collation::Unicode.compare(a, b)
}

impl Collation {
    /// Appends a key.
    pub fn encode_key(self, key: &Value, out: &mut Vec<u8>) {
        // A value that is there can be walked.
        let walked = self.encoder(out).deserialize(key);
        debug_assert!(walked.is_ok(), "{walked:?}");
    }

    /// Appends a key given as JSON text. If that is no JSON, or nested deeper than 127 levels, this
    /// is an error, and `out` as long as it was.
    pub fn encode_key_text(self, json: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let before = out.len();
        let mut text = serde_json::Deserializer::from_slice(json);
        let done = self.encoder(out).deserialize(&mut text).and_then(|()| text.end());
        done.map_err(|e| {
            out.truncate(before);
            Error::bad_request("invalid_json").with_source(e)
        })
    }

    /// Appends the key that is this string.
    pub fn encode_string(self, string: &str, out: &mut Vec<u8>) {
        self.encoder(out).string(string);
    }

    fn encoder(self, out: &mut Vec<u8>) -> Encoder<'_> {
        Encoder { collation: self, out }
    }

    fn tags(self) -> &'static Tags {
        match self {
            Collation::Unicode => &UNICODE,
            Collation::Raw => &RAW,
        }
    }

    /// Compares two keys, without encoding them.
    pub fn compare(self, a: &Value, b: &Value) -> Ordering {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => Parts::of(a).cmp(Parts::of(b)),
            (Value::String(a), Value::String(b)) => self.compare_strings(a, b),
            (Value::Array(a), Value::Array(b)) => {
                let pairs = a.iter().zip(b).map(|(a, b)| self.compare(a, b));
                first_difference(pairs).then(a.len().cmp(&b.len()))
            }
            (Value::Object(a), Value::Object(b)) => {
                let pairs = a.iter().zip(b).map(|((name_a, a), (name_b, b))| {
                    self.compare_strings(name_a, name_b).then_with(|| self.compare(a, b))
                });
                first_difference(pairs).then(a.len().cmp(&b.len()))
            }
            _ => self.tag(a).cmp(&self.tag(b)),
        }
    }

    fn compare_strings(self, a: &str, b: &str) -> Ordering {
        match (self, &*COLLATOR) {
            (Collation::Unicode, Some(collator)) => collator.compare(a, b),
            _ => a.cmp(b),
        }
    }

    fn tag(self, value: &Value) -> u8 {
        let tags = self.tags();
        match value {
            Value::Null => tags.null,
            Value::Bool(false) => tags.no,
            Value::Bool(true) => tags.yes,
            Value::Number(_) => tags.number,
            Value::String(_) => tags.string,
            Value::Array(_) => tags.array,
            Value::Object(_) => tags.object,
        }
    }
}

fn first_difference(mut pairs: impl Iterator<Item = Ordering>) -> Ordering {
    pairs.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// ICU's root collation at its default (tertiary) strength, as CouchDB uses it. Its data is
/// compiled in, so it is always there; if not, strings would sort by their bytes.
static COLLATOR: LazyLock<Option<icu_collator::CollatorBorrowed<'static>>> = LazyLock::new(|| {
    icu_collator::CollatorBorrowed::try_new(Default::default(), Default::default()).ok()
});

/// A number as the nearest double, and what it differs from that.
#[derive(Debug, Clone, Copy)]
struct Parts {
    double: f64,
    rest: i16,
}

impl Parts {
    fn of(number: &Number) -> Parts {
        match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Parts::integer(number.into()),
            (None, Some(number)) => Parts::integer(number.into()),
            (None, None) => Parts::double(number.as_f64().unwrap_or_default()),
        }
    }

    fn double(double: f64) -> Parts {
        // Minus zero is zero.
        Parts { double: double + 0.0, rest: 0 }
    }

    /// Of an integer of at most 64 bits: neighbouring doubles are at most 2048 apart there.
    fn integer(number: i128) -> Parts {
        let double = number as f64;
        Parts { double, rest: (number - double as i128) as i16 }
    }

    fn cmp(self, other: Parts) -> Ordering {
        self.double.total_cmp(&other.double).then(self.rest.cmp(&other.rest))
    }
}

/// Writes what it is shown, be it a value or text as it is parsed.
struct Encoder<'a> {
    collation: Collation,
    out: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    fn tags(&self) -> &'static Tags {
        self.collation.tags()
    }

    fn number(self, Parts { double, rest }: Parts) {
        self.out.push(self.tags().number);
        let bits = double.to_bits();
        let sortable = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
        self.out.extend_from_slice(&sortable.to_be_bytes());
        if double.abs() >= BIG {
            self.out.extend_from_slice(&(rest as u16 ^ 0x8000).to_be_bytes());
        }
    }

    fn string(self, string: &str) {
        self.out.push(self.tags().string);
        match (self.collation, &*COLLATOR) {
            (Collation::Unicode, Some(collator)) => {
                let Ok(()) = collator.write_sort_key_to(string, self.out);
                self.out.push(END);
            }
            (Collation::Unicode, None) => {
                self.out.extend(string.bytes().filter(|&byte| byte != END));
                self.out.push(END);
            }
            (Collation::Raw, _) => {
                for (i, part) in string.as_bytes().split(|&byte| byte == END).enumerate() {
                    if i > 0 {
                        self.out.extend_from_slice(&[END, RAW_ZERO]);
                    }
                    self.out.extend_from_slice(part);
                }
                self.out.extend_from_slice(&[END, RAW_END]);
            }
        }
    }

    fn inner(&mut self) -> Encoder<'_> {
        Encoder { collation: self.collation, out: &mut *self.out }
    }
}

impl<'de> DeserializeSeed<'de> for Encoder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Encoder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.out.push(self.tags().null);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        let tags = self.tags();
        self.out.push(if value { tags.yes } else { tags.no });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.number(Parts::integer(value.into()));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.number(Parts::integer(value.into()));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.number(Parts::double(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.string(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        self.out.push(self.tags().array);
        while elements.next_element_seed(self.inner())?.is_some() {}
        self.out.push(END);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.out.push(self.tags().object);
        while members.next_key_seed(self.inner())?.is_some() {
            members.next_value_seed(self.inner())?;
        }
        self.out.push(END);
        Ok(())
    }
}

/// Takes the bytes of the first key off, which leaves what was put behind it: the document's id.
///
/// ```
/// use settee_core::collate::{encode_key, split_key};
///
/// let mut row = Vec::new();
/// encode_key(&serde_json::json!(["a", 1]), &mut row);
/// row.extend_from_slice(b"doc-1");
/// assert_eq!(split_key(&row).map(|(_, id)| id), Some(&b"doc-1"[..]));
/// ```
pub fn split_key(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut depth = 0;
    let mut at = 0;
    loop {
        match step(&row[at..])? {
            Step::Over(len) => at += len,
            Step::In => (at, depth) = (at + 1, depth + 1),
            Step::Out => (at, depth) = (at + 1, usize::checked_sub(depth, 1)?),
        }
        if depth == 0 {
            return row.split_at_checked(at);
        }
    }
}

/// What keys that agree in their first `level` elements have in common (`group_level`): of an array
/// that is longer the bytes up to there, else the whole key. In a view, a group's rows are those
/// whose key begins with it.
pub fn group(key: &[u8], level: usize) -> &[u8] {
    let inside = match key.first() {
        Some(&tag) if tag == UNICODE.array || tag == RAW.array => &key[1..],
        _ => return key,
    };
    let mut rest = inside;
    for _ in 0..level {
        match split_key(rest) {
            Some((_, after)) => rest = after,
            None => return key,
        }
    }
    &key[..key.len() - rest.len()]
}

/// What comes next in a key.
enum Step {
    /// A value of so many bytes.
    Over(usize),
    /// The beginning of an array or object.
    In,
    /// The end of one.
    Out,
}

fn step(key: &[u8]) -> Option<Step> {
    let (&tag, rest) = key.split_first()?;
    let is = |of: fn(&Tags) -> u8| tag == of(&UNICODE) || tag == of(&RAW);
    let len = if tag == END {
        return Some(Step::Out);
    } else if is(|tags| tags.array) || is(|tags| tags.object) {
        return Some(Step::In);
    } else if is(|tags| tags.number) {
        let bits = u64::from_be_bytes(*rest.first_chunk()?);
        let bits = if bits >> 63 == 1 { bits } else { !bits };
        if f64::from_bits(bits & !(1 << 63)) >= BIG { 10 } else { 8 }
    } else if tag == UNICODE.string {
        memchr::memchr(END, rest)? + 1
    } else if tag == RAW.string {
        rest.windows(2).position(|pair| pair == [END, RAW_END])? + 2
    } else if is(|tags| tags.null) || is(|tags| tags.no) || is(|tags| tags.yes) {
        0
    } else {
        return None;
    };
    (len <= rest.len()).then_some(Step::Over(1 + len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const BOTH: [Collation; 2] = [Collation::Unicode, Collation::Raw];

    fn bytes(collation: Collation, key: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        collation.encode_key(key, &mut out);
        out
    }

    /// Each key sorts before those that follow, whichever way they are compared.
    fn ascending(collation: Collation, keys: &Value) {
        let keys = keys.as_array().unwrap();
        for (i, a) in keys.iter().enumerate() {
            for (j, b) in keys.iter().enumerate() {
                assert_eq!(collation.compare(a, b), i.cmp(&j), "{a} {b}");
                assert_eq!(bytes(collation, a).cmp(&bytes(collation, b)), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[test]
    fn keys_sort_as_in_couchdb() {
        ascending(
            Collation::Unicode,
            &json!([
                null, false, true, 1, 2, 3.0, 4, "a", "A", "aa", "b", "B", "ba", "bb", ["a"],
                ["b"], ["b", "c"], ["b", "c", "a"], ["b", "d"], ["b", "d", "e"], {"a": 1},
                {"a": 2}, {"b": 1}, {"b": 2}, {"b": 2, "a": 1}, {"b": 2, "c": 2}
            ]),
        );
        ascending(
            Collation::Raw,
            &json!([
                -1, 1, 2.5, 10, false, null, true, {}, {"a": "a"}, {"a": "b"},
                {"a": "b", "c": 1}, {"b": 1}, [], ["a"], ["a", "b"], "", "A", "B", "a", "aa", "b",
                "ba", "é"
            ]),
        );
    }

    #[test]
    fn symbols_sort_before_digits_and_letters() {
        // The documentation of CouchDB has ` and ^ first, as an older ICU did.
        let order = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789\
                     aAbBcCdDeEfFgGhHiIjJkKlLmMnNoOpPqQrRsStTuUvVwWxXyYzZ";
        let keys: Value = order.chars().map(|char| char.to_string()).collect();
        ascending(Collation::Unicode, &keys);
    }

    #[test]
    fn numbers_sort_by_value() {
        for collation in BOTH {
            ascending(
                collation,
                &json!([
                    -1.7976931348623157e308,
                    i64::MIN,
                    i64::MIN + 1,
                    -9007199254740994i64,
                    -9007199254740993i64,
                    -9007199254740992i64,
                    -2,
                    -1.5,
                    -1,
                    -5e-324,
                    0,
                    5e-324,
                    0.1,
                    1,
                    1.5,
                    2,
                    9007199254740991i64,
                    9007199254740992i64,
                    9007199254740993i64,
                    9007199254740994i64,
                    i64::MAX - 1,
                    i64::MAX,
                    9223372036854775808u64,
                    u64::MAX - 1,
                    u64::MAX,
                    18446744073709551616.0,
                    1e300
                ]),
            );
            for (a, b) in [("1", "1.0"), ("0", "-0.0"), ("9007199254740992", "9007199254740992.0")]
            {
                let (a, b): (Value, Value) =
                    (serde_json::from_str(a).unwrap(), serde_json::from_str(b).unwrap());
                assert_eq!(bytes(collation, &a), bytes(collation, &b));
                assert_eq!(collation.compare(&a, &b), Ordering::Equal);
            }
        }
    }

    #[test]
    fn strings_that_collate_alike_are_one_key() {
        // Composed and decomposed; with and without characters that are ignored.
        for (a, b) in [("é", "e\u{301}"), ("ab", "a\u{200d}b"), ("ab", "a\0b"), ("", "\0")] {
            assert_eq!(bytes(Collation::Unicode, &json!(a)), bytes(Collation::Unicode, &json!(b)));
            assert_eq!(compare(&json!([a]), &json!([b])), Ordering::Equal);
            assert_ne!(bytes(Collation::Raw, &json!(a)), bytes(Collation::Raw, &json!(b)));
        }
    }

    #[test]
    fn raw_strings_may_hold_zeros() {
        ascending(
            Collation::Raw,
            &json!([
                "", "\0", "\0\0", "\0\u{1}", "\0a", "\u{1}", "a", "a\0", "a\0b", "a\u{1}", "b"
            ]),
        );
        ascending(Collation::Raw, &json!([["a"], ["a", 1], ["a\0"], ["a\0", 1], ["a\u{1}"]]));
    }

    #[test]
    fn open_ranges_end_where_they_do_in_couchdb() {
        for inside in [json!("abc"), json!("abc déf"), json!("abczz"), json!("abc\u{4e2d}")] {
            assert!(compare(&inside, &json!("abc\u{fff0}")).is_lt(), "{inside}");
        }
        for inside in [json!(["a"]), json!(["a", "\u{fff0}"]), json!(["a", [9]])] {
            assert!(compare(&inside, &json!(["a", {}])).is_lt());
        }
        for collation in BOTH {
            for key in [json!(null), json!(-1e300), json!("\u{10ffff}"), json!({"\u{10ffff}": {}})]
            {
                assert!(LOWEST < &bytes(collation, &key)[..]);
                assert!(HIGHEST > &bytes(collation, &key)[..]);
            }
        }
        assert!(HIGHEST > "\u{10ffff}".as_bytes());
    }

    #[test]
    fn groups_are_prefixes() {
        for collation in BOTH {
            let bytes = |key: Value| bytes(collation, &key);
            let long = bytes(json!(["a", [1, {"x": 1e20}], null]));
            assert_eq!(group(&long, 1), group(&bytes(json!(["a", 2])), 1));
            assert_eq!(group(&long, 1), group(&bytes(json!(["a"])), 1));
            assert_eq!(group(&long, 2), group(&bytes(json!(["a", [1, {"x": 1e20}]])), 2));
            assert_ne!(group(&long, 2), group(&bytes(json!(["a", [1]])), 2));
            assert_ne!(group(&long, 2), group(&bytes(json!(["a"])), 2));
            assert_eq!(group(&long, 0), &long[..1]);
            assert_eq!(group(&long, 9), long);
            for key in [json!("a"), json!({"a": 1}), json!(1)] {
                assert_eq!(group(&bytes(key.clone()), 1), bytes(key));
            }
        }
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        let deep = "[".repeat(100_000);
        for text in ["", "{", "[1,]", "1 2", "nul", "\"\\ud800\"", "{1:2}", &deep] {
            let mut out = vec![7];
            let error = encode_key_text(text.as_bytes(), &mut out).unwrap_err();
            assert_eq!((error.status(), &out[..]), (400, &[7][..]), "{text:.20}");
        }
    }

    /// If this fails, the library's tables have changed: raise [`VERSION`], so that indexes made
    /// with the old ones are built anew.
    #[test]
    fn the_version_stands_for_these_tables() {
        use md5::Digest;
        let mut hash = md5::Md5::new();
        for char in '\0'..=char::MAX {
            let mut out = Vec::new();
            encode_string(char.encode_utf8(&mut [0; 4]), &mut out);
            hash.update(&out);
        }
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((VERSION, hash.as_str()), (1, "9ab7e5e38649b55a8b8e19524cf32753"));
    }

    /// What a key costs: `cargo test --release -p settee-core -- --ignored keys_cost --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn keys_cost_little() {
        for text in ["42", "\"2024-05-17T10:11:12Z\"", "\"Straße\"", "[\"site-7\",2024,5,null]"] {
            let key: Value = serde_json::from_str(text).unwrap();
            let other: Value = serde_json::from_str(&text.replace('7', "8")).unwrap();
            let mut out = Vec::new();
            let time = |work: &mut dyn FnMut()| {
                const ROUNDS: u32 = 1_000_000;
                let start = std::time::Instant::now();
                (0..ROUNDS).for_each(|_| work());
                start.elapsed() / ROUNDS
            };
            let value = time(&mut || {
                out.clear();
                encode_key(std::hint::black_box(&key), &mut out);
            });
            let parsed = time(&mut || {
                out.clear();
                encode_key_text(std::hint::black_box(text.as_bytes()), &mut out).unwrap();
            });
            let compared = time(&mut || {
                std::hint::black_box(compare(std::hint::black_box(&key), &other));
            });
            println!(
                "{text}: {} bytes, {value:?}, from text {parsed:?}, compare {compared:?}",
                out.len()
            );
        }
    }

    /// The order as it is described, step by step.
    fn reference(collation: Collation, a: &Value, b: &Value) -> Ordering {
        fn rank(collation: Collation, value: &Value) -> usize {
            let kind = match value {
                Value::Null => "null",
                Value::Bool(false) => "false",
                Value::Bool(true) => "true",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            let order = match collation {
                Collation::Unicode => "null false true number string array object",
                Collation::Raw => "number false null true object array string",
            };
            order.split(' ').position(|name| name == kind).unwrap()
        }
        fn numbers(a: &Number, b: &Number) -> Ordering {
            let integer = |n: &Number| n.as_i64().map(i128::from).or(n.as_u64().map(i128::from));
            match (integer(a), integer(b)) {
                (Some(a), Some(b)) => a.cmp(&b),
                (Some(a), None) => integer_double(a, b.as_f64().unwrap()),
                (None, Some(b)) => integer_double(b, a.as_f64().unwrap()).reverse(),
                (None, None) => a.as_f64().partial_cmp(&b.as_f64()).unwrap(),
            }
        }
        fn integer_double(a: i128, b: f64) -> Ordering {
            if b.abs() > 1e30 {
                return 0.0.partial_cmp(&b).unwrap();
            }
            a.cmp(&(b.floor() as i128)).then(b.floor().partial_cmp(&b).unwrap())
        }
        fn strings(collation: Collation, a: &str, b: &str) -> Ordering {
            match collation {
                Collation::Unicode => COLLATOR.as_ref().unwrap().compare(a, b),
                Collation::Raw => a.as_bytes().cmp(b.as_bytes()),
            }
        }
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => numbers(a, b),
            (Value::String(a), Value::String(b)) => strings(collation, a, b),
            (Value::Array(a), Value::Array(b)) => {
                for i in 0..a.len().max(b.len()) {
                    match (a.get(i), b.get(i)) {
                        (None, _) => return Ordering::Less,
                        (_, None) => return Ordering::Greater,
                        (Some(a), Some(b)) if reference(collation, a, b).is_ne() => {
                            return reference(collation, a, b);
                        }
                        _ => {}
                    }
                }
                Ordering::Equal
            }
            (Value::Object(a), Value::Object(b)) => {
                let pairs = |object: &serde_json::Map<String, Value>| -> Value {
                    object.iter().map(|(name, value)| json!([name, value])).collect()
                };
                reference(collation, &pairs(a), &pairs(b))
            }
            _ => rank(collation, a).cmp(&rank(collation, b)),
        }
    }

    fn keys() -> impl Strategy<Value = Value> {
        let string = prop_oneof!["[ab]{0,3}", "[aAáb\u{0}\u{1}\u{301}_\u{fff0}-]{0,4}", ".{0,6}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-3..4i64).prop_map(|n| json!(n)),
            any::<i64>().prop_map(|n| json!(n)),
            any::<u64>().prop_map(|n| json!(n)),
            (-3..4i64, 52..64u32).prop_map(|(n, exp)| json!((1u64 << exp).wrapping_add_signed(n))),
            (-3..4i64, 52..63u32).prop_map(|(n, exp)| json!(-(1i64 << exp) + n)),
            (-3..4i64, 52..66).prop_map(|(n, exp)| json!(2f64.powi(exp) + n as f64)),
            any::<f64>().prop_filter_map("finite", |n| Number::from_f64(n).map(Value::Number)),
            string.clone().prop_map(Value::String),
        ];
        leaf.prop_recursive(3, 12, 3, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                proptest::collection::vec((string.clone(), inner), 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn bytes_compare_as_keys_do(keys in proptest::collection::vec(keys(), 2..6)) {
            for collation in BOTH {
                for a in &keys {
                    for b in &keys {
                        let order = reference(collation, a, b);
                        prop_assert_eq!(collation.compare(a, b), order, "{} {}", a, b);
                        let (left, right) = (bytes(collation, a), bytes(collation, b));
                        prop_assert_eq!(left.cmp(&right), order, "{} {}", a, b);
                        // What is behind a key never decides before the key has.
                        let behind = |mut key: Vec<u8>, id: &[u8]| { key.extend(id); key };
                        let rows = behind(left, b"\0").cmp(&behind(right, b"\xf0"));
                        prop_assert_eq!(rows, order.then(Ordering::Less), "{} {}", a, b);
                    }
                }
            }
        }

        #[test]
        fn text_and_value_have_the_same_bytes(key in keys(), id in ".{0,5}") {
            for collation in BOTH {
                let (mut text, value) = (Vec::new(), bytes(collation, &key));
                collation.encode_key_text(key.to_string().as_bytes(), &mut text).unwrap();
                prop_assert_eq!(&text, &value);
                text.extend_from_slice(id.as_bytes());
                prop_assert_eq!(split_key(&text), Some((&value[..], id.as_bytes())));
            }
        }

        #[test]
        fn any_bytes_split_without_a_panic(row in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = split_key(&row);
            group(&row, 2);
        }
    }
}
