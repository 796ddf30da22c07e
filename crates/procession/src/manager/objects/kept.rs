//! Values inside an object, and the objects that they refer to.

use std::sync::Arc;

use crate::manager::host_table::Entry;
use crate::manager::object::{Invocation, Outcome};
use crate::pickle::Value;

/// A value that an object keeps. The objects of the same manager for which there are proxies in it
/// stay as long as it.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) value: Value,
    refers_to: Vec<Arc<Entry>>,
}

impl Kept {
    pub(super) fn new(value: Value, call: &Invocation<'_>) -> Self {
        let mut refers_to = Vec::new();
        find_proxies(&value, call, &mut refers_to);
        Self { value, refers_to }
    }

    /// A value of this program, which has no proxies.
    pub(super) fn local(value: Value) -> Self {
        Self { value, refers_to: Vec::new() }
    }

    /// Several values, each kept for itself.
    pub(super) fn all(values: Vec<Value>, call: &Invocation<'_>) -> Vec<Self> {
        values.into_iter().map(|value| Self::new(value, call)).collect()
    }

    /// Keeps what the value refers to until the client has had time to refer to it by itself.
    pub(super) fn lend(&self, call: &mut Invocation<'_>) -> Value {
        call.lend(&self.refers_to);
        self.value.clone()
    }

    /// The value as a result that the object keeps no longer.
    pub(super) fn give(self, call: &mut Invocation<'_>) -> Outcome {
        call.lend(&self.refers_to);
        Outcome::Value(self.value)
    }
}

fn find_proxies(value: &Value, call: &Invocation<'_>, found: &mut Vec<Arc<Entry>>) {
    let mut each = |values: &[Value]| {
        values.iter().for_each(|value| find_proxies(value, call, found));
    };
    match value {
        Value::List(values)
        | Value::Tuple(values)
        | Value::Set(values)
        | Value::FrozenSet(values) => each(values),
        Value::Dict(pairs) => pairs.iter().for_each(|(key, value)| {
            find_proxies(key, call, found);
            find_proxies(value, call, found);
        }),
        Value::Object(object) => {
            if let Some(entry) = call.host().object_of_proxy(value) {
                found.push(entry);
                return;
            }
            each(&object.arguments);
            each(&object.items);
            object.pairs.iter().for_each(|(_, value)| find_proxies(value, call, found));
            if let Some(state) = &object.state {
                find_proxies(state, call, found);
            }
        }
        _ => {}
    }
}
