//! Reducing: CouchDB's built-in functions, and the place where others plug in.
//!
//! A tree keeps for every node what the rows below reduce to, as bytes that only this module reads.
//! An [`Accumulator`] takes rows and such bytes, in any order, and gives bytes again or the value
//! that a query returns.

use super::distinct::Distinct;
use super::node::{Child, Node, Place, Row};
use super::number::Number;
use crate::local::codec::{Reader, put_bytes, put_uint};
use crate::script::ReduceCall;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use settee_core::{Error, ErrorKind, Result, collate};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

/// A row as reduce functions that are not built in get it.
#[derive(Debug, Clone)]
pub(crate) struct ReduceRow {
    /// The key, as JSON.
    pub(crate) key: Bytes,
    /// The document's id.
    pub(crate) id: Bytes,
    /// The value, as JSON.
    pub(crate) value: Bytes,
}

/// A reduce function that is not built in. Values and results are JSON.
pub(crate) trait ReduceFunction: Debug + Send + Sync {
    /// What rows reduce to.
    fn reduce(&self, rows: &[ReduceRow]) -> Result<Vec<u8>>;
    /// What results of this function reduce to.
    fn rereduce(&self, values: &[Bytes]) -> Result<Vec<u8>>;
}

/// A reduce function in a language that a [`ScriptEngine`](crate::script::ScriptEngine) runs.
#[derive(Debug)]
pub(crate) struct ScriptReduce(pub(crate) Arc<dyn crate::script::Reducer>);

impl ScriptReduce {
    fn call(&self, keys: Option<&str>, values: &str) -> Result<Vec<u8>> {
        let outcome = self.0.reduce(&[ReduceCall { keys, values }]).pop();
        match outcome.unwrap_or_else(|| Err(Error::internal("a reduce function has no answer"))) {
            Ok(value) => Ok(value.into_bytes()),
            // As in CouchDB, that is what the rows reduce to.
            Err(error) if error.name() == OVERFLOW_ERROR => {
                Ok(json!({ OVERFLOW_ERROR: error.reason() }).to_string().into_bytes())
            }
            // What bounds it from outside fails for good, lest it be tried row after row.
            Err(error) if ["timeout", "unknown_error", "InternalError"].contains(&error.name()) => {
                Err(error)
            }
            Err(error) => {
                tracing::info!(%error, "a reduce function failed");
                Ok(b"null".to_vec())
            }
        }
    }
}

const OVERFLOW_ERROR: &str = "reduce_overflow_error";

impl ReduceFunction for ScriptReduce {
    fn reduce(&self, rows: &[ReduceRow]) -> Result<Vec<u8>> {
        let (mut keys, mut values) = (String::from("["), String::from("["));
        for row in rows {
            if keys.len() > 1 {
                keys.push(',');
                values.push(',');
            }
            keys.push('[');
            keys.push_str(text(&row.key));
            keys.push(',');
            let mut id = Vec::with_capacity(row.id.len() + 2);
            settee_core::json::write_string(&mut id, text(&row.id));
            keys.push_str(text(&id));
            keys.push(']');
            values.push_str(text(&row.value));
        }
        keys.push(']');
        values.push(']');
        self.call(Some(&keys), &values)
    }

