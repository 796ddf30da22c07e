//! What `iter` of a container gives: its items at that time, one after the other.

use std::sync::{Arc, Mutex, PoisonError};

use crate::manager::object::{Answer, Invocation, Outcome, Raised, Served};
use crate::manager::objects::named;
use crate::pickle::Value;

/// An iterator, whose items clients share among them.
pub(super) struct Iterator(Mutex<std::vec::IntoIter<Value>>);

impl Iterator {
    /// An iterator over some values, as the result of a method.
    pub(super) fn over(values: Vec<Value>) -> Outcome {
        let object = Arc::new(Self(Mutex::new(values.into_iter())));
        Outcome::Object { kind: "Iterator".to_owned(), object }
    }
}

impl Served for Iterator {
    fn methods(&self) -> Vec<String> {
        named(&["__next__"])
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        call.bind(&[])?;
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).next();
        next.map(Outcome::Value).ok_or_else(|| Raised::new("builtins", "StopIteration", Vec::new()))
    }

    fn text(&self) -> String {
        "<iterator>".to_owned()
    }
}
