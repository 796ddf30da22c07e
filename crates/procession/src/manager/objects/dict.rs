//! `dict`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::manager::object::{Answer, Invocation, Outcome, Raised, Served};
use crate::manager::objects::iterator::Iterator;
use crate::manager::objects::kept::Kept;
use crate::manager::objects::key::Key;
use crate::manager::objects::{named, repr};
use crate::pickle::Value;

const METHODS: &[&str] = &[
    "__contains__",
    "__delitem__",
    "__getitem__",
    "__ior__",
    "__iter__",
    "__len__",
    "__or__",
    "__ror__",
    "__setitem__",
    "clear",
    "copy",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];

/// A dictionary, in the order in which keys were put in.
#[derive(Default)]
struct Dict(Mutex<Items>);

#[derive(Default, Clone)]
struct Items {
    places: HashMap<Key, u64>,
    /// By place.
    items: BTreeMap<u64, (Kept, Kept)>,
    next: u64,
}

pub(super) fn make(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    let mut items = Items::default();
    items.update(call, "dict")?;
    Ok(Arc::new(Dict(Mutex::new(items))))
}

fn key_error(key: Value) -> Raised {
    Raised::new("builtins", "KeyError", vec![key])
}

impl Items {
    fn insert(&mut self, key: Kept, value: Kept) -> Result<(), Raised> {
        let place = *self.places.entry(Key::of(&key.value)?).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        match self.items.get_mut(&place) {
            Some((_, old)) => *old = value,
            None => {
                self.items.insert(place, (key, value));
            }
        }
        Ok(())
    }

    fn get(&self, key: &Value) -> Result<Option<&Kept>, Raised> {
        let place = self.places.get(&Key::of(key)?);
        Ok(place.and_then(|place| self.items.get(place)).map(|(_, value)| value))
    }

    fn remove(&mut self, key: &Value) -> Result<Option<Kept>, Raised> {
        let place = self.places.remove(&Key::of(key)?);
        Ok(place.and_then(|place| self.items.remove(&place)).map(|(_, value)| value))
    }

    fn pop_last(&mut self) -> Result<Option<(Kept, Kept)>, Raised> {
        let Some((_, item)) = self.items.pop_last() else { return Ok(None) };
        self.places.remove(&Key::of(&item.0.value)?);
        Ok(Some(item))
    }

    fn pairs(&self) -> impl std::iter::Iterator<Item = (Value, Value)> {
        self.items.values().map(|(key, value)| (key.value.clone(), value.value.clone()))
    }

    fn value(&self) -> Value {
        Value::Dict(self.pairs().collect())
    }

    /// Puts in what the arguments of a call say, as `dict.update` does; all of it or nothing.
    fn update(&mut self, call: &mut Invocation<'_>, name: &str) -> Result<(), Raised> {
        let arguments = call.take_arguments();
        if arguments.positional.len() > 1 {
            let given = arguments.positional.len();
            let text = format!("{name} expected at most 1 argument, got {given}");
            return Err(Raised::type_error(text));
        }
        let mut pairs = Vec::new();
        for value in arguments.positional {
            pairs = pairs_of(value)?;
        }
        pairs.extend(arguments.keywords);
        for (key, _) in &pairs {
            Key::of(key)?;
        }
        for (key, value) in pairs {
            self.insert(Kept::new(key, call), Kept::new(value, call))?;
        }
        Ok(())
    }
}

/// Keys and values of a dictionary, or of a sequence of pairs.
fn pairs_of(value: Value) -> Result<Vec<(Value, Value)>, Raised> {
    let items = match value {
        Value::Dict(pairs) => return Ok(pairs),
        Value::Object(object) if !object.pairs.is_empty() => return Ok(object.pairs),
        Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::FrozenSet(items) => {
            items
        }
        _ => return Err(Raised::type_error("a dict is made of a dict, or of pairs")),
    };
    let pair = |item| match item {
        Value::List(parts) | Value::Tuple(parts) => {
            let [key, value] = <[Value; 2]>::try_from(parts).ok()?;
            Some((key, value))
        }
        _ => None,
    };
    let pairs: Option<Vec<_>> = items.into_iter().map(pair).collect();
    pairs.ok_or_else(|| Raised::value_error("a dict is made of a dict, or of pairs"))
}