    fn rereduce(&self, values: &[Bytes]) -> Result<Vec<u8>> {
        // What has overflowed stays so.
        let overflow = format!(r#"{{"{OVERFLOW_ERROR}":"#);
        if let Some(value) = values.iter().find(|value| value.starts_with(overflow.as_bytes())) {
            return Ok(value.to_vec());
        }
        let values: Vec<&str> = values.iter().map(|value| text(value)).collect();
        self.call(None, &format!("[{}]", values.join(",")))
    }
}

/// How the rows of a view are reduced.
#[derive(Debug, Clone)]
pub(crate) enum Reducer {
    /// Not at all.
    None,
    Count,
    Sum,
    Stats,
    Distinct,
    Top(usize),
    Bottom(usize),
    First,
    Last,
    Function(Arc<dyn ReduceFunction>),
}

/// The most that `_top_N` and `_bottom_N` may keep.
const MAX_RANK: usize = 100;

impl Reducer {
    /// The built-in function of a name. As in CouchDB, what comes behind most names is ignored.
    ///
    /// # Errors
    ///
    /// `BadRequest`, `invalid_design_doc`, if there is none.
    pub(crate) fn built_in(name: &str) -> Result<Reducer> {
        let invalid = |reason: String| Error::bad_request(reason).with_name("invalid_design_doc");
        let rank = |digits: &str| match digits.parse() {
            Ok(rank @ 1..=MAX_RANK) => Ok(rank),
            Ok(_) => Err(invalid(format!("rank value must be between 1 and {MAX_RANK}"))),
            Err(_) => Err(invalid("invalid rank reducer".to_owned())),
        };
        if let Some(digits) = name.strip_prefix("_top_") {
            return rank(digits).map(Reducer::Top);
        }
        if let Some(digits) = name.strip_prefix("_bottom_") {
            return rank(digits).map(Reducer::Bottom);
        }
        let by_prefix = [
            ("_sum", Reducer::Sum),
            ("_count", Reducer::Count),
            ("_stats", Reducer::Stats),
            ("_approx_count_distinct", Reducer::Distinct),
            ("_first", Reducer::First),
            ("_last", Reducer::Last),
        ];
        match by_prefix.into_iter().find(|(prefix, _)| name.starts_with(prefix)) {
            Some((_, reducer)) => Ok(reducer),
            None => Err(invalid(format!("`{name}` is not a supported reduce function."))),
        }
    }

    /// Begins to reduce.
    pub(crate) fn start(&self) -> Accumulator<'_> {
        let state = match self {
            Reducer::None => State::None,
            Reducer::Count => State::Count(0),
            Reducer::Sum => State::Sum(Sum::default()),
            Reducer::Stats => State::Stats(Ok(None)),
            Reducer::Distinct => State::Distinct(Distinct::default()),
            Reducer::Top(n) | Reducer::Bottom(n) => State::Rank(*n, BTreeMap::new()),
            Reducer::First | Reducer::Last => State::End(None),
            Reducer::Function(function) => {
                State::Function { function, rows: Vec::new(), values: Vec::new(), error: None }
            }
        };
        Accumulator { reducer: self, state }
    }
}

/// Rows and reductions on their way to one.
pub(crate) struct Accumulator<'r> {
    reducer: &'r Reducer,
    state: State<'r>,
}

enum State<'r> {
    None,
    Count(u64),
    Sum(Sum),
    /// What the values were that cannot be.
    Stats(Result<Option<Stats>, String>),
    Distinct(Distinct),
    /// The values, by their bytes in collation order.
    Rank(usize, BTreeMap<Vec<u8>, Bytes>),
    /// The place and the value of the first or last row.
    End(Option<(Vec<u8>, u64, Bytes)>),
    Function {
        function: &'r Arc<dyn ReduceFunction>,
        rows: Vec<ReduceRow>,
        values: Vec<Bytes>,
        error: Option<Error>,
    },
}

/// What the bytes of a reduction begin with, where there can be an error instead.
const GOOD: u8 = 0;
const BAD: u8 = 1;

