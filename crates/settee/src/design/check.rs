//! What a design document must be like to be written.

use crate::script::ScriptEngine;
use crate::views::reduce::Reducer;
use serde_json::{Map, Value};
use settee_core::{Document, Error, ErrorKind, Result};

type Object = Map<String, Value>;

/// Refuses a design document whose members are not what they must be, or whose views cannot be
/// compiled. What is deleted may be anything.
pub(super) async fn check_design(
    doc: &Document,
    engine: impl FnOnce() -> Result<std::sync::Arc<dyn ScriptEngine>>,
) -> Result<()> {
    let is_design = doc.id.as_deref().is_some_and(|id| id.starts_with("_design/"));
    if !is_design || doc.deleted {
        return Ok(());
    }
    let design: Object = serde_json::from_str(&doc.to_json()).map_err(Error::internal)?;
    check_members(&design)?;
    let Some(Value::Object(views)) = design.get("views") else { return Ok(()) };
    check_reduces(views)?;
    // What another language needs is not known here.
    if design.get("language").is_some_and(|language| language != "javascript") {
        return Ok(());
    }
    let engine = engine()?;
    for (name, view) in defined(views) {
        for part in ["map", "reduce"] {
            let Some(Value::String(source)) = view.get(part) else { continue };
            if part == "reduce" && source.starts_with('_') {
                continue;
            }
            engine.check(source).await.map_err(|error| match error.name() {
                "compilation_error" => {
                    let reason = error.reason();
                    let reason = format!(
                        "Compilation of the {part} function in the '{name}' view failed: {reason}"
                    );
                    Error::bad_request(reason).with_name("compilation_error")
                }
                _ => error,
            })?;
        }
    }
    Ok(())
}

/// The views, without what they may require.
fn defined(views: &Object) -> impl Iterator<Item = (&String, &Object)> {
    let views = views.iter().filter(|(name, _)| *name != "lib");
    views.filter_map(|(name, view)| Some((name, view.as_object()?)))
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorKind::BadRequest, reason).with_name("invalid_design_doc")
}

fn check_members(design: &Object) -> Result<()> {
    check_all(design, "filters", &["string", "object"])?;
    check(design, "", "language", &["string"])?;
    check_all(design, "lists", &["string", "object"])?;
    let options = check(design, "", "options", &["object"])?;
    if let Some(Value::Object(options)) = options {
        for name in ["include_design", "local_seq", "partitioned"] {
            check(options, "options.", name, &["boolean"])?;
        }
        if options.get("partitioned") == Some(&Value::Bool(true)) {
            let reason = "partitioned option cannot be true in a non-partitioned database.";
            return Err(invalid(reason.to_owned()));
        }
    }
    check(design, "", "rewrites", &["array", "string"])?;
    check_all(design, "shows", &["string", "object"])?;
    check_all(design, "updates", &["string", "object"])?;
    check(design, "", "validate_doc_update", &["string"])?;
    check_all(design, "views", &["object"])?;
    let Some(Value::Object(views)) = design.get("views") else { return Ok(()) };
    // Only Mango's indexes are not made by functions.
    let map =
        if design.get("language") == Some(&Value::from("query")) { "object" } else { "string" };
    for (name, view) in defined(views) {
        let place = format!("views.{name}.");
        if check(view, &place, "map", &[map])?.is_none() {
            return Err(invalid(format!("View `{name}` must contain map function")));
        }
        check(view, &place, "reduce", &["string"])?;
    }
    Ok(())
}

fn check_reduces(views: &Object) -> Result<()> {
    for (_, view) in defined(views) {
        match view.get("reduce") {
            Some(Value::String(name)) if name.starts_with('_') => drop(Reducer::built_in(name)?),
            _ => {}
        }
    }
    Ok(())
}

/// A member that is an object whose members are of one of some types.
fn check_all(object: &Object, name: &str, types: &[&str]) -> Result<()> {
    if let Some(Value::Object(members)) = check(object, "", name, &["object"])? {
        for member in members.keys() {
            check(members, &format!("{name}."), member, types)?;
        }
    }
    Ok(())
}

/// A member that is of one of some types, if it is there.
fn check<'a>(
    object: &'a Object,
    place: &str,
    name: &str,
    types: &[&str],
) -> Result<Option<&'a Value>> {
    let Some(value) = object.get(name) else { return Ok(None) };
    let found = match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Null | Value::Number(_) => "",
    };
    match types.contains(&found) {
        true => Ok(Some(value)),
        false => {
            let types = types.join(" or ");
            Err(invalid(format!("`{place}{name}` field must have {types} type")))
        }
    }
}
