//! Querying views: [`Database::view`](crate::Database::view) and what comes of it.

use crate::adapter::{Adapter, Rows, ViewRows};
use crate::database::Database;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use settee_core::id::design_name;
use settee_core::json::write_string;
use settee_core::options::{AllDocsOptions, DocSet, GetOptions, Update, ViewOptions};
use settee_core::wire::{DocRow, Seq, TempView, ViewRow};
use settee_core::{Document, Error, Result, collate};
use std::collections::VecDeque;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// A query of a view to be made, from [`Database::view`](crate::Database::view) and its relatives.
///
/// Nothing is asked of the database before [`fetch`](View::fetch), [`stream`](View::stream) or
/// [`pages`](View::pages).
///
/// ```
/// # futures_executor::block_on(async {
/// # use settee::adapter::Host;
/// # use settee::local::{Local, NativeView};
/// # let local = Local::memory()?;
/// # local.register(NativeView::new("by_day", 1, |doc, emitter| {
/// #     let number = |name| doc.get(name).and_then(|n| n.as_u64());
/// #     emitter.emit([number("year"), number("month")], number("n"));
/// # }));
/// # let couch = settee::Couch::from_host(std::sync::Arc::new(local));
/// # let db = couch.create("db").await?;
/// # db.put(r#"{"_id": "_design/sales", "language": "rust",
/// #     "views": {"by_month": {"map": "by_day", "reduce": "_sum"}}}"#).await?;
/// use settee::prelude::*;
///
/// for (year, month, n) in [(2007, 11, 3), (2007, 12, 5), (2008, 1, 7)] {
///     db.post(serde_json::json!({"year": year, "month": month, "n": n})).await?;
/// }
/// // The design document `sales` has a view `by_month` of [year, month] and n, with `_sum`.
/// let sales = db.view("sales/by_month");
/// let all = sales.clone().fetch().await?;
/// assert_eq!(all.rows_as::<(), u32>()?[0].value, 15);
///
/// let by_year = sales.clone().group_level(1).fetch().await?;
/// let years: Vec<(u32,)> = by_year.keys_as()?;
/// assert_eq!(years, [(2007,), (2008,)]);
///
/// let late = sales.range((2007, 12)..).reduce(false).include_docs().fetch().await?;
/// assert_eq!(format!("{late:?}"), "<sales/by_month: 2/3 rows>");
/// assert_eq!(late.rows[0].doc.as_ref().unwrap().get("month"), Some(12.into()));
/// # Ok::<(), settee::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
#[must_use = "nothing is asked before `fetch`, `stream` or `pages`"]
pub struct View {
    adapter: Arc<dyn Adapter>,
    source: Source,
    options: ViewOptions,
    /// What is wrong with the query, told when it is made.
    mistake: Option<String>,
}

#[derive(Clone)]
enum Source {
    Stored { ddoc: String, view: String },
    Temporary(TempView),
    Listing(DocSet),
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<View '{}'>", self.name())
    }
}

impl View {
    /// A view by its name: `ddoc/view`, `view` for the view that is called as its design document,
    /// or a path such as `_design/ddoc/_view/view`, `_all_docs`, `_design_docs`, `_local_docs`.
    pub(crate) fn new(adapter: Arc<dyn Adapter>, name: &str) -> View {
        let source = match name {
            "_all_docs" => Source::Listing(DocSet::All),
            "_design_docs" => Source::Listing(DocSet::Design),
            "_local_docs" => Source::Listing(DocSet::Local),
            _ => {
                let path = design_name(name);
                let (ddoc, view) = path.split_once('/').unwrap_or((path, path));
                let view = view.strip_prefix("_view/").unwrap_or(view);
                Source::Stored { ddoc: ddoc.to_owned(), view: view.to_owned() }
            }
        };
        View { adapter, source, options: ViewOptions::default(), mistake: None }
    }

    pub(crate) fn temporary(adapter: Arc<dyn Adapter>, view: TempView) -> View {
        let source = Source::Temporary(view);
        View { adapter, source, options: ViewOptions::default(), mistake: None }
    }

    fn name(&self) -> String {
        match &self.source {
            Source::Stored { ddoc, view } => format!("{ddoc}/{view}"),
            Source::Temporary(_) => "_temp_view".to_owned(),
            Source::Listing(DocSet::All) => "_all_docs".to_owned(),
            Source::Listing(DocSet::Design) => "_design_docs".to_owned(),
            Source::Listing(DocSet::Local) => "_local_docs".to_owned(),
        }
    }