impl Accumulator<'_> {
    /// Takes some rows of a leaf.
    pub(crate) fn rows(&mut self, leaf: &Node, (from, to): (usize, usize)) -> Result<()> {
        match &mut self.state {
            State::None => {}
            State::Count(count) => *count += (to - from) as u64,
            // Of a leaf's rows only one can be the first or the last.
            State::End(_) if to > from => {
                let end = match self.reducer {
                    Reducer::First => from,
                    _ => to - 1,
                };
                let row = leaf.row(end)?;
                self.end((row.sort, row.n), leaf.share(row.value));
            }
            _ => {
                for i in from..to {
                    self.row(leaf, &leaf.row(i)?)?;
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, leaf: &Node, row: &Row<'_>) -> Result<()> {
        match &mut self.state {
            State::None | State::Count(_) | State::End(_) => {}
            State::Sum(sum) => {
                sum.input += row.key.len() + row.value.len() + (row.sort.len() - row.key_len);
                sum.add(row.value);
            }
            State::Stats(stats) => add_stats(stats, Stats::of(text(row.value))),
            State::Distinct(distinct) => distinct.insert(row.encoded_key()),
            State::Rank(..) => self.rank(leaf.share(row.value)),
            State::Function { rows, .. } => rows.push(ReduceRow {
                key: leaf.share(row.key),
                id: leaf.share(row.id()?.as_bytes()),
                value: leaf.share(row.value),
            }),
        }
        Ok(())
    }

    /// Takes what all the rows below a node reduce to. `node` is where `child` was read.
    pub(crate) fn child(&mut self, node: &Node, child: &Child<'_>) -> Result<()> {
        let mut reader = Reader(child.reduction);
        match &mut self.state {
            State::None => {}
            State::Count(count) => *count += child.count,
            State::Sum(sum) => {
                sum.input += child.reduction.len();
                sum.add(child.reduction);
            }
            State::Stats(stats) => match reader.byte()? {
                GOOD => add_stats(stats, Ok(Stats::decode(&mut reader)?)),
                _ => add_stats(stats, Err(String::from_utf8_lossy(reader.0).into_owned())),
            },
            State::Distinct(distinct) => distinct.merge(child.reduction),
            State::Rank(..) => {
                while !reader.0.is_empty() {
                    let value = node.share(reader.bytes()?);
                    self.rank(value);
                }
            }
            State::End(_) => {
                let place = (reader.bytes()?, reader.uint()?);
                self.end(place, node.share(reader.0));
            }
            State::Function { values, error, .. } => match reader.byte()? {
                GOOD => values.push(node.share(reader.0)),
                _ if error.is_none() => *error = Some(stored_error(&mut reader)?),
                _ => {}
            },
        }
        Ok(())
    }

    fn rank(&mut self, value: Bytes) {
        let State::Rank(n, values) = &mut self.state else { return };
        let mut key = Vec::with_capacity(value.len() + 8);
        // A value that is nested too deep to be compared is not ranked.
        if collate::encode_key_text(&value, &mut key).is_err() {
            return;
        }
        values.entry(key).or_insert(value);
        if values.len() > *n {
            match self.reducer {
                Reducer::Top(_) => values.pop_first(),
                _ => values.pop_last(),
            };
        }
    }

    fn end(&mut self, place: Place<'_>, value: Bytes) {
        let State::End(end) = &mut self.state else { return };
        let better = match (&end, self.reducer) {
            (None, _) => true,
            (Some((sort, n, _)), Reducer::First) => place < (sort, *n),
            (Some((sort, n, _)), _) => place > (sort, *n),
        };
        if better {
            *end = Some((place.0.to_vec(), place.1, value));
        }
    }

    /// The bytes to keep in the tree.
    pub(crate) fn store(self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.state {
            // How many rows there are a node says anyway.
            State::None | State::Count(_) => {}
            State::Sum(sum) => return sum.finish(),
            State::Stats(Ok(stats)) => {
                out.push(GOOD);
                if let Some(stats) = stats {
                    stats.encode(&mut out);
                }
            }
            State::Stats(Err(reason)) => {
                out.push(BAD);
                out.extend_from_slice(reason.as_bytes());
            }
            State::Distinct(distinct) => distinct.encode(&mut out),
            State::Rank(_, values) => values.values().for_each(|value| put_bytes(&mut out, value)),
            State::End(end) => {
                if let Some((sort, n, value)) = end {
                    put_bytes(&mut out, &sort);
                    put_uint(&mut out, n);
                    out.extend_from_slice(&value);
                }
            }
            State::Function { function, rows, values, error } => {
                match error.map_or_else(|| call(function, &rows, values), Err) {
                    Ok(value) => {
                        out.push(GOOD);
                        out.extend_from_slice(&value);
                    }
                    Err(error) => {
                        out.push(BAD);
                        put_uint(&mut out, error.status().into());
                        put_bytes(&mut out, error.name().as_bytes());
                        out.extend_from_slice(error.reason().as_bytes());
                    }
                }
            }
        }
        out
    }

    /// The value to return, as JSON.
    ///
    /// # Errors
    ///
    /// Whatever kept the function from reducing.
    pub(crate) fn result(self) -> Result<Bytes> {
        let list = |values: &mut dyn Iterator<Item = &Bytes>| {
            let mut out = vec![b'['];
            for value in values {
                if out.len() > 1 {
                    out.push(b',');
                }
                out.extend_from_slice(value);
            }
            out.push(b']');
            Bytes::from(out)
        };
        match self.state {
            State::None => Ok(Bytes::from_static(b"null")),
            State::Count(count) => Ok(count.to_string().into()),
            State::Sum(sum) => Ok(sum.finish().into()),
            State::Stats(Ok(stats)) => {
                let mut out = Vec::new();
                stats.unwrap_or_default().write_json(&mut out);
                Ok(out.into())
            }
            State::Stats(Err(reason)) => {
                Err(Error::new(ErrorKind::Internal, reason).with_name("invalid_value"))
            }
            State::Distinct(distinct) => Ok(distinct.estimate().to_string().into()),
            State::Rank(_, values) => Ok(match self.reducer {
                Reducer::Top(_) => list(&mut values.values().rev()),
                _ => list(&mut values.values()),
            }),
            State::End(end) => Ok(end.map_or(Bytes::from_static(b"[]"), |(.., value)| value)),
            State::Function { function, rows, values, error } => {
                error.map_or_else(|| call(function, &rows, values), Err)
            }
        }
    }
}

/// Reduces rows and what others reduced to, with as few calls as that takes.
fn call(
    function: &Arc<dyn ReduceFunction>,
    rows: &[ReduceRow],
    mut values: Vec<Bytes>,
) -> Result<Bytes> {
    if !rows.is_empty() || values.is_empty() {
        values.push(function.reduce(rows)?.into());
    }
    match (values.pop(), values.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            values.push(last);
            Ok(function.rereduce(&values)?.into())
        }
        (None, _) => Ok(Bytes::from_static(b"null")),
    }
}

fn stored_error(reader: &mut Reader<'_>) -> Result<Error> {
    let status = u16::try_from(reader.uint()?).unwrap_or(500);
    let name = reader.text()?.to_owned();
    let reason = String::from_utf8_lossy(reader.0).into_owned();
    Ok(Error::new(ErrorKind::from_status(status, &name), reason).with_name(name))
}

fn text(json: &[u8]) -> &str {
    std::str::from_utf8(json).unwrap_or_default()
}

/// `_sum`: of numbers, of arrays element by element, of objects member by member. It never fails:
/// an error is a value, which spreads to whatever it is added to.
#[derive(Default)]
struct Sum {
    total: Total,
    /// Bytes of what was added.
    input: usize,
}

enum Total {
    Number(Number),
    Value(Value),
    Error(Value),
}

impl Default for Total {
    fn default() -> Total {
        Total::Number(Number::Integer(0))
    }
}

/// The size a sum may have whatever went into it, and how much smaller than that a larger one must
/// be: `reduce_limit`.
const OVERFLOW: usize = 5000;
const OVERFLOW_RATIO: usize = 2;

const SUM_ERROR: &str = "The _sum function requires that map values be numbers, arrays of numbers, \
    or objects. Objects cannot be mixed with other data structures. Objects can be arbitrarily \
    nested, provided that the values for all fields are themselves numbers, arrays of numbers, or \
    objects.";

/// A value that cannot be added.
struct NotSummable(Value);

impl Sum {
    fn add(&mut self, json: &[u8]) {
        let text = text(json);
        if let Total::Number(total) = &mut self.total
            && let Some(number) = Number::parse(text)
        {
            *total = total.add(number);
            return;
        }
        self.total = match std::mem::take(&mut self.total) {
            Total::Error(error) => Total::Error(error),
            total => {
                let added = settee_core::json::to_value(text);
                if is_error(&added) {
                    Total::Error(added)
                } else {
                    let total = match total {
                        Total::Number(number) => number.to_value(),
                        Total::Value(value) | Total::Error(value) => value,
                    };
                    match sum(added, total) {
                        Ok(value) => Total::Value(value),
                        Err(NotSummable(cause)) => Total::Error(json!({
                            "error": "builtin_reduce_error",
                            "reason": SUM_ERROR,
                            "caused_by": cause,
                        })),
                    }
                }
            }
        };
    }

    fn finish(self) -> Vec<u8> {
        let value = match self.total {
            Total::Number(number) => {
                let mut out = Vec::new();
                number.write_json(&mut out);
                return out;
            }
            Total::Value(value) | Total::Error(value) => value,
        };
        let out = value.to_string().into_bytes();
        if out.len() <= OVERFLOW || out.len() * OVERFLOW_RATIO <= self.input {
            return out;
        }
        let reason = format!(
            "Reduce output must shrink more rapidly: input size: {} output size: {} context: _sum",
            self.input,
            out.len()
        );
        json!({"error": "builtin_reduce_error", "reason": reason}).to_string().into_bytes()
    }
}

fn is_error(value: &Value) -> bool {
    value.get("error").is_some_and(|error| error == "builtin_reduce_error")
}

fn sum(added: Value, total: Value) -> Result<Value, NotSummable> {
    match (added, total) {
        (Value::Number(a), Value::Number(b)) => Ok(Number::of(&b).add(Number::of(&a)).to_value()),
        (Value::Array(a), Value::Array(b)) => sum_arrays(a, b),
        (a @ Value::Number(_), Value::Array(b)) => sum_arrays(vec![a], b),
        (Value::Array(a), b @ Value::Number(_)) => sum_arrays(a, vec![b]),
        (Value::Object(a), Value::Number(zero)) if zero.as_f64() == Some(0.0) => {
            Ok(Value::Object(a))
        }
        (Value::Object(a), Value::Object(b)) => sum_objects(a, b),
        (other, _) => Err(NotSummable(other)),
    }
}

fn sum_arrays(added: Vec<Value>, total: Vec<Value>) -> Result<Value, NotSummable> {
    let (mut added, mut total) = (added.into_iter(), total.into_iter());
    let mut sums = Vec::with_capacity(added.len().max(total.len()));
    loop {
        match (added.next(), total.next()) {
            (Some(Value::Number(a)), Some(Value::Number(b))) => {
                sums.push(Number::of(&b).add(Number::of(&a)).to_value());
            }
            (Some(a), Some(b)) => {
                let cause = if a.is_number() { b } else { a };
                return Err(NotSummable(Value::Array(vec![cause])));
            }
            (Some(rest), None) | (None, Some(rest)) => sums.push(rest),
            (None, None) => return Ok(Value::Array(sums)),
        }
    }
}

fn sum_objects(
    added: Map<String, Value>,
    mut total: Map<String, Value>,
) -> Result<Value, NotSummable> {
    for (name, value) in added {
        let value = match total.remove(&name) {
            Some(known) => sum(value, known)?,
            None => value,
        };
        total.insert(name, value);
    }
    total.sort_keys();
    Ok(Value::Object(total))
}

/// `_stats`: of numbers, of arrays of them, and of what came from another `_stats`.
#[derive(Debug, Clone, PartialEq)]
enum Stats {
    One { sum: Number, count: Number, min: Number, max: Number, sumsqr: Number },
    Many(Vec<Stats>),
}

impl Default for Stats {
    fn default() -> Stats {
        let zero = Number::Integer(0);
        Stats::One { sum: zero, count: zero, min: zero, max: zero, sumsqr: zero }
    }
}

fn add_stats(total: &mut Result<Option<Stats>, String>, added: Result<Stats, String>) {
    let sum = match (std::mem::replace(total, Ok(None)), added) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(None), Ok(added)) => Ok(added),
        (Ok(Some(total)), Ok(added)) => total.add(added),
    };
    *total = sum.map(Some);
}

