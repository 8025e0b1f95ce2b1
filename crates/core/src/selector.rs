//! Mango selectors: which documents match.
//!
//! A selector is [normalised](Selector::parse) as CouchDB does it: what is implied becomes explicit
//! (`{"a": 1}` is `{"a": {"$eq": 1}}`, members beside each other are an `$and`), nested fields become
//! one path, and negations move inwards as far as they can, so that an index can be found for what
//! is left.
//!
//! Values compare in the order of [view keys](crate::collate), so `$eq` holds for strings that
//! collate alike. A field that is missing matches nothing but `{"$exists": false}`.
//!
//! Regular expressions are those of the `regex` crate, which match in linear time: no look-around
//! and no back-references. They see characters, where CouchDB's see bytes.

use crate::collate;
use crate::error::{Error, Result};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A normalised selector.
///
/// ```
/// use serde_json::json;
/// use settee_core::selector::Selector;
///
/// let selector = Selector::parse(&json!({"type": "Person", "age": {"$not": {"$lt": 18}}}))?;
/// assert!(selector.matches(&json!({"_id": "a", "type": "Person", "age": 30})));
/// assert!(!selector.matches(&json!({"_id": "b", "type": "Person"})));
/// assert_eq!(
///     selector.to_value(),
///     json!({"$and": [{"type": {"$eq": "Person"}}, {"age": {"$gte": 18}}]})
/// );
/// # Ok::<(), settee_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    root: Expr,
}

/// A selector, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// `{}`: all match. Only as the whole of a selector.
    Any,
    /// `$and`. Without parts it matches.
    And(Vec<Expr>),
    /// `$or`. Without parts it matches too.
    Or(Vec<Expr>),
    /// `$not`. Only below `$elemMatch` and its relatives; elsewhere it has moved inwards.
    Not(Box<Expr>),
    /// `$nor`. As [`Expr::Not`].
    Nor(Vec<Expr>),
    /// What is at the path is there and fulfils the condition.
    Field(Path, Condition),
}

/// What a value has to fulfil.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// `$lt`
    Lt(Value),
    /// `$lte`
    Lte(Value),
    /// `$eq`
    Eq(Value),
    /// `$ne`
    Ne(Value),
    /// `$gte`
    Gte(Value),
    /// `$gt`
    Gt(Value),
    /// `$exists`
    Exists(bool),
    /// `$type`: `null`, `boolean`, `number`, `string`, `array` or `object`.
    Type(String),
    /// `$in`: the value, or an element of it, is one of these.
    In(Vec<Value>),
    /// `$nin`: the opposite.
    Nin(Vec<Value>),
    /// `$size`: an array of so many elements.
    Size(u64),
    /// `$mod`: an integer that divided by the first leaves the second.
    Mod(i64, i64),
    /// `$regex`
    Regex(Pattern),
    /// `$beginsWith`
    BeginsWith(String),
    /// `$all`: an array that has all of these, in any order.
    All(Vec<Value>),
    /// `$elemMatch`: an array with an element that matches.
    ElemMatch(Box<Expr>),
    /// `$allMatch`: an array, not empty, of which all elements match.
    AllMatch(Box<Expr>),
    /// `$keyMapMatch`: an object with a member whose name matches.
    KeyMapMatch(Box<Expr>),
    /// `$not` before a condition that has no opposite.
    Not(Box<Condition>),
}

/// The names that lead to a field. Below `$elemMatch` and its relatives, none leads to the element
/// itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Path(Arc<[Arc<str>]>);

/// A compiled regular expression.
#[derive(Clone)]
pub struct Pattern(Regex);

/// How deep a selector may be nested, in operators and fields together.
const MAX_DEPTH: usize = 100;
/// How many conditions a selector may have.
const MAX_CONDITIONS: usize = 10_000;
/// How many bytes a compiled regular expression may take.
const MAX_PATTERN: usize = 1 << 20;

impl Selector {
    /// Normalises a selector. What is none is CouchDB's error, a 400 with a name of its own.
    pub fn parse(selector: &Value) -> Result<Selector> {
        let root = match selector {
            Value::Object(members) if members.is_empty() => Expr::Any,
            Value::Object(_) => {
                let parsed = Parser { left: MAX_CONDITIONS }.expr(selector, &Path::root(), 0)?;
                inward(parsed)
            }
            other => {
                let reason = format!("Selector must be a JSON object, not: {}", shown(other));
                return Err(Error::bad_request(reason).with_name("invalid_selector_json"));
            }
        };
        match root {
            Expr::Field(path, _) if path.is_root() => {
                let reason = "One or more conditions is missing a field name.";
                Err(Error::bad_request(reason).with_name("invalid_selector"))
            }
            root => Ok(Selector { root }),
        }
    }

