//! Views whose functions are Rust.

use super::reduce::{ReduceFunction, ReduceRow};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use settee_core::{Document, Error, Result};
use std::fmt;
use std::sync::Arc;

/// What a native map function emits rows with.
#[derive(Debug, Default)]
pub struct Emitter {
    pub(crate) rows: Vec<(Bytes, Bytes)>,
    pub(crate) error: Option<Error>,
}

impl Emitter {
    /// Emits a row: anything that serde can make JSON of.
    ///
    /// What cannot be made JSON of is an error of the document, whose rows are then left out.
    pub fn emit(&mut self, key: impl Serialize, value: impl Serialize) {
        let row = || -> serde_json::Result<_> {
            Ok((serde_json::to_vec(&key)?.into(), serde_json::to_vec(&value)?.into()))
        };
        match row() {
            Ok(row) => self.rows.push(row),
            Err(error) => self.error = Some(Error::internal(error)),
        }
    }
}

type MapFunction = dyn Fn(&Document, &mut Emitter) + Send + Sync;
type NativeReduce = dyn Fn(Option<&[(Value, String)]>, &[Value]) -> Value + Send + Sync;

/// A view whose map function, and maybe reduce function, is Rust.
///
/// It is registered with a place ([`Local::register`](crate::local::Local::register)) under a name,
/// and design documents whose `language` is `rust` call it by that name:
///
/// ```
/// # futures_executor::block_on(async {
/// use settee::adapter::{Adapter, Host};
/// use settee::local::{Local, NativeView};
/// use settee_core::options::{ViewOptions, WriteOptions};
///
/// let place = Local::memory()?;
/// place.register(NativeView::new("by_city", 1, |doc, emitter| {
///     if let Some(city) = doc.get("city") {
///         emitter.emit(city, ());
///     }
/// }));
///
/// place.create("people").await?;
/// let people = place.database("people")?;
/// let options = WriteOptions::default();
/// let design = r#"{"_id": "_design/people", "language": "rust",
///     "views": {"by_city": {"map": "by_city", "reduce": "_count"}}}"#;
/// people.put(design.parse()?, None, &options).await?;
/// people.put(r#"{"_id": "ada", "city": "London"}"#.parse()?, None, &options).await?;
///
/// let options = ViewOptions { reduce: Some(false), ..ViewOptions::default() };
/// let rows = people.view("people", "by_city", &options).await?;
/// assert_eq!(rows.total_rows, Some(1));
/// # Ok::<(), settee_core::Error>(()) }).unwrap();
/// ```
///
/// The rows that are indexed depend on the function, so it has a version: give it another one when
/// it changes, and what was indexed with the old one is indexed anew.
#[derive(Clone)]
pub struct NativeView {
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) map: Arc<MapFunction>,
    pub(crate) reduce: Option<Arc<NativeReduce>>,
}

impl fmt::Debug for NativeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeView")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl NativeView {
    /// A view that has a row for whatever `map` emits for a document.
    pub fn new(
        name: impl Into<String>,
        version: u64,
        map: impl Fn(&Document, &mut Emitter) + Send + Sync + 'static,
    ) -> NativeView {
        NativeView { name: name.into(), version, map: Arc::new(map), reduce: None }
    }

    /// The same view with a reduce function, which a design document calls by the view's name.
    ///
    /// It gets keys with ids, and values; or, to reduce what it returned before, `None` and those.
    #[must_use]
    pub fn reduce(
        mut self,
        reduce: impl Fn(Option<&[(Value, String)]>, &[Value]) -> Value + Send + Sync + 'static,
    ) -> NativeView {
        self.reduce = Some(Arc::new(reduce));
        self
    }
}

impl ReduceFunction for NativeView {
    fn reduce(&self, rows: &[ReduceRow]) -> Result<Vec<u8>> {
        let Some(reduce) = &self.reduce else { return Ok(b"null".to_vec()) };
        let mut keys = Vec::with_capacity(rows.len());
        let mut values = Vec::with_capacity(rows.len());
        for row in rows {
            keys.push((value(&row.key), String::from_utf8_lossy(&row.id).into_owned()));
            values.push(value(&row.value));
        }
        Ok(reduce(Some(&keys), &values).to_string().into_bytes())
    }

    fn rereduce(&self, values: &[Bytes]) -> Result<Vec<u8>> {
        let Some(reduce) = &self.reduce else { return Ok(b"null".to_vec()) };
        let values: Vec<_> = values.iter().map(|json| value(json)).collect();
        Ok(reduce(None, &values).to_string().into_bytes())
    }
}

fn value(json: &[u8]) -> Value {
    settee_core::json::to_value(std::str::from_utf8(json).unwrap_or_default())
}
