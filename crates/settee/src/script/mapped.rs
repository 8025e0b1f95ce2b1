//! What map functions emit.

use settee_core::json;
use std::fmt;
use std::ops::Range;

/// What map functions emitted for a batch of documents: for each document, for each function, rows or
/// a failure.
///
/// ```
/// use settee::script::Mapped;
///
/// let mut mapped = Mapped::new(1);
/// mapped.push_rows(r#"["a",1,"b",null]"#);
/// assert_eq!(mapped.get(0, 0).unwrap().collect::<Vec<_>>(), [("\"a\"", "1"), ("\"b\"", "null")]);
/// ```
#[derive(Clone, Default)]
pub struct Mapped {
    functions: usize,
    /// The texts of all results, one behind the other.
    text: String,
    /// Where each one is, or why there is none.
    results: Vec<Result<Range<usize>, Failure>>,
}

/// Why there are no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was thrown, or which limit was exceeded.
    pub message: String,
    /// Whether the function will not be tried again: it has exceeded its limits too often, and an index
    /// with it had better fail than go on without rows.
    pub gave_up: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Mapped {
    /// No documents yet, for so many functions.
    pub fn new(functions: usize) -> Mapped {
        Mapped { functions, ..Mapped::default() }
    }

    /// Adds what the next function emitted: a JSON array of key, value, key, value and so on, without
    /// white space.
    pub fn push_rows(&mut self, rows: &str) {
        let start = self.text.len();
        self.text.push_str(rows);
        self.results.push(Ok(start..self.text.len()));
    }

    /// Adds that the next function failed.
    pub fn push_failure(&mut self, failure: Failure) {
        self.results.push(Err(failure));
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.results.len().checked_div(self.functions).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a function emitted for a document.
    ///
    /// # Errors
    ///
    /// That it failed for it.
    ///
    /// # Panics
    ///
    /// Unless there are so many documents and functions.
    pub fn get(&self, doc: usize, function: usize) -> Result<MappedRows<'_>, &Failure> {
        let at = doc * self.functions + function;
        assert!(function < self.functions && at < self.results.len(), "no such result");
        let range = self.results[at].as_ref()?;
        Ok(MappedRows(json::elements(&self.text[range.clone()])))
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let docs = (0..self.len())
            .map(|doc| (0..self.functions).map(|f| self.get(doc, f)).collect::<Vec<_>>());
        f.debug_list().entries(docs).finish()
    }
}

/// Rows that a map function emitted: keys and values, as JSON in the form that stored documents have.
#[derive(Debug, Clone)]
pub struct MappedRows<'a>(json::Elements<'a>);

impl<'a> Iterator for MappedRows<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}