    /// All options at once, in the place of those given before.
    pub fn options(mut self, options: ViewOptions) -> View {
        self.options = options;
        self
    }

    fn json(&mut self, key: &impl Serialize) -> String {
        match serde_json::to_string(key) {
            Ok(text) => text,
            Err(error) => {
                self.mistake = Some(error.to_string());
                "null".to_owned()
            }
        }
    }

    /// Only rows with this key.
    pub fn key(mut self, key: impl Serialize) -> View {
        let key = self.json(&key);
        (self.options.start, self.options.end) = (Some(key.clone()), Some(key));
        self.options.inclusive_end = true;
        self
    }

    /// Only rows with these keys, in this order. Not together with a [`range`](View::range).
    pub fn keys<K: Serialize>(mut self, keys: impl IntoIterator<Item = K>) -> View {
        let keys = keys.into_iter().map(|key| self.json(&key)).collect();
        self.options.keys = Some(keys);
        self
    }

    /// Only rows with keys of a range: `startkey` and `endkey`. When
    /// [`descending`](View::descending), it begins with the highest.
    ///
    /// A range may leave out its end (`a..b`), but not its beginning, for which Rust has no literal
    /// anyway.
    pub fn range<K: Serialize>(mut self, range: impl RangeBounds<K>) -> View {
        self.options.start = match range.start_bound() {
            Bound::Unbounded => None,
            Bound::Included(key) => Some(self.json(key)),
            Bound::Excluded(_) => {
                self.mistake = Some("a range must include its beginning".to_owned());
                None
            }
        };
        (self.options.end, self.options.inclusive_end) = match range.end_bound() {
            Bound::Unbounded => (None, true),
            Bound::Included(key) => (Some(self.json(key)), true),
            Bound::Excluded(key) => (Some(self.json(key)), false),
        };
        self
    }

    /// Of the rows with the first key, begin with this document.
    pub fn start_docid(mut self, id: impl Into<String>) -> View {
        self.options.start_docid = Some(id.into());
        self
    }

    /// Of the rows with the last key, end with this document.
    pub fn end_docid(mut self, id: impl Into<String>) -> View {
        self.options.end_docid = Some(id.into());
        self
    }

    /// Whether to reduce, where the view is made for that.
    pub fn reduce(mut self, reduce: bool) -> View {
        self.options.reduce = Some(reduce);
        self
    }

    /// One row for each key.
    pub fn group(mut self) -> View {
        self.options.group = Some(true);
        self
    }

    /// One row for keys that agree in so many first elements.
    pub fn group_level(mut self, level: u64) -> View {
        self.options.group_level = Some(level);
        self
    }

    /// Return the documents too, or those that the rows' values name as `_id`.
    pub fn include_docs(mut self) -> View {
        self.options.include_docs = true;
        self
    }

    /// Return the documents too, read with these options.
    pub fn include_docs_with(mut self, options: GetOptions) -> View {
        self.options.doc = options;
        self.include_docs()
    }

    /// At most so many rows.
    pub fn limit(mut self, limit: u64) -> View {
        self.options.limit = Some(limit);
        self
    }

    /// Leave out so many rows first.
    pub fn skip(mut self, skip: u64) -> View {
        self.options.skip = skip;
        self
    }

    /// From the last key to the first.
    pub fn descending(mut self) -> View {
        self.options.descending = true;
        self
    }

    /// When to bring the index forward; before the answer, unless given.
    pub fn update(mut self, update: Update) -> View {
        self.options.update = update;
        self
    }

    /// Return the update sequence too.
    pub fn update_seq(mut self) -> View {
        self.options.update_seq = true;
        self
    }

    /// Makes the query, all of its answer in memory.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such view, `QueryParse` if the options make no sense for it.
    pub async fn fetch(self) -> Result<ViewResult> {
        let name = self.name();
        let ViewRows { total_rows, offset, update_seq, rows } = self.start().await?;
        let rows = rows.try_concat().await?;
        Ok(ViewResult { total_rows, offset, update_seq, rows, name })
    }

