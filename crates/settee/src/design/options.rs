//! The options of a view, as the parameters of a request have them.

use serde_json::{Map, Value};
use settee_core::options::{Update, ViewOptions};
use settee_core::{Error, Result};

fn bad(name: &str, value: &Value) -> Error {
    Error::query_parse(format!("Invalid value for {name}: {value}"))
}

/// A key as JSON text: a text is JSON already, as in a query.
fn key(name: &str, value: &Value) -> Result<String> {
    let Some(text) = value.as_str() else { return Ok(value.to_string()) };
    let value: Value = serde_json::from_str(text).map_err(|_| bad(name, value))?;
    Ok(value.to_string())
}

fn text(name: &str, value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| bad(name, value))
}

fn flag(name: &str, value: &Value) -> Result<bool> {
    match (value, value.as_str()) {
        (Value::Bool(flag), _) => Ok(*flag),
        (_, Some("true")) => Ok(true),
        (_, Some("false")) => Ok(false),
        _ => Err(bad(name, value)),
    }
}

fn number(name: &str, value: &Value) -> Result<u64> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| bad(name, value))
}

/// Reads the options of a view. Parameters that are none are left to the function.
pub(super) fn view_options(parameters: &Map<String, Value>) -> Result<ViewOptions> {
    let mut options = ViewOptions::default();
    for (name, value) in parameters {
        let name = name.as_str();
        match name {
            "key" => {
                options.start = Some(key(name, value)?);
                options.end.clone_from(&options.start);
            }
            "keys" => {
                let keys = key(name, value)?;
                let keys: Vec<Value> = serde_json::from_str(&keys).map_err(|_| bad(name, value))?;
                options.keys = Some(keys.iter().map(Value::to_string).collect());
            }
            "startkey" | "start_key" => options.start = Some(key(name, value)?),
            "endkey" | "end_key" => options.end = Some(key(name, value)?),
            "startkey_docid" | "start_key_doc_id" => options.start_docid = Some(text(name, value)?),
            "endkey_docid" | "end_key_doc_id" => options.end_docid = Some(text(name, value)?),
            "inclusive_end" => options.inclusive_end = flag(name, value)?,
            "descending" => options.descending = flag(name, value)?,
            "limit" | "count" => options.limit = Some(number(name, value)?),
            "skip" => options.skip = number(name, value)?,
            "reduce" => options.reduce = Some(flag(name, value)?),
            "group" => options.group = Some(flag(name, value)?),
            "group_level" => options.group_level = Some(number(name, value)?),
            "include_docs" => options.include_docs = flag(name, value)?,
            "conflicts" => options.doc.conflicts = flag(name, value)?,
            "attachments" => options.doc.attachments = flag(name, value)?,
            "update_seq" => options.update_seq = flag(name, value)?,
            "sorted" => options.sorted = flag(name, value)?,
            "stable" => options.stable = flag(name, value)?,
            "stale" | "update" => {
                options.update = match value.as_str() {
                    Some("ok" | "false") => Update::Never,
                    Some("update_after" | "lazy") => Update::After,
                    Some("true") => Update::Before,
                    _ => return Err(bad(name, value)),
                }
            }
            _ => {}
        }
    }
    Ok(options)
}
