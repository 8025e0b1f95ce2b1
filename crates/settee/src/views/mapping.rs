//! Mapping: from documents to the rows that an index has for them.

use super::definition::Definition;
use super::edit::{Op, row_op};
use super::native::{Emitter, NativeView};
use super::node::Row;
use crate::local::codec::{Reader, put_bytes};
use bytes::Bytes;
use settee_core::collate::Collation;
use settee_core::{Document, Error, ErrorKind, Result};
use std::cmp::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The rows of one document as its map function emitted them: keys and values, as JSON.
pub(crate) type Emitted = Vec<(Bytes, Bytes)>;

/// A map function, whatever it is written in. Several threads may use it at once.
pub(crate) trait Mapping: Send + Sync {
    /// Maps documents, and returns the rows of each. What goes wrong with one document is not an
    /// error: it has no rows then, and the reason is logged.
    fn map(&self, docs: &[Document]) -> Result<Vec<Emitted>>;
}

/// A map function in Rust.
pub(crate) struct NativeMapping(pub(crate) NativeView);

impl Mapping for NativeMapping {
    fn map(&self, docs: &[Document]) -> Result<Vec<Emitted>> {
        let map = |doc| {
            let mut emitter = Emitter::default();
            let outcome = catch_unwind(AssertUnwindSafe(|| (self.0.map)(doc, &mut emitter)));
            match (outcome, emitter.error) {
                (Ok(()), None) => emitter.rows,
                (outcome, error) => {
                    let panicked = outcome.is_err();
                    tracing::warn!(view = self.0.name, ?doc, panicked, ?error, "mapping failed");
                    Vec::new()
                }
            }
        };
        Ok(docs.iter().map(map).collect())
    }
}

/// A map function in a language that a [`ScriptEngine`](crate::script::ScriptEngine) runs.
pub(crate) struct ScriptMapping(pub(crate) Arc<dyn crate::script::Mapper>);

impl Mapping for ScriptMapping {
    fn map(&self, docs: &[Document]) -> Result<Vec<Emitted>> {
        let texts: Vec<String> = docs.iter().map(Document::to_json).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mapped = self.0.map(&texts)?;
        let rows = docs.iter().enumerate().map(|(i, doc)| match mapped.get(i, 0) {
            Ok(rows) => Ok(rows
                .map(|(key, value)| {
                    let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
                    (copy(key), copy(value))
                })
                .collect()),
            Err(failure) if failure.gave_up => {
                Err(Error::new(ErrorKind::Timeout, failure.message.clone()))
            }
            Err(failure) => {
                tracing::info!(id = doc.id, %failure, "a map function failed");
                Ok(Vec::new())
            }
        });
        rows.collect()
    }
}

/// The rows of one document as an index has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DocRows {
    pub(crate) id: String,
    /// The encoded keys, in order; a key comes as often as there are rows with it.
    pub(crate) keys: Vec<Vec<u8>>,
    /// Keys and values as JSON, in the same order.
    pub(crate) json: Emitted,
}

impl DocRows {
    /// Encodes what a document emitted and brings it into order.
    pub(crate) fn new(id: &str, emitted: Emitted, definition: &Definition) -> DocRows {
        let encode = |(key, value): (Bytes, Bytes)| {
            let mut encoded = Vec::with_capacity(key.len() + 8);
            match definition.collation.encode_key_text(&key, &mut encoded) {
                Ok(()) => Some((encoded, key, value)),
                Err(error) => {
                    tracing::warn!(id, %error, "a key cannot be indexed");
                    None
                }
            }
        };
        let mut rows: Vec<_> = emitted.into_iter().filter_map(encode).collect();
        // Rows with one key come in the order of their values, as in CouchDB.
        rows.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| compare_values(&a.2, &b.2)));
        let mut doc = DocRows { id: id.to_owned(), ..DocRows::default() };
        for (encoded, key, value) in rows {
            doc.keys.push(encoded);
            doc.json.push((key, value));
        }
        doc
    }

    /// What puts the rows into a tree.
    pub(crate) fn ops(&self, out: &mut Vec<Op>) {
        let mut sort = Vec::new();
        for (i, n) in numbered(&self.keys).enumerate() {
            let (encoded, (key, value)) = (&self.keys[i], &self.json[i]);
            sort.clear();
            sort.extend_from_slice(encoded);
            sort.extend_from_slice(self.id.as_bytes());
            out.push(row_op(&Row { sort: &sort, n, key_len: encoded.len(), key, value }));
        }
    }

    /// The keys, as they are kept by document.
    pub(crate) fn encode_keys(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.keys.iter().map(|key| key.len() + 2).sum());
        self.keys.iter().for_each(|key| put_bytes(&mut out, key));
        out
    }
}

/// For each of some keys in order: how many before it are the same.
fn numbered(keys: &[Vec<u8>]) -> impl Iterator<Item = u64> {
    let mut n = 0;
    (0..keys.len()).map(move |i| {
        n = if i > 0 && keys[i - 1] == keys[i] { n + 1 } else { 0 };
        n
    })
}

/// What removes the rows of a document from a tree, from what [`DocRows::encode_keys`] wrote.
pub(crate) fn removals(id: &str, keys: &[u8], out: &mut Vec<Op>) -> Result<()> {
    for (key, n) in decode_keys(keys)? {
        let mut sort = key;
        sort.extend_from_slice(id.as_bytes());
        out.push(Op { sort, n, row: None });
    }
    Ok(())
}

/// Keys, and the number of each among those that are the same.
pub(crate) fn decode_keys(keys: &[u8]) -> Result<Vec<(Vec<u8>, u64)>> {
    let mut reader = Reader(keys);
    let mut decoded = Vec::new();
    while !reader.0.is_empty() {
        decoded.push(reader.bytes()?.to_vec());
    }
    let numbers: Vec<_> = numbered(&decoded).collect();
    Ok(decoded.into_iter().zip(numbers).collect())
}

/// Erlang's order of terms, by which CouchDB sorts what a document emits: numbers, `false`, `null`,
/// `true`, objects, arrays, strings.
fn compare_values(a: &[u8], b: &[u8]) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let mut keys = [Vec::new(), Vec::new()];
    for (key, value) in keys.iter_mut().zip([a, b]) {
        // What is nested too deep for that keeps the order it was emitted in.
        let _ = Collation::Raw.encode_key_text(value, key);
    }
    keys[0].cmp(&keys[1])
}