    /// Makes the query row by row, in little memory.
    ///
    /// # Errors
    ///
    /// As [`fetch`](View::fetch).
    pub async fn stream(self) -> Result<BoxStream<'static, Result<ViewRow>>> {
        let batches = self.start().await?.rows;
        Ok(batches.map_ok(|rows| stream::iter(rows).map(Ok)).try_flatten().boxed())
    }

    /// Makes one query after the other, each of so many rows, and gives their rows one by one.
    ///
    /// A page begins with the key and document behind the last one, so a page deep in the view costs
    /// as much as the first. What is written meanwhile may be missed, or seen twice.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # use settee::local::{Local, NativeView};
    /// # let local = Local::memory()?;
    /// # local.register(NativeView::new("n", 1, |doc, emitter| emitter.emit(doc.get("n"), ())));
    /// # let db = settee::Couch::from_host(std::sync::Arc::new(local)).create("db").await?;
    /// # db.put(r#"{"_id": "_design/d", "language": "rust", "views": {"v": {"map": "n"}}}"#).await?;
    /// # for n in 0..10 {
    /// #     db.post(serde_json::json!({"n": n / 2})).await?;
    /// # }
    /// use settee::prelude::*;
    ///
    /// let rows: Vec<_> = db.view("d/v").descending().pages(3).try_collect().await?;
    /// assert_eq!(rows.len(), 10);
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// The first row is an error if a page, or a limit that is given, is of no rows.
    pub fn pages(self, rows: u64) -> BoxStream<'static, Result<ViewRow>> {
        let left = self.options.limit;
        let pages = Pages { query: self, batch: rows, left, rows: VecDeque::new(), last: false };
        stream::unfold(pages, |mut pages| async {
            match pages.next().await {
                Ok(None) => None,
                Ok(Some(row)) => Some((Ok(row), pages)),
                Err(error) => {
                    (pages.last, pages.left) = (true, None);
                    pages.rows.clear();
                    Some((Err(error), pages))
                }
            }
        })
        .boxed()
    }

    async fn start(self) -> Result<ViewRows> {
        if let Some(mistake) = self.mistake {
            return Err(Error::query_parse(mistake));
        }
        match &self.source {
            Source::Stored { ddoc, view } => self.adapter.view(ddoc, view, &self.options).await,
            Source::Temporary(view) => self.adapter.temp_view(view, &self.options).await,
            Source::Listing(set) => listing(&*self.adapter, *set, self.options).await,
        }
    }
}

/// Rows of `_all_docs` as rows of a view.
pub(crate) async fn listing(
    db: &dyn Adapter,
    set: DocSet,
    options: ViewOptions,
) -> Result<ViewRows> {
    let id = |key: &String| match settee_core::json::string(key) {
        Some(id) => Ok(id.into_owned()),
        None => Err(Error::query_parse("ids are strings")),
    };
    let options = AllDocsOptions {
        set,
        keys: options.keys.map(|keys| keys.iter().map(id).collect()).transpose()?,
        start: options.start.as_ref().map(id).transpose()?,
        end: options.end.as_ref().map(id).transpose()?,
        inclusive_end: options.inclusive_end,
        descending: options.descending,
        limit: options.limit,
        skip: options.skip,
        include_docs: options.include_docs,
        doc: options.doc,
        update_seq: options.update_seq,
    };
    let Rows { total_rows, offset, update_seq, rows } = db.all_docs(&options).await?;
    let row = |row: DocRow| {
        let mut key = Vec::new();
        write_string(&mut key, &row.id);
        let mut view_row = ViewRow { key: key.into(), ..ViewRow::default() };
        match row.rev {
            None => view_row.error = Some("not_found".to_owned()),
            Some(rev) => {
                let mut value = json!({ "rev": rev.to_string() });
                if row.deleted {
                    value["deleted"] = true.into();
                }
                view_row.id = Some(row.id);
                view_row.value = value.to_string().into();
                view_row.doc = row.doc;
            }
        }
        view_row
    };
    let rows = rows.map_ok(move |rows| rows.into_iter().map(row).collect()).boxed();
    Ok(ViewRows { total_rows, offset, update_seq, rows })
}

struct Pages {
    query: View,
    batch: u64,
    /// How many rows may still come, if that is limited.
    left: Option<u64>,
    rows: VecDeque<ViewRow>,
    /// There is no further page.
    last: bool,
}

