//! `list`.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::manager::object::{Answer, Invocation, Outcome, Raised, Served};
use crate::manager::objects::kept::Kept;
use crate::manager::objects::key::equal;
use crate::manager::objects::order::compare;
use crate::manager::objects::slice::{self, Place};
use crate::manager::objects::{named, repr};
use crate::pickle::{Object, Value};

const METHODS: &[&str] = &[
    "__add__",
    "__contains__",
    "__delitem__",
    "__getitem__",
    "__imul__",
    "__len__",
    "__mul__",
    "__reversed__",
    "__rmul__",
    "__setitem__",
    "append",
    "clear",
    "copy",
    "count",
    "extend",
    "index",
    "insert",
    "pop",
    "remove",
    "reverse",
    "sort",
];

/// Items of a list that is made by repeating another one.
const MOST_REPEATED: usize = 1 << 32;

struct List(Mutex<Vec<Kept>>);

pub(super) fn make(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    let items: Option<Value> = call.bind(&["iterable"])?.next_if_given()?;
    let items = items.map_or(Ok(Vec::new()), items_of)?;
    Ok(Arc::new(List(Mutex::new(Kept::all(items, call)))))
}

/// The items of anything that Python iterates over.
pub(super) fn items_of(value: Value) -> Result<Vec<Value>, Raised> {
    Ok(match value {
        Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::FrozenSet(items) => {
            items
        }
        Value::Dict(pairs) => pairs.into_iter().map(|(key, _)| key).collect(),
        Value::Str(text) => text.chars().map(|char| char.to_string().into()).collect(),
        Value::Bytes(bytes) | Value::ByteArray(bytes) => {
            bytes.into_iter().map(|byte| Value::Int(byte.into())).collect()
        }
        Value::Object(object) => items_of_object(*object)?,
        _ => return Err(Raised::type_error("a list is made of items, and this has none")),
    })
}

fn items_of_object(object: Object) -> Result<Vec<Value>, Raised> {
    let is_range = object.class().is_some_and(|class| class.is("builtins", "range"));
    if is_range && let [begin, end, step] = object.arguments.as_slice() {
        let integers = [begin, end, step].map(slice::integer);
        if let [Some(begin), Some(end), Some(step)] = integers
            && step != 0
        {
            let steps = std::iter::successors(Some(begin), |at| at.checked_add(step));
            let inside = |at: &i64| if step > 0 { *at < end } else { *at > end };
            return Ok(steps.take_while(inside).map(Value::Int).collect());
        }
    }
    if object.items.is_empty() {
        return Err(Raised::type_error("a list is made of items, and this has none"));
    }
    Ok(object.items)
}

fn index_error(text: &str) -> Raised {
    Raised::builtin("IndexError", text)
}

fn value_of(items: &[Kept]) -> Value {
    Value::List(items.iter().map(|item| item.value.clone()).collect())
}

fn repeated(items: &[Kept], times: i64) -> Result<Vec<Kept>, Raised> {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    match items.len().checked_mul(times) {
        Some(len) if len <= MOST_REPEATED => Ok(items.iter().cycle().take(len).cloned().collect()),
        _ => Err(Raised::builtin("MemoryError", "the list would be too long")),
    }
}