    /// The selector that all documents match.
    pub fn any() -> Selector {
        Selector { root: Expr::Any }
    }

    /// Whether a document matches, given with its `_id` and other special members.
    pub fn matches(&self, doc: &Value) -> bool {
        self.root.matches(doc)
    }

    /// What there is to match.
    pub fn root(&self) -> &Expr {
        &self.root
    }

    /// The normalised selector as JSON, which [`parse`](Selector::parse) reads back.
    pub fn to_value(&self) -> Value {
        self.root.to_value()
    }

    /// The fields it looks at, in order, without those inside of arrays.
    pub fn fields(&self) -> Vec<&Path> {
        fn collect<'a>(expr: &'a Expr, fields: &mut Vec<&'a Path>) {
            match expr {
                Expr::Any => {}
                Expr::And(parts) | Expr::Or(parts) | Expr::Nor(parts) => {
                    parts.iter().for_each(|part| collect(part, fields));
                }
                Expr::Not(part) => collect(part, fields),
                Expr::Field(path, _) => fields.push(path),
            }
        }
        let mut fields = Vec::new();
        collect(&self.root, &mut fields);
        fields
    }

    /// Whether only documents match that have this field. An index over it then misses none.
    pub fn requires(&self, field: &Path) -> bool {
        fn requires(expr: &Expr, field: &Path) -> bool {
            match expr {
                Expr::And(parts) => parts.iter().any(|part| requires(part, field)),
                Expr::Or(parts) => {
                    !parts.is_empty() && parts.iter().all(|part| requires(part, field))
                }
                Expr::Field(_, Condition::Exists(false)) => false,
                Expr::Field(path, _) => path == field,
                Expr::Any | Expr::Not(_) | Expr::Nor(_) => false,
            }
        }
        requires(&self.root, field)
    }

    /// The conditions that a field has to fulfil in any case.
    pub fn conditions(&self, field: &Path) -> Vec<&Condition> {
        fn collect<'a>(expr: &'a Expr, field: &Path, conditions: &mut Vec<&'a Condition>) {
            match expr {
                Expr::And(parts) => {
                    parts.iter().for_each(|part| collect(part, field, conditions));
                }
                Expr::Field(path, condition) if path == field => conditions.push(condition),
                _ => {}
            }
        }
        let mut conditions = Vec::new();
        collect(&self.root, field, &mut conditions);
        conditions
    }
}

impl TryFrom<&Value> for Selector {
    type Error = Error;

    fn try_from(selector: &Value) -> Result<Selector> {
        Selector::parse(selector)
    }
}

fn bad_arg(operator: &str, argument: &Value) -> Error {
    Error::bad_request(format!("Bad argument for operator {operator}: {}", shown(argument)))
        .with_name("bad_arg")
}

/// A value as it is shown in an error: not all of it if it is long.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 200;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Reads selectors, up to a number of conditions.
struct Parser {
    left: usize,
}

impl Parser {
    /// Reads what applies to the value at `path`.
    fn expr(&mut self, selector: &Value, path: &Path, depth: usize) -> Result<Expr> {
        if depth > MAX_DEPTH || path.0.len() > MAX_DEPTH {
            return Err(too_much("Selector is nested too deeply."));
        }
        let members = match selector {
            // An empty object is a value like any other.
            Value::Object(members) if !members.is_empty() => members,
            value => return self.field(path, Condition::Eq(value.clone())),
        };
        let mut parts = members.iter().map(|member| self.member(member, path, depth + 1));
        match (parts.len(), parts.next()) {
            (1, Some(part)) => part,
            (_, first) => Ok(Expr::And(first.into_iter().chain(parts).collect::<Result<_>>()?)),
        }
    }

    fn field(&mut self, path: &Path, condition: Condition) -> Result<Expr> {
        self.left = self.left.checked_sub(1).ok_or_else(|| too_much("Selector is too large."))?;
        Ok(Expr::Field(path.clone(), condition))
    }

    fn all(&mut self, selectors: &[Value], path: &Path, depth: usize) -> Result<Vec<Expr>> {
        selectors.iter().map(|selector| self.expr(selector, path, depth)).collect()
    }