impl Pages {
    async fn next(&mut self) -> Result<Option<ViewRow>> {
        while self.rows.is_empty() && !self.last {
            if self.batch == 0 {
                return Err(Error::bad_request("batch must be 1 or more"));
            }
            if self.left == Some(0) {
                return Err(Error::bad_request("limit must be 1 or more"));
            }
            self.fetch().await?;
        }
        Ok(self.rows.pop_front())
    }

    /// Fetches a page, and the row behind it to know where the next one begins.
    async fn fetch(&mut self) -> Result<()> {
        let page = self.left.map_or(self.batch, |left| left.min(self.batch));
        let ViewResult { mut rows, .. } = self.query.clone().limit(page + 1).fetch().await?;
        self.left = self.left.map(|left| left - page);
        let next = if rows.len() as u64 > page { rows.pop() } else { None };
        let Some(next) = next.filter(|_| self.left != Some(0)) else {
            self.last = true;
            self.rows.extend(rows);
            return Ok(());
        };
        // A document may have emitted a key more often than fits into a page.
        let place = |row: &ViewRow| -> Result<_> {
            let mut key = Vec::new();
            collate::encode_key_text(&row.key, &mut key)?;
            Ok((key, row.id.clone()))
        };
        let start = place(&next)?;
        let mut same = 0;
        for row in rows.iter().rev() {
            if place(row)? != start {
                break;
            }
            same += 1;
        }
        let options = &mut self.query.options;
        let skipped = if same == rows.len() as u64 { options.skip } else { 0 };
        options.skip = same + skipped;
        options.start = Some(String::from_utf8_lossy(&next.key).into_owned());
        options.start_docid = next.id;
        self.rows.extend(rows);
        Ok(())
    }
}

/// The answer of a view.
#[derive(Clone, PartialEq, Eq)]
pub struct ViewResult {
    /// How many rows the view has, whatever the range; `None` if they were reduced.
    pub total_rows: Option<u64>,
    /// How many come before the first row; `None` if they were reduced.
    pub offset: Option<u64>,
    /// The update sequence that the rows show, where asked for.
    pub update_seq: Option<Seq>,
    /// The rows.
    pub rows: Vec<ViewRow>,
    name: String,
}

/// One row of a view, with key and value as what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<K, V> {
    /// The document that the row is of; `None` if it is reduced from many.
    pub id: Option<String>,
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// The document, where asked for and alive.
    pub doc: Option<Document>,
}

/// `<employees/byname: 17/17 rows>`.
impl fmt::Debug for ViewResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.total_rows {
            Some(total) => write!(f, "<{}: {}/{total} rows>", self.name, self.rows.len()),
            None => write!(f, "<{}: {} rows>", self.name, self.rows.len()),
        }
    }
}

impl ViewResult {
    /// The view's name, as [`Database::view`](crate::Database::view) takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rows there are here.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows' ids, of those that have one.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(|row| row.id.as_deref())
    }

    /// The rows, with keys and values of these types.
    ///
    /// # Errors
    ///
    /// `BadReply` if one of them is something else.
    pub fn rows_as<K: DeserializeOwned, V: DeserializeOwned>(self) -> Result<Vec<Row<K, V>>> {
        let row = |row: ViewRow| {
            let (key, value) = (row.key_as()?, row.value_as()?);
            Ok(Row { id: row.id, key, value, doc: row.doc.map(|doc| *doc) })
        };
        self.rows.into_iter().map(row).collect()
    }

    /// The rows' keys, as values of this type.
    ///
    /// # Errors
    ///
    /// As [`rows_as`](ViewResult::rows_as).
    pub fn keys_as<K: DeserializeOwned>(&self) -> Result<Vec<K>> {
        self.rows.iter().map(ViewRow::key_as).collect()
    }

    /// The rows' values, as values of this type.
    ///
    /// # Errors
    ///
    /// As [`rows_as`](ViewResult::rows_as).
    pub fn values_as<V: DeserializeOwned>(&self) -> Result<Vec<V>> {
        self.rows.iter().map(ViewRow::value_as).collect()
    }
}

impl IntoIterator for ViewResult {
    type Item = ViewRow;
    type IntoIter = std::vec::IntoIter<ViewRow>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter()
    }
}

