//! What managers make by themselves: what those of Python make, with the same methods.
//!
//! | file        | what is in it                                                     |
//! |-------------|-------------------------------------------------------------------|
//! | `key`       | values of Python as keys, and whether two are equal               |
//! | `order`     | which of two values of Python is less                             |
//! | `repr`      | values as Python shows them                                       |
//! | `kept`      | values inside an object, and the objects that they refer to        |
//! | `slice`     | places in a list                                                  |
//! | `dict`, `list`, `array`, `iterator` | containers                                |
//! | `plain`     | a value, a namespace                                              |
//! | `monitor`   | waiting on behalf of a client, which may die meanwhile            |
//! | `lock`, `condition`, `semaphore`, `event`, `barrier`, `queue` | what is waited for |

mod array;
mod barrier;
mod condition;
mod dict;
mod event;
mod iterator;
mod kept;
mod key;
mod list;
mod lock;
mod monitor;
mod order;
mod plain;
mod queue;
mod repr;
mod semaphore;
mod slice;
#[cfg(all(test, not(loom)))]
mod tests;

use std::sync::Arc;

pub use queue::{Queue, QueueError};

pub(super) use repr::repr;

use crate::manager::object::{Invocation, Raised, Served};

type Make = fn(&mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised>;

/// What every manager makes, by name.
pub(super) const KINDS: &[(&str, Make)] = &[
    ("dict", dict::make),
    ("list", list::make),
    ("Array", array::make),
    ("Namespace", plain::make_namespace),
    ("Value", plain::make_value),
    ("Queue", queue::make),
    ("JoinableQueue", queue::make),
    ("Lock", lock::make_lock),
    ("RLock", lock::make_rlock),
    ("Semaphore", semaphore::make),
    ("BoundedSemaphore", semaphore::make_bounded),
    ("Condition", condition::make),
    ("Event", event::make),
    ("Barrier", barrier::make),
];

/// Names as [`Served::methods`] gives them.
fn named(methods: &[&str]) -> Vec<String> {
    methods.iter().map(|name| (*name).to_owned()).collect()
}