    /// Reads an operator with its argument, or a field with its condition.
    fn member(
        &mut self,
        (name, argument): (&String, &Value),
        path: &Path,
        depth: usize,
    ) -> Result<Expr> {
        use Value::{Array, Bool, Object, String};
        let bad = || Err(bad_arg(name, argument));
        let condition = match (name.as_str(), argument) {
            ("$and", Array(parts)) => return Ok(Expr::And(self.all(parts, path, depth)?)),
            ("$or", Array(parts)) => return Ok(Expr::Or(self.all(parts, path, depth)?)),
            ("$nor", Array(parts)) => return Ok(Expr::Nor(self.all(parts, path, depth)?)),
            ("$not", Object(_)) => {
                return Ok(Expr::Not(Box::new(self.expr(argument, path, depth)?)));
            }
            ("$lt", value) => Condition::Lt(value.clone()),
            ("$lte", value) => Condition::Lte(value.clone()),
            ("$eq", value) => Condition::Eq(value.clone()),
            ("$ne", value) => Condition::Ne(value.clone()),
            ("$gte", value) => Condition::Gte(value.clone()),
            ("$gt", value) => Condition::Gt(value.clone()),
            ("$exists", Bool(exists)) => Condition::Exists(*exists),
            ("$type", String(name)) => Condition::Type(name.clone()),
            ("$in", Array(values)) => Condition::In(values.clone()),
            ("$nin", Array(values)) => Condition::Nin(values.clone()),
            ("$all", Array(values)) => Condition::All(values.clone()),
            ("$beginsWith", String(prefix)) => Condition::BeginsWith(prefix.clone()),
            ("$regex", String(text)) => match Pattern::new(text) {
                Some(pattern) => Condition::Regex(pattern),
                None => return bad(),
            },
            ("$size", Value::Number(size)) => match size.as_u64() {
                Some(size) => Condition::Size(size),
                None => return bad(),
            },
            ("$mod", Array(pair)) => match pair.as_slice() {
                [divisor, remainder] => match (divisor.as_i64(), remainder.as_i64()) {
                    (Some(divisor), Some(remainder)) if divisor != 0 => {
                        Condition::Mod(divisor, remainder)
                    }
                    _ => return bad(),
                },
                _ => return bad(),
            },
            ("$elemMatch", Object(_)) => Condition::ElemMatch(self.inside(argument, depth)?),
            ("$allMatch", Object(_)) => Condition::AllMatch(self.inside(argument, depth)?),
            ("$keyMapMatch", Object(_)) => Condition::KeyMapMatch(self.inside(argument, depth)?),
            (
                "$and" | "$or" | "$nor" | "$not" | "$exists" | "$type" | "$in" | "$nin" | "$all"
                | "$size" | "$mod" | "$elemMatch" | "$allMatch" | "$keyMapMatch",
                _,
            ) => return bad(),
            ("$text" | "$where" | "$geoWithin" | "$geoIntersects" | "$near" | "$nearSphere", _) => {
                let error = Error::bad_request(format!("Unsupported operator: {name}"));
                return Err(error.with_name("not_supported"));
            }
            (unknown, _) if unknown.starts_with('$') => {
                let error = Error::bad_request(format!("Invalid operator: {unknown}"));
                return Err(error.with_name("invalid_operator"));
            }
            (field, condition) => return self.expr(condition, &path.join(field)?, depth),
        };
        self.field(path, condition)
    }

    /// Reads a selector of elements, for which paths begin anew.
    fn inside(&mut self, selector: &Value, depth: usize) -> Result<Box<Expr>> {
        self.expr(selector, &Path::root(), depth).map(Box::new)
    }
}

fn too_much(reason: &'static str) -> Error {
    Error::bad_request(reason).with_name("invalid_selector")
}

/// Moves negations inwards. Those of elements stay where they are, as in CouchDB.
fn inward(expr: Expr) -> Expr {
    match expr {
        Expr::Not(part) => negate(*part),
        Expr::Nor(parts) => Expr::And(parts.into_iter().map(negate).collect()),
        Expr::And(parts) => Expr::And(parts.into_iter().map(inward).collect()),
        Expr::Or(parts) => Expr::Or(parts.into_iter().map(inward).collect()),
        other => other,
    }
}

/// The opposite, except that a missing field does not fulfil it either.
fn negate(expr: Expr) -> Expr {
    match expr {
        Expr::Not(part) => inward(*part),
        Expr::Nor(parts) => Expr::Or(parts.into_iter().map(inward).collect()),
        Expr::And(parts) => Expr::Or(parts.into_iter().map(negate).collect()),
        Expr::Or(parts) => Expr::And(parts.into_iter().map(negate).collect()),
        Expr::Field(path, condition) => Expr::Field(path, condition.negate()),
        Expr::Any => Expr::Any,
    }
}

impl Expr {
    fn matches(&self, value: &Value) -> bool {
        let matches = |part: &Expr| part.matches(value);
        match self {
            Expr::Any => true,
            Expr::And(parts) => parts.iter().all(matches),
            Expr::Or(parts) => parts.is_empty() || parts.iter().any(matches),
            Expr::Not(part) => !matches(part),
            Expr::Nor(parts) => !parts.iter().any(matches),
            Expr::Field(path, condition) => match path.find(value) {
                Found::Value(value) => condition.holds(value),
                Found::Missing => *condition == Condition::Exists(false),
                Found::NoPath => false,
            },
        }
    }

