//! Mango queries: what `_find`, `_explain` and `_index` are asked and answer.

use crate::Document;
use crate::id::design_name;
use crate::selector::Selector;
use serde::Deserialize;
use serde_json::{Value, json};

/// What `POST /{db}/_find` and `_explain` ask.
#[derive(Debug, Clone, PartialEq)]
pub struct FindOptions {
    /// Which documents.
    pub selector: Selector,
    /// Just these fields of each; all without it.
    pub fields: Option<Vec<String>>,
    /// By these fields, each from the highest value on if it is `true`.
    pub sort: Vec<(String, bool)>,
    /// At most so many; CouchDB gives 25 without it.
    pub limit: Option<u64>,
    /// Leave out so many first.
    pub skip: u64,
    /// Where an earlier answer ended.
    pub bookmark: Option<String>,
    /// Use the index of this design document, perhaps the one of this name.
    pub use_index: Option<(String, Option<String>)>,
    /// Return the conflicts of each document too.
    pub conflicts: bool,
    /// Bring the index up to date first.
    pub update: bool,
    /// Say what the answer cost.
    pub execution_stats: bool,
}

impl FindOptions {
    /// All documents that match.
    pub fn new(selector: Selector) -> FindOptions {
        FindOptions {
            selector,
            fields: None,
            sort: Vec::new(),
            limit: None,
            skip: 0,
            bookmark: None,
            use_index: None,
            conflicts: false,
            update: true,
            execution_stats: false,
        }
    }

    /// The request's body.
    pub fn to_value(&self) -> Value {
        let mut body = json!({"selector": self.selector.to_value(), "skip": self.skip});
        let mut set = |name: &str, value: Value| body[name] = value;
        if let Some(fields) = &self.fields {
            set("fields", json!(fields));
        }
        if !self.sort.is_empty() {
            let sort = self.sort.iter().map(|(field, descending)| {
                let order = if *descending { "desc" } else { "asc" };
                json!({field: order})
            });
            set("sort", sort.collect());
        }
        if let Some(limit) = self.limit {
            set("limit", json!(limit));
        }
        if let Some(bookmark) = &self.bookmark {
            set("bookmark", json!(bookmark));
        }
        match &self.use_index {
            None => {}
            Some((ddoc, None)) => set("use_index", json!(ddoc)),
            Some((ddoc, Some(name))) => set("use_index", json!([ddoc, name])),
        }
        if self.conflicts {
            set("conflicts", json!(true));
        }
        if !self.update {
            set("update", json!(false));
        }
        if self.execution_stats {
            set("execution_stats", json!(true));
        }
        body
    }
}

/// Some of the documents that match a query.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// The documents, or what was asked of them.
    pub docs: Vec<Document>,
    /// Where the next answer begins. There may be one behind the last document, too.
    pub bookmark: Option<String>,
    /// What the server wants to be known: above all that there was no index to use.
    pub warning: Option<String>,
    /// What the answer cost, where asked for.
    pub execution_stats: Option<Value>,
}

/// An index for Mango queries, as `GET /{db}/_index` describes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct IndexInfo {
    /// Its design document; the one of all documents by their id has none.
    pub ddoc: Option<String>,
    /// Its name, of its own within the design document.
    pub name: String,
    /// `json`, `text`, `nouveau` or `special`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it holds, with the fields under `fields`.
    pub def: Value,
}

impl IndexInfo {
    /// The fields in their order, each with whether it is descending.
    pub fn fields(&self) -> Vec<(String, bool)> {
        let fields = self.def.get("fields").and_then(Value::as_array);
        let pair = |field: &Value| match field {
            Value::String(name) => Some((name.clone(), false)),
            field => {
                let (name, order) = field.as_object()?.iter().next()?;
                Some((name.clone(), order == "desc"))
            }
        };
        fields.into_iter().flatten().filter_map(pair).collect()
    }
}

/// An index to be made by `POST /{db}/_index`.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexDefinition {
    /// The fields in their order, each from the highest value on if it is `true`.
    pub fields: Vec<(String, bool)>,
    /// Its design document; one is made up without it.
    pub ddoc: Option<String>,
    /// Its name; one is made up without it.
    pub name: Option<String>,
    /// Only documents that match are in it.
    pub partial_filter: Option<Selector>,
}

impl IndexDefinition {
    /// An index of these fields, ascending.
    pub fn new<S: Into<String>>(fields: impl IntoIterator<Item = S>) -> IndexDefinition {
        let fields = fields.into_iter().map(|field| (field.into(), false)).collect();
        IndexDefinition { fields, ddoc: None, name: None, partial_filter: None }
    }

    /// In this design document, `_design/` or not.
    pub fn ddoc(mut self, ddoc: &str) -> IndexDefinition {
        self.ddoc = Some(design_name(ddoc).to_owned());
        self
    }

    /// By this name.
    pub fn name(mut self, name: &str) -> IndexDefinition {
        self.name = Some(name.to_owned());
        self
    }

    /// Only of documents that match.
    pub fn partial_filter(mut self, selector: Selector) -> IndexDefinition {
        self.partial_filter = Some(selector);
        self
    }

    /// The request's body.
    pub fn to_value(&self) -> Value {
        let fields = self.fields.iter().map(|(field, descending)| match descending {
            false => json!(field),
            true => json!({field: "desc"}),
        });
        let mut index = json!({"fields": fields.collect::<Value>()});
        if let Some(selector) = &self.partial_filter {
            index["partial_filter_selector"] = selector.to_value();
        }
        let mut body = json!({"index": index, "type": "json"});
        if let Some(ddoc) = &self.ddoc {
            body["ddoc"] = json!(ddoc);
        }
        if let Some(name) = &self.name {
            body["name"] = json!(name);
        }
        body
    }
}

/// What became of an index that was to be made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IndexCreated {
    /// The id of its design document.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `created`, or `exists`.
    pub result: String,
}

impl IndexCreated {
    /// Whether it was not there before.
    pub fn is_new(&self) -> bool {
        self.result == "created"
    }
}