impl Stats {
    fn of(json: &str) -> Result<Stats, String> {
        if let Some(number) = Number::parse(json) {
            return Ok(Stats::number(number));
        }
        Stats::of_value(&settee_core::json::to_value(json))
    }

    fn number(number: Number) -> Stats {
        Stats::One {
            sum: number,
            count: Number::Integer(1),
            min: number,
            max: number,
            sumsqr: number.square(),
        }
    }

    fn of_value(value: &Value) -> Result<Stats, String> {
        let member = |object: &Map<String, Value>, name| match object.get(name) {
            Some(Value::Number(number)) => Ok(Number::of(number)),
            None => Err(format!("user _stats input missing required field {name} ({value})")),
            Some(other) => Err(format!("non-numeric _stats input received for {name}: {other}")),
        };
        match value {
            Value::Number(number) => Ok(Stats::number(Number::of(number))),
            Value::Array(list) => {
                Ok(Stats::Many(list.iter().map(Stats::of_value).collect::<Result<_, _>>()?))
            }
            Value::Object(object) => Ok(Stats::One {
                sum: member(object, "sum")?,
                count: member(object, "count")?,
                min: member(object, "min")?,
                max: member(object, "max")?,
                sumsqr: member(object, "sumsqr")?,
            }),
            other => Err(format!("non-numeric _stats input: {other}")),
        }
    }