    fn to_value(&self) -> Value {
        let all = |parts: &[Expr]| parts.iter().map(Expr::to_value).collect::<Value>();
        match self {
            Expr::Any => json!({}),
            Expr::And(parts) => json!({"$and": all(parts)}),
            Expr::Or(parts) => json!({"$or": all(parts)}),
            Expr::Nor(parts) => json!({"$nor": all(parts)}),
            Expr::Not(part) => json!({"$not": part.to_value()}),
            Expr::Field(path, condition) if path.is_root() => condition.to_value(),
            Expr::Field(path, condition) => {
                Map::from_iter([(path.to_string(), condition.to_value())]).into()
            }
        }
    }
}

impl Condition {
    fn negate(self) -> Condition {
        match self {
            Condition::Lt(value) => Condition::Gte(value),
            Condition::Lte(value) => Condition::Gt(value),
            Condition::Eq(value) => Condition::Ne(value),
            Condition::Ne(value) => Condition::Eq(value),
            Condition::Gte(value) => Condition::Lt(value),
            Condition::Gt(value) => Condition::Lte(value),
            Condition::In(values) => Condition::Nin(values),
            Condition::Nin(values) => Condition::In(values),
            Condition::Exists(exists) => Condition::Exists(!exists),
            Condition::Not(condition) => *condition,
            other => Condition::Not(Box::new(other)),
        }
    }

    /// Whether a value that is there fulfils this.
    pub fn holds(&self, value: &Value) -> bool {
        let order = |argument: &Value| collate::compare(value, argument);
        match self {
            Condition::Lt(argument) => order(argument).is_lt(),
            Condition::Lte(argument) => order(argument).is_le(),
            Condition::Eq(argument) => order(argument).is_eq(),
            Condition::Ne(argument) => order(argument).is_ne(),
            Condition::Gte(argument) => order(argument).is_ge(),
            Condition::Gt(argument) => order(argument).is_gt(),
            Condition::Exists(exists) => *exists,
            Condition::Type(name) => type_name(value) == name,
            Condition::In(arguments) => is_in(value, arguments),
            Condition::Nin(arguments) => !is_in(value, arguments),
            Condition::Size(size) => value.as_array().is_some_and(|a| a.len() as u64 == *size),
            Condition::Mod(divisor, remainder) => {
                let integer = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
                integer.is_some_and(|n| n % i128::from(*divisor) == i128::from(*remainder))
            }
            Condition::Regex(pattern) => value.as_str().is_some_and(|s| pattern.0.is_match(s)),
            Condition::BeginsWith(prefix) => value.as_str().is_some_and(|s| s.starts_with(prefix)),
            Condition::All(arguments) => value.as_array().is_some_and(|elements| {
                let whole = match arguments.as_slice() {
                    [] => return false,
                    [Value::Array(whole)] => Some(whole),
                    _ => None,
                };
                arguments.iter().all(|argument| elements.contains(argument))
                    || whole == Some(elements)
            }),
            Condition::ElemMatch(part) => {
                value.as_array().is_some_and(|elements| elements.iter().any(|e| part.matches(e)))
            }
            Condition::AllMatch(part) => value.as_array().is_some_and(|elements| {
                !elements.is_empty() && elements.iter().all(|e| part.matches(e))
            }),
            Condition::KeyMapMatch(part) => value.as_object().is_some_and(|members| {
                members.keys().any(|name| part.matches(&Value::String(name.clone())))
            }),
            Condition::Not(condition) => !condition.holds(value),
        }
    }

    /// The condition as JSON.
    pub fn to_value(&self) -> Value {
        match self {
            Condition::Lt(value) => json!({"$lt": value}),
            Condition::Lte(value) => json!({"$lte": value}),
            Condition::Eq(value) => json!({"$eq": value}),
            Condition::Ne(value) => json!({"$ne": value}),
            Condition::Gte(value) => json!({"$gte": value}),
            Condition::Gt(value) => json!({"$gt": value}),
            Condition::Exists(exists) => json!({"$exists": exists}),
            Condition::Type(name) => json!({"$type": name}),
            Condition::In(values) => json!({"$in": values}),
            Condition::Nin(values) => json!({"$nin": values}),
            Condition::Size(size) => json!({"$size": size}),
            Condition::Mod(divisor, remainder) => json!({"$mod": [divisor, remainder]}),
            Condition::Regex(pattern) => json!({"$regex": pattern.as_str()}),
            Condition::BeginsWith(prefix) => json!({"$beginsWith": prefix}),
            Condition::All(values) => json!({"$all": values}),
            Condition::ElemMatch(part) => json!({"$elemMatch": part.to_value()}),
            Condition::AllMatch(part) => json!({"$allMatch": part.to_value()}),
            Condition::KeyMapMatch(part) => json!({"$keyMapMatch": part.to_value()}),
            Condition::Not(condition) => json!({"$not": condition.to_value()}),
        }
    }
}

