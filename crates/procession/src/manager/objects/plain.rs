//! `Value` and `Namespace`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::manager::object::{Answer, Invocation, Outcome, Raised, Served};
use crate::manager::objects::kept::Kept;
use crate::manager::objects::{named, repr};
use crate::pickle::{Object, Value};

const MODULE: &str = "multiprocessing.managers";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value that anybody may replace. It has a type code, which nothing depends on.
struct Cell {
    code: Value,
    value: Mutex<Kept>,
}

pub(super) fn make_value(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    let mut arguments = call.bind(&["typecode", "value", "lock"])?;
    let (code, value) = (arguments.next()?, arguments.next()?);
    Ok(Arc::new(Cell { code, value: Mutex::new(Kept::new(value, call)) }))
}

impl Served for Cell {
    fn methods(&self) -> Vec<String> {
        named(&["get", "set"])
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        match call.method() {
            "get" => {
                call.bind(&[])?;
                Ok(lock(&self.value).lend(call).into())
            }
            "set" => {
                let value = call.bind(&["value"])?.next()?;
                let value = Kept::new(value, call);
                let old = std::mem::replace(&mut *lock(&self.value), value);
                drop(old);
                Ok(Outcome::none())
            }
            _ => Err(call.unknown_method()),
        }
    }

    fn text(&self) -> String {
        format!("Value({}, {})", repr(&self.code), repr(&lock(&self.value).value))
    }

    fn value(&self) -> Option<Value> {
        let state = vec![
            ("_typecode".into(), self.code.clone()),
            ("_value".into(), lock(&self.value).value.clone()),
        ];
        Some(Object::instance(MODULE, "Value", Vec::new()).with_state(Value::Dict(state)).into())
    }
}

/// An object whose attributes anybody may set.
struct Namespace(Mutex<BTreeMap<String, Kept>>);

pub(super) fn make_namespace(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    let arguments = call.take_arguments();
    if !arguments.positional.is_empty() {
        return Err(Raised::type_error("a Namespace takes its attributes by name"));
    }
    let mut attributes = BTreeMap::new();
    for (name, value) in arguments.keywords {
        let Value::Str(name) = name else {
            return Err(Raised::type_error("the name of an attribute is a str"));
        };
        attributes.insert(name, Kept::new(value, call));
    }
    Ok(Arc::new(Namespace(Mutex::new(attributes))))
}

fn no_attribute(name: &str) -> Raised {
    let text = format!("'Namespace' object has no attribute '{name}'");
    Raised::builtin("AttributeError", text)
}

impl Served for Namespace {
    fn methods(&self) -> Vec<String> {
        named(&["__getattribute__", "__setattr__", "__delattr__"])
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(match call.method() {
            "__setattr__" => &["name", "value"],
            _ => &["name"],
        })?;
        let name: String = arguments.next()?;
        match call.method() {
            "__getattribute__" => match lock(&self.0).get(&name) {
                Some(kept) => Ok(kept.lend(call).into()),
                None => Err(no_attribute(&name)),
            },
            "__setattr__" => {
                let value = Kept::new(arguments.next()?, call);
                let old = lock(&self.0).insert(name, value);
                drop(old);
                Ok(Outcome::none())
            }
            "__delattr__" => {
                let old = lock(&self.0).remove(&name);
                old.map(|_| Outcome::none()).ok_or_else(|| no_attribute(&name))
            }
            _ => Err(call.unknown_method()),
        }
    }

    fn text(&self) -> String {
        let attributes = lock(&self.0);
        let shown = attributes.iter().filter(|(name, _)| !name.starts_with('_'));
        let shown: Vec<_> =
            shown.map(|(name, kept)| format!("{name}={}", repr(&kept.value))).collect();
        format!("Namespace({})", shown.join(", "))
    }

    fn value(&self) -> Option<Value> {
        let attributes = lock(&self.0);
        let state =
            attributes.iter().map(|(name, kept)| (name.as_str().into(), kept.value.clone()));
        let state = Value::Dict(state.collect());
        Some(Object::instance(MODULE, "Namespace", Vec::new()).with_state(state).into())
    }
}