impl List {
    fn items(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get_item(&self, call: &mut Invocation<'_>) -> Answer {
        let place: Value = call.bind(&["index"])?.next()?;
        let items = self.items();
        match Place::of(&place)? {
            Place::One(place) => {
                let at = slice::index(place, items.len());
                let at = at.ok_or_else(|| index_error("list index out of range"))?;
                Ok(items[at].lend(call).into())
            }
            Place::Slice(slice) => {
                let found = slice.indices(items.len()).into_iter().map(|at| items[at].lend(call));
                Ok(Value::List(found.collect()).into())
            }
        }
    }

    fn set_item(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(&["index", "value"])?;
        let (place, value): (Value, Value) = (arguments.next()?, arguments.next()?);
        match Place::of(&place)? {
            Place::One(place) => {
                let value = Kept::new(value, call);
                let mut items = self.items();
                let at = slice::index(place, items.len());
                let at = at.ok_or_else(|| index_error("list assignment index out of range"))?;
                let old = std::mem::replace(&mut items[at], value);
                drop((items, old));
            }
            Place::Slice(slice) => {
                let values = Kept::all(items_of(value)?, call);
                let mut items = self.items();
                if slice.is_simple() {
                    let range = slice.range(items.len());
                    items.splice(range, values);
                    return Ok(Outcome::none());
                }
                let indices = slice.indices(items.len());
                if indices.len() != values.len() {
                    let (given, wanted) = (values.len(), indices.len());
                    return Err(Raised::value_error(format!(
                        "attempt to assign sequence of size {given} to extended slice of size {wanted}"
                    )));
                }
                indices.into_iter().zip(values).for_each(|(at, value)| items[at] = value);
            }
        }
        Ok(Outcome::none())
    }

    fn delete_item(&self, call: &mut Invocation<'_>) -> Answer {
        let place: Value = call.bind(&["index"])?.next()?;
        let mut items = self.items();
        match Place::of(&place)? {
            Place::One(place) => {
                let at = slice::index(place, items.len());
                items.remove(at.ok_or_else(|| index_error("list assignment index out of range"))?);
            }
            Place::Slice(slice) => {
                let mut indices = slice.indices(items.len());
                indices.sort_unstable();
                let mut at = 0;
                items.retain(|_| {
                    at += 1;
                    indices.binary_search(&(at - 1)).is_err()
                });
            }
        }
        Ok(Outcome::none())
    }

    fn pop(&self, call: &mut Invocation<'_>) -> Answer {
        let place: Option<i64> = call.bind(&["index"])?.next_if_given()?;
        let mut items = self.items();
        if items.is_empty() {
            return Err(index_error("pop from empty list"));
        }
        let at = slice::index(place.unwrap_or(-1), items.len());
        let item = items.remove(at.ok_or_else(|| index_error("pop index out of range"))?);
        drop(items);
        Ok(item.give(call))
    }

    fn index(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(&["value", "start", "stop"])?;
        let value: Value = arguments.next()?;
        let (begin, end) = (arguments.next_if_given()?, arguments.next_if_given()?);
        let items = self.items();
        let begin = slice::bounded(begin.unwrap_or(0), items.len());
        let end = slice::bounded(end.unwrap_or(i64::MAX), items.len());
        let found = (begin..end).find(|at| equal(&items[*at].value, &value));
        match found {
            Some(at) => Ok(Value::Int(at as i64).into()),
            None => Err(Raised::value_error(format!("{} is not in list", repr(&value)))),
        }
    }

    fn remove(&self, call: &mut Invocation<'_>) -> Answer {
        let value: Value = call.bind(&["value"])?.next()?;
        let mut items = self.items();
        let found = items.iter().position(|item| equal(&item.value, &value));
        items.remove(found.ok_or_else(|| Raised::value_error("list.remove(x): x not in list"))?);
        Ok(Outcome::none())
    }

    fn insert(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(&["index", "object"])?;
        let (place, value): (i64, Value) = (arguments.next()?, arguments.next()?);
        let value = Kept::new(value, call);
        let mut items = self.items();
        let at = slice::bounded(place, items.len());
        items.insert(at, value);
        Ok(Outcome::none())
    }

    fn sort(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(&["key", "reverse"])?;
        let key: Option<Value> = arguments.next_if_given()?;
        let reverse: Option<Value> = arguments.next_if_given()?;
        if key.is_some_and(|key| key != Value::None) {
            let text = "a manager in Rust cannot call the function given as key; sort a copy";
            return Err(Raised::type_error(text));
        }
        let reverse = reverse.is_some_and(|reverse| slice::integer(&reverse) != Some(0));
        let mut items = self.items();
        let mut problem = None;
        let mut sorted = items.clone();
        sorted.sort_by(|one, other| {
            let (one, other) = if reverse { (other, one) } else { (one, other) };
            match compare(&one.value, &other.value) {
                Ok(ordering) => ordering.unwrap_or(Ordering::Equal),
                Err(error) => {
                    problem = Some(error);
                    Ordering::Equal
                }
            }
        });
        match problem {
            Some(error) => Err(error),
            None => {
                *items = sorted;
                Ok(Outcome::none())
            }
        }
    }

    fn add(&self, call: &mut Invocation<'_>) -> Answer {
        let Value::List(more) = call.bind(&["other"])?.next()? else {
            return Err(Raised::type_error("can only concatenate list to list"));
        };
        let Value::List(mut all) = value_of(&self.items()) else { return Ok(Outcome::none()) };
        all.extend(more);
        Ok(Value::List(all).into())
    }

    /// Methods with one argument that is any value.
    fn call_with_value(&self, call: &mut Invocation<'_>) -> Answer {
        let value: Value = call.bind(&["value"])?.next()?;
        match call.method() {
            "append" => {
                let value = Kept::new(value, call);
                self.items().push(value);
            }
            "extend" => {
                let values = Kept::all(items_of(value)?, call);
                self.items().extend(values);
            }
            "__contains__" => {
                let found = self.items().iter().any(|item| equal(&item.value, &value));
                return Ok(Value::Bool(found).into());
            }
            "count" => {
                let items = self.items();
                let count = items.iter().filter(|item| equal(&item.value, &value)).count();
                return Ok(Value::Int(count as i64).into());
            }
            _ => return Err(call.unknown_method()),
        }
        Ok(Outcome::none())
    }

    fn multiply(&self, call: &mut Invocation<'_>) -> Answer {
        let times: i64 = call.bind(&["times"])?.next()?;
        let mut items = self.items();
        let all = repeated(&items, times)?;
        let value = value_of(&all);
        if call.method() == "__imul__" {
            *items = all;
        }
        Ok(value.into())
    }

    fn call_without_arguments(&self, call: &mut Invocation<'_>) -> Answer {
        call.bind(&[])?;
        let mut items = self.items();
        Ok(match call.method() {
            "__len__" => Value::Int(items.len() as i64).into(),
            "copy" => value_of(&items).into(),
            "__reversed__" => {
                let reversed = Object::call("builtins", "reversed", vec![value_of(&items)]);
                Value::from(reversed).into()
            }
            "reverse" => {
                items.reverse();
                Outcome::none()
            }
            "clear" => {
                let old = std::mem::take(&mut *items);
                drop((items, old));
                Outcome::none()
            }
            _ => return Err(call.unknown_method()),
        })
    }
}

impl Served for List {
    fn methods(&self) -> Vec<String> {
        named(METHODS)
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        match call.method() {
            "__getitem__" => self.get_item(call),
            "__setitem__" => self.set_item(call),
            "__delitem__" => self.delete_item(call),
            "__add__" => self.add(call),
            "__mul__" | "__rmul__" | "__imul__" => self.multiply(call),
            "append" | "extend" | "__contains__" | "count" => self.call_with_value(call),
            "index" => self.index(call),
            "insert" => self.insert(call),
            "pop" => self.pop(call),
            "remove" => self.remove(call),
            "sort" => self.sort(call),
            _ => self.call_without_arguments(call),
        }
    }

    fn text(&self) -> String {
        repr(&value_of(&self.items()))
    }

    fn value(&self) -> Option<Value> {
        Some(value_of(&self.items()))
    }
}