/// Whether one of the arguments equals the value or, of an array, one of its elements.
fn is_in(value: &Value, arguments: &[Value]) -> bool {
    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    arguments.iter().any(|argument| {
        values.iter().any(|value| collate::compare(value, argument) == Ordering::Equal)
    })
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What is at the end of a path.
enum Found<'a> {
    Value(&'a Value),
    /// The object there has no such member.
    Missing,
    /// What is there has no members.
    NoPath,
}

impl Path {
    fn root() -> Path {
        Path(Arc::new([]))
    }

    fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a field's name: dots separate the names of objects within objects, or the numbers of
    /// elements of arrays; a dot behind a backslash is part of a name.
    ///
    /// ```
    /// use settee_core::selector::Path;
    ///
    /// let path = Path::parse(r"stars.v2\.0.mean")?;
    /// assert_eq!(path.names().collect::<Vec<_>>(), ["stars", "v2.0", "mean"]);
    /// assert_eq!(path.to_string(), r"stars.v2\.0.mean");
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    pub fn parse(field: &str) -> Result<Path> {
        Path::root().join(field)
    }

    /// The path that goes on from here.
    fn join(&self, field: &str) -> Result<Path> {
        let mut names = self.0.to_vec();
        let mut name = String::new();
        let mut escaped = false;
        for char in field.chars().chain(['.']) {
            if char == '.' && !escaped {
                if name.is_empty() {
                    return Err(Error::bad_request(format!("Invalid field name: {field}"))
                        .with_name("invalid_field_name"));
                }
                names.push(Arc::from(std::mem::take(&mut name)));
            } else if char != '\\' {
                name.push(char);
            }
            escaped = char == '\\';
        }
        Ok(Path(names.into()))
    }

    /// The names, outermost first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// The value at this path of a document, if it is there.
    pub fn get<'a>(&self, doc: &'a Value) -> Option<&'a Value> {
        match self.find(doc) {
            Found::Value(value) => Some(value),
            Found::Missing | Found::NoPath => None,
        }
    }

    fn find<'a>(&self, mut value: &'a Value) -> Found<'a> {
        for name in self.names() {
            value = match value {
                Value::Object(members) => match members.get(name) {
                    Some(value) => value,
                    None => return Found::Missing,
                },
                Value::Array(elements) => {
                    match name.parse().ok().and_then(|index: usize| elements.get(index)) {
                        Some(value) => value,
                        None => return Found::NoPath,
                    }
                }
                _ => return Found::NoPath,
            };
        }
        Found::Value(value)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.names().enumerate() {
            let dot = if i == 0 { "" } else { "." };
            write!(f, "{dot}{}", name.replace('.', "\\."))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Pattern {
    /// Compiles a pattern, unless it is wrong or too large.
    fn new(pattern: &str) -> Option<Pattern> {
        let mut builder = RegexBuilder::new(pattern);
        builder.size_limit(MAX_PATTERN).dfa_size_limit(MAX_PATTERN).build().ok().map(Pattern)
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(selector: Value) -> Selector {
        let parsed = Selector::parse(&selector).unwrap();
        assert_eq!(Selector::parse(&parsed.to_value()).unwrap(), parsed, "{selector}");
        parsed
    }

    /// Each document with whether it matches.
    fn check(selector: Value, docs: &[(Value, bool)]) {
        let parsed = parse(selector.clone());
        for (doc, matches) in docs {
            assert_eq!(parsed.matches(doc), *matches, "{selector} {doc}");
        }
    }

    #[test]
    fn selectors_are_normalised() {
        for (selector, normal) in [
            (json!({}), json!({})),
            (json!({"type": "Person"}), json!({"type": {"$eq": "Person"}})),
            (
                json!({"a": 1, "b": {"$gt": 2, "$lt": 5}}),
                json!({"$and": [
                    {"a": {"$eq": 1}},
                    {"$and": [{"b": {"$gt": 2}}, {"b": {"$lt": 5}}]}
                ]}),
            ),
            (json!({"a": {"b": {"c": true}}}), json!({"a.b.c": {"$eq": true}})),
            (json!({"a.b": {"c\\.d": 1}}), json!({"a.b.c\\.d": {"$eq": 1}})),
            (json!({"a": {}}), json!({"a": {"$eq": {}}})),
            (json!({"a": [1]}), json!({"a": {"$eq": [1]}})),
            (json!({"$not": {"a": {"$gt": 1}}}), json!({"a": {"$lte": 1}})),
            (json!({"a": {"$not": {"$in": [1]}}}), json!({"a": {"$nin": [1]}})),
            (json!({"$not": {"a": {"$exists": true}}}), json!({"a": {"$exists": false}})),
            (json!({"$not": {"a": {"$regex": "x"}}}), json!({"a": {"$not": {"$regex": "x"}}})),
            (
                json!({"$nor": [{"a": {"$lt": 1}}, {"$or": [{"b": 2}, {"$not": {"c": 3}}]}]}),
                json!({"$and": [
                    {"a": {"$gte": 1}},
                    {"$and": [{"b": {"$ne": 2}}, {"c": {"$eq": 3}}]}
                ]}),
            ),
            (
                json!({"a": {"$elemMatch": {"$gte": 80, "$lt": 85}}}),
                json!({"a": {"$elemMatch": {"$and": [{"$gte": 80}, {"$lt": 85}]}}}),
            ),
            (
                json!({"a": {"$elemMatch": {"$not": {"b": 1}}}}),
                json!({"a": {"$elemMatch": {"$not": {"b": {"$eq": 1}}}}}),
            ),
        ] {
            assert_eq!(parse(selector).to_value(), normal);
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        let deep = (0..200).fold(json!(1), |inner, _| json!({"a": inner}));
        let nested = (0..200).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
        let wide: Value = (0..20_000).map(|n| json!({"a": n})).collect();
        for (selector, name) in [
            (json!(1), "invalid_selector_json"),
            (json!(["a"]), "invalid_selector_json"),
            (json!({"$gt": 1}), "invalid_selector"),
            (json!({"$not": {"$eq": 1}}), "invalid_selector"),
            (json!({"a": {"$foo": 1}}), "invalid_operator"),
            (json!({"$foo": 1}), "invalid_operator"),
            (json!({"a": {"$beginsWith": 1}}), "invalid_operator"),
            (json!({"a": {"$regex": 1}}), "invalid_operator"),
            (json!({"a": {"$regex": "("}}), "bad_arg"),
            (json!({"a": {"$regex": "(?=x)"}}), "bad_arg"),
            (json!({"a": {"$regex": "((a{999}){999}){999}"}}), "bad_arg"),
            (json!({"$and": {"a": 1}}), "bad_arg"),
            (json!({"$or": 1}), "bad_arg"),
            (json!({"$nor": 1}), "bad_arg"),
            (json!({"$not": [1]}), "bad_arg"),
            (json!({"a": {"$in": 1}}), "bad_arg"),
            (json!({"a": {"$nin": {}}}), "bad_arg"),
            (json!({"a": {"$all": 1}}), "bad_arg"),
            (json!({"a": {"$exists": 1}}), "bad_arg"),
            (json!({"a": {"$type": 1}}), "bad_arg"),
            (json!({"a": {"$size": -1}}), "bad_arg"),
            (json!({"a": {"$size": 1.0}}), "bad_arg"),
            (json!({"a": {"$mod": [2]}}), "bad_arg"),
            (json!({"a": {"$mod": [0, 1]}}), "bad_arg"),
            (json!({"a": {"$mod": [2, 1.5]}}), "bad_arg"),
            (json!({"a": {"$elemMatch": 1}}), "bad_arg"),
            (json!({"a": {"$allMatch": [1]}}), "bad_arg"),
            (json!({"a": {"$keyMapMatch": "x"}}), "bad_arg"),
            (json!({"$where": "x"}), "not_supported"),
            (json!({"a..b": 1}), "invalid_field_name"),
            (json!({"": 1}), "invalid_field_name"),
            (json!({"a.": 1}), "invalid_field_name"),
            (deep, "invalid_selector"),
            (nested, "invalid_selector"),
            (json!({"$or": wide}), "invalid_selector"),
        ] {
            let error = Selector::parse(&selector).unwrap_err();
            assert_eq!((error.status(), error.name()), (400, name), "{error}");
            assert!(error.reason().len() < 300);
        }
        let error = Selector::parse(&json!({"a": {"$in": "x"}})).unwrap_err();
        assert_eq!(error.reason(), "Bad argument for operator $in: \"x\"");
    }

    #[test]
    fn an_empty_selector_matches_all() {
        check(json!({}), &[(json!({}), true), (json!({"a": 1}), true)]);
        assert_eq!(Selector::any(), parse(json!({})));
    }

    #[test]
    fn values_compare_as_view_keys() {
        check(
            json!({"a": {"$lt": "b"}}),
            &[
                (json!({"a": "a"}), true),
                (json!({"a": "A"}), true),
                (json!({"a": "b"}), false),
                (json!({"a": "B"}), false),
                (json!({"a": 5}), true),
                (json!({"a": null}), true),
                (json!({"a": []}), false),
                (json!({"b": 1}), false),
            ],
        );
        check(
            json!({"a": {"$gte": 2}}),
            &[
                (json!({"a": 2.0}), true),
                (json!({"a": 1.99}), false),
                (json!({"a": "0"}), true),
                (json!({"a": {}}), true),
            ],
        );
        check(
            json!({"a": {"$gt": null}}),
            &[(json!({"a": null}), false), (json!({"a": false}), true), (json!({}), false)],
        );
        check(json!({"a": 1}), &[(json!({"a": 1.0}), true), (json!({"a": "1"}), false)]);
        check(json!({"a": "\u{e9}"}), &[(json!({"a": "e\u{301}"}), true)]);
        check(
            json!({"a": {"$ne": 1}}),
            &[(json!({"a": 2}), true), (json!({"a": 1}), false), (json!({"b": 2}), false)],
        );
        check(json!({"a": {"x": 1}}), &[(json!({"a": {"x": 1, "y": 2}}), true)]);
        check(
            json!({"a": {"$eq": {"x": 1}}}),
            &[(json!({"a": {"x": 1}}), true), (json!({"a": {"x": 1, "y": 2}}), false)],
        );
    }

    #[test]
    fn the_special_members_are_fields() {
        check(
            json!({"_id": {"$gt": "a"}, "_rev": {"$beginsWith": "2-"}}),
            &[
                (json!({"_id": "b", "_rev": "2-x"}), true),
                (json!({"_id": "b", "_rev": "1-x"}), false),
            ],
        );
    }

    #[test]
    fn fields_are_there_or_not() {
        check(
            json!({"a": {"$exists": true}}),
            &[(json!({"a": null}), true), (json!({"b": 1}), false)],
        );
        check(
            json!({"a": {"$exists": false}}),
            &[(json!({"a": null}), false), (json!({"b": 1}), true)],
        );
        check(
            json!({"a.b": {"$exists": false}}),
            &[(json!({"a": {}}), true), (json!({}), true), (json!({"a": 1}), false)],
        );
    }

    #[test]
    fn paths_lead_into_objects_and_arrays() {
        check(
            json!({"a.b.1": "x"}),
            &[
                (json!({"a": {"b": [0, "x"]}}), true),
                (json!({"a": {"b": {"1": "x"}}}), true),
                (json!({"a": {"b": ["x"]}}), false),
                (json!({"a.b.1": "x"}), false),
            ],
        );
        check(json!({"a\\.b": 1}), &[(json!({"a.b": 1}), true), (json!({"a": {"b": 1}}), false)]);
        assert_eq!(Path::parse("a.b").unwrap().get(&json!({"a": {"b": 7}})), Some(&json!(7)));
        assert_eq!(Path::parse("a.x").unwrap().get(&json!({"a": []})), None);
    }

    #[test]
    fn lists_of_values() {
        check(
            json!({"a": {"$in": [1, "x", [2]]}}),
            &[
                (json!({"a": 1.0}), true),
                (json!({"a": "x"}), true),
                (json!({"a": ["y", "x"]}), true),
                (json!({"a": [[2]]}), true),
                (json!({"a": [2]}), false),
                (json!({"a": 3}), false),
                (json!({}), false),
            ],
        );
        check(json!({"a": {"$in": []}}), &[(json!({"a": 1}), false)]);
        check(
            json!({"a": {"$nin": [1, "x"]}}),
            &[
                (json!({"a": 2}), true),
                (json!({"a": 1}), false),
                (json!({"a": [2, 1]}), false),
                (json!({}), false),
            ],
        );
        check(json!({"a": {"$nin": []}}), &[(json!({"a": 1}), true)]);
        check(
            json!({"a": {"$all": ["x", "y"]}}),
            &[
                (json!({"a": ["y", "z", "x"]}), true),
                (json!({"a": ["x"]}), false),
                (json!({"a": "x"}), false),
            ],
        );
        check(
            json!({"a": {"$all": [["x", "y"]]}}),
            &[
                (json!({"a": ["x", "y"]}), true),
                (json!({"a": [["x", "y"]]}), true),
                (json!({"a": ["y", "x"]}), false),
            ],
        );
        check(json!({"a": {"$all": []}}), &[(json!({"a": []}), false)]);
    }

    #[test]
    fn kinds_sizes_and_remainders() {
        for (name, value) in [
            ("null", json!(null)),
            ("boolean", json!(false)),
            ("number", json!(1.5)),
            ("string", json!("")),
            ("array", json!([])),
            ("object", json!({})),
        ] {
            check(
                json!({"a": {"$type": name}}),
                &[
                    (json!({"a": value}), true),
                    (json!({"a": [[]]}), name == "array"),
                    (json!({}), false),
                ],
            );
        }
        check(
            json!({"a": {"$size": 2}}),
            &[
                (json!({"a": [1, 2]}), true),
                (json!({"a": [1]}), false),
                (json!({"a": "ab"}), false),
            ],
        );
        check(
            json!({"a": {"$mod": [3, 1]}}),
            &[
                (json!({"a": 7}), true),
                (json!({"a": 18446744073709551613u64}), true),
                (json!({"a": 7.0}), false),
                (json!({"a": -7}), false),
                (json!({"a": "7"}), false),
            ],
        );
        check(json!({"a": {"$mod": [3, -1]}}), &[(json!({"a": -7}), true)]);
    }

    #[test]
    fn strings() {
        check(
            json!({"a": {"$regex": "^b.*é$"}}),
            &[(json!({"a": "blé"}), true), (json!({"a": "Blé"}), false), (json!({"a": 1}), false)],
        );
        check(json!({"a": {"$regex": "(?i)B"}}), &[(json!({"a": "abc"}), true)]);
        check(
            json!({"a": {"$beginsWith": "ab"}}),
            &[
                (json!({"a": "abc"}), true),
                (json!({"a": "Abc"}), false),
                (json!({"a": ["ab"]}), false),
            ],
        );
    }

    #[test]
    fn elements_and_names() {
        check(
            json!({"a": {"$elemMatch": {"b": 1, "c": {"$gt": 1}}}}),
            &[
                (json!({"a": [{"b": 1, "c": 2}]}), true),
                (json!({"a": [{"b": 1}, {"c": 2}]}), false),
                (json!({"a": {"b": 1, "c": 2}}), false),
                (json!({"a": []}), false),
            ],
        );
        check(
            json!({"a": {"$elemMatch": {"$gte": 80, "$lt": 85}}}),
            &[(json!({"a": [70, 84]}), true), (json!({"a": [70, 90]}), false)],
        );
        check(
            json!({"a": {"$allMatch": {"$gt": 1}}}),
            &[
                (json!({"a": [2, 3]}), true),
                (json!({"a": [1, 3]}), false),
                (json!({"a": []}), false),
            ],
        );
        check(
            json!({"a": {"$elemMatch": {"$nor": [{"b": 1}, {"b": 2}]}}}),
            &[(json!({"a": [{"b": 3}]}), true), (json!({"a": [{"b": 1}, {"b": 2}]}), false)],
        );
        check(
            json!({"a": {"$keyMapMatch": {"$beginsWith": "x"}}}),
            &[
                (json!({"a": {"xa": 1}}), true),
                (json!({"a": {"a": "x"}}), false),
                (json!({"a": ["x"]}), false),
            ],
        );
        check(
            json!({"a": {"$elemMatch": {"$elemMatch": {"$eq": 1}}}}),
            &[(json!({"a": [[2], [1]]}), true), (json!({"a": [1]}), false)],
        );
    }

    #[test]
    fn combinations() {
        check(
            json!({"$or": [{"a": 1}, {"b": 1}]}),
            &[(json!({"b": 1}), true), (json!({"c": 1}), false)],
        );
        check(json!({"$or": []}), &[(json!({}), true)]);
        check(json!({"$and": []}), &[(json!({}), true)]);
        check(
            json!({"a": {"$or": [1, {"$gt": 5}]}}),
            &[(json!({"a": 1}), true), (json!({"a": 6}), true), (json!({"a": 2}), false)],
        );
        check(
            json!({"$nor": [{"a": 1}, {"b": 1}]}),
            &[
                (json!({"a": 2, "b": 2}), true),
                (json!({"a": 2}), false),
                (json!({"a": 1, "b": 2}), false),
            ],
        );
        check(
            json!({"a": {"$not": {"$type": "string"}}}),
            &[(json!({"a": 2}), true), (json!({"a": ""}), false), (json!({}), false)],
        );
        check(json!({"$not": {"$not": {"a": {"$size": 1}}}}), &[(json!({"a": [1]}), true)]);
    }

    #[test]
    fn an_index_can_be_found() {
        let path = |field| Path::parse(field).unwrap();
        let selector = parse(json!({
            "a": {"$gt": 1, "$lte": 9},
            "$or": [{"b": 1, "c": 1}, {"b": 2}],
            "d": {"$exists": false},
            "e": {"$elemMatch": {"f": 1}}
        }));
        assert!(selector.requires(&path("a")) && selector.requires(&path("b")));
        assert!(selector.requires(&path("e")));
        assert!(!selector.requires(&path("c")) && !selector.requires(&path("d")));
        assert!(!selector.requires(&path("f")));
        let conditions = selector.conditions(&path("a"));
        assert_eq!(conditions, [&Condition::Gt(json!(1)), &Condition::Lte(json!(9))]);
        assert!(selector.conditions(&path("b")).is_empty());
        let fields: Vec<String> = selector.fields().into_iter().map(ToString::to_string).collect();
        assert_eq!(fields, ["a", "a", "b", "c", "b", "d", "e"]);
    }
}