impl Dict {
    fn items(&self) -> MutexGuard<'_, Items> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get_item(&self, call: &mut Invocation<'_>) -> Answer {
        let key: Value = call.bind(&["key"])?.next()?;
        match self.items().get(&key)? {
            Some(kept) => Ok(kept.lend(call).into()),
            None => Err(key_error(key)),
        }
    }

    fn set_item(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(&["key", "value"])?;
        let (key, value) = (arguments.next()?, arguments.next()?);
        self.items().insert(Kept::new(key, call), Kept::new(value, call))?;
        Ok(Outcome::none())
    }

    fn delete_item(&self, call: &mut Invocation<'_>) -> Answer {
        let key: Value = call.bind(&["key"])?.next()?;
        let removed = self.items().remove(&key)?;
        removed.map(|_| Outcome::none()).ok_or_else(|| key_error(key))
    }

    fn get(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(&["key", "default"])?;
        let (key, default): (Value, _) = (arguments.next()?, arguments.next_if_given()?);
        match self.items().get(&key)? {
            Some(kept) => Ok(kept.lend(call).into()),
            None => Ok(default.unwrap_or(Value::None).into()),
        }
    }

    fn pop(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(&["key", "default"])?;
        let (key, default): (Value, Option<Value>) =
            (arguments.next()?, arguments.next_if_given()?);
        let removed = self.items().remove(&key)?;
        match removed {
            Some(kept) => Ok(kept.give(call)),
            None => default.map(Outcome::Value).ok_or_else(|| key_error(key)),
        }
    }

    fn pop_item(&self, call: &mut Invocation<'_>) -> Answer {
        call.bind(&[])?;
        let last = self.items().pop_last()?;
        let (key, value) =
            last.ok_or_else(|| key_error("popitem(): dictionary is empty".into()))?;
        Ok(Value::Tuple(vec![key.lend(call), value.lend(call)]).into())
    }

    fn set_default(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(&["key", "default"])?;
        let (key, default): (Value, _) = (arguments.next()?, arguments.next_if_given()?);
        let mut items = self.items();
        if let Some(kept) = items.get(&key)? {
            return Ok(kept.lend(call).into());
        }
        let value = default.unwrap_or(Value::None);
        items.insert(Kept::new(key, call), Kept::new(value.clone(), call))?;
        Ok(value.into())
    }

    /// A new dictionary of this one and another, of which the second counts where both have a key.
    fn merged(&self, call: &mut Invocation<'_>, this_first: bool) -> Answer {
        let other = pairs_of(call.bind(&["other"])?.next()?)?;
        let own: Vec<_> = self.items().pairs().collect();
        let (first, second) = if this_first { (own, other) } else { (other, own) };
        let mut merged = Items::default();
        for (key, value) in first.into_iter().chain(second) {
            merged.insert(Kept::local(key), Kept::local(value))?;
        }
        Ok(merged.value().into())
    }

    fn all(&self, part: impl Fn(&(Kept, Kept)) -> Value) -> Vec<Value> {
        self.items().items.values().map(part).collect()
    }
}

impl Served for Dict {
    fn methods(&self) -> Vec<String> {
        named(METHODS)
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        match call.method() {
            "__getitem__" => return self.get_item(call),
            "__setitem__" => return self.set_item(call),
            "__delitem__" => return self.delete_item(call),
            "get" => return self.get(call),
            "pop" => return self.pop(call),
            "popitem" => return self.pop_item(call),
            "setdefault" => return self.set_default(call),
            "__or__" => return self.merged(call, true),
            "__ror__" => return self.merged(call, false),
            "update" | "__ior__" => {
                self.items().update(call, "update")?;
                return Ok(Outcome::none());
            }
            "__contains__" => {
                let key: Value = call.bind(&["key"])?.next()?;
                return Ok(Value::Bool(self.items().get(&key)?.is_some()).into());
            }
            _ => {}
        }
        call.bind(&[])?;
        Ok(match call.method() {
            "__len__" => Value::Int(self.items().items.len() as i64).into(),
            "__iter__" => Iterator::over(self.all(|(key, _)| key.value.clone())),
            "keys" => Value::List(self.all(|(key, _)| key.value.clone())).into(),
            "values" => Value::List(self.all(|(_, value)| value.value.clone())).into(),
            "items" => Value::List(
                self.all(|(key, value)| Value::Tuple(vec![key.value.clone(), value.value.clone()])),
            )
            .into(),
            "copy" => self.items().value().into(),
            "clear" => {
                let old = std::mem::take(&mut *self.items());
                drop(old);
                Outcome::none()
            }
            _ => return Err(call.unknown_method()),
        })
    }

    fn text(&self) -> String {
        repr(&self.items().value())
    }

    fn value(&self) -> Option<Value> {
        Some(self.items().value())
    }
}