/// The definition of a view: what a design document says of it, and how it is queried usually.
///
/// ```
/// use settee::ViewDefinition;
///
/// let by_name = ViewDefinition::new("people", "by_name", "
///     function(doc) {
///         if (doc.name) emit(doc.name, null);
///     }
/// ").reduce("_count");
/// assert_eq!(format!("{by_name:?}"), "<ViewDefinition '_design/people/_view/by_name'>");
/// assert!(by_name.map.starts_with("function(doc) {\n    if"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ViewDefinition {
    /// The design document, without `_design/`.
    pub design: String,
    /// The view's name.
    pub name: String,
    /// What the functions are written in.
    pub language: String,
    /// The map function.
    pub map: String,
    /// The reduce function, if there is one.
    pub reduce: Option<String>,
    /// The view's own options, such as its `collation`.
    pub options: serde_json::Map<String, Value>,
    /// How the view is queried unless something else is asked for.
    pub defaults: ViewOptions,
}

impl fmt::Debug for ViewDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ViewDefinition '_design/{}/_view/{}'>", self.design, self.name)
    }
}

impl ViewDefinition {
    /// A view with a map function in JavaScript. Of its source, empty first lines go, and what all
    /// lines are indented by.
    pub fn new(
        design: impl AsRef<str>,
        name: impl Into<String>,
        map: impl AsRef<str>,
    ) -> ViewDefinition {
        let design = design.as_ref();
        ViewDefinition {
            design: design_name(design).to_owned(),
            name: name.into(),
            language: "javascript".to_owned(),
            map: dedent(map.as_ref()),
            reduce: None,
            options: serde_json::Map::new(),
            defaults: ViewOptions::default(),
        }
    }

    /// The definition with a reduce function, or the name of a built-in one. An empty one is none.
    #[must_use]
    pub fn reduce(mut self, reduce: impl AsRef<str>) -> ViewDefinition {
        self.reduce = Some(dedent(reduce.as_ref())).filter(|source| !source.is_empty());
        self
    }

    /// The definition in another language.
    #[must_use]
    pub fn language(mut self, language: impl Into<String>) -> ViewDefinition {
        self.language = language.into();
        self
    }

    /// The definition with an option of its own, such as `collation`.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<Value>) -> ViewDefinition {
        self.options.insert(name.into(), value.into());
        self
    }

    /// The definition with options for queries that say nothing else.
    #[must_use]
    pub fn defaults(mut self, defaults: ViewOptions) -> ViewDefinition {
        self.defaults = defaults;
        self
    }

    /// A query of the view in a database, whose design document must have it.
    pub fn query(&self, db: &Database) -> View {
        db.view(&format!("{}/{}", self.design, self.name)).options(self.defaults.clone())
    }

    /// The design document, if there is one.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being read.
    pub async fn design_doc(&self, db: &Database) -> Result<Option<Document>> {
        db.get_opt(&format!("_design/{}", self.design)).await
    }

    /// Makes sure that the design document has this view, and tells whether it had to be changed.
    /// Other views stay as they are.
    ///
    /// # Errors
    ///
    /// `Conflict` if somebody else changes it at the same time; what keeps it from being read or
    /// written.
    pub async fn sync(&self, db: &Database) -> Result<bool> {
        let mut doc = match self.design_doc(db).await? {
            Some(doc) => doc,
            None => Document::with_id(format!("_design/{}", self.design)),
        };
        let known = doc.clone();
        let mut views = match doc.get("views") {
            Some(Value::Object(views)) => views,
            _ => serde_json::Map::new(),
        };
        let mut view = json!({ "map": self.map });
        if let Some(reduce) = &self.reduce {
            view["reduce"] = reduce.as_str().into();
        }
        if !self.options.is_empty() {
            view["options"] = self.options.clone().into();
        }
        views.insert(self.name.clone(), view);
        doc.set("views", views)?;
        doc.set("language", &self.language)?;
        if doc.body == known.body {
            return Ok(false);
        }
        db.save(&mut doc).await?;
        Ok(true)
    }
}

/// Source text without empty first lines, and without what all its lines are indented by.
fn dedent(source: &str) -> String {
    let source = source.trim_end();
    let lines: Vec<&str> = source.lines().skip_while(|line| line.trim().is_empty()).collect();
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let common = lines.iter().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    let lines: Vec<&str> =
        lines.iter().map(|line| line.get(common..).unwrap_or_default()).collect();
    lines.join("\n")
}