    fn add(self, other: Stats) -> Result<Stats, String> {
        match (self, other) {
            (
                Stats::One { sum, count, min, max, sumsqr },
                Stats::One { sum: sum2, count: count2, min: min2, max: max2, sumsqr: sumsqr2 },
            ) => Ok(Stats::One {
                sum: sum.add(sum2),
                count: count.add(count2),
                min: min.min(min2),
                max: max.max(max2),
                sumsqr: sumsqr.add(sumsqr2),
            }),
            (Stats::Many(a), Stats::Many(b)) if a.len() == b.len() => {
                let sums = a.into_iter().zip(b).map(|(a, b)| a.add(b));
                Ok(Stats::Many(sums.collect::<Result<_, _>>()?))
            }
            (_, other) => {
                let mut value = Vec::new();
                other.write_json(&mut value);
                Err(format!(
                    "The _stats function requires that map values be numbers or arrays of \
                     numbers, not '{}'",
                    text(&value)
                ))
            }
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Stats::One { sum, count, min, max, sumsqr } => {
                let members = [
                    ("sum", sum),
                    ("count", count),
                    ("min", min),
                    ("max", max),
                    ("sumsqr", sumsqr),
                ];
                for (i, (name, number)) in members.into_iter().enumerate() {
                    out.push(if i == 0 { b'{' } else { b',' });
                    settee_core::json::write_string(out, name);
                    out.push(b':');
                    number.write_json(out);
                }
                out.push(b'}');
            }
            Stats::Many(list) => {
                out.push(b'[');
                for (i, stats) in list.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    stats.write_json(out);
                }
                out.push(b']');
            }
        }
    }

    /// 0 and five numbers, or 1, how many, and those.
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Stats::One { sum, count, min, max, sumsqr } => {
                out.push(0);
                [sum, count, min, max, sumsqr].into_iter().for_each(|number| number.encode(out));
            }
            Stats::Many(list) => {
                out.push(1);
                put_uint(out, list.len() as u64);
                list.iter().for_each(|stats| stats.encode(out));
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Stats> {
        if reader.byte()? == 0 {
            return Ok(Stats::One {
                sum: Number::decode(reader)?,
                count: Number::decode(reader)?,
                min: Number::decode(reader)?,
                max: Number::decode(reader)?,
                sumsqr: Number::decode(reader)?,
            });
        }
        let len = reader.uint()?;
        Ok(Stats::Many((0..len).map(|_| Stats::decode(reader)).collect::<Result<_>>()?))
    }
}
