//! What a process keeps for a child that it starts, until that child has ended.
//!
//! A child that is given a proxy for an object in a manager takes a reference of its own when it
//! comes to it. Until then the parent's must stay, also when the parent drops all that it has given
//! away at once.

use std::any::Any;
use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

/// Something that is only there to be dropped later.
pub(crate) type Keepsake = Arc<dyn Any + Send + Sync>;

thread_local! {
    /// What the arguments of a process that is being started have noted; `None` outside of that.
    static NOTED: RefCell<Option<Vec<Keepsake>>> = const { RefCell::new(None) };
}

/// Tells what a child of a fork inherits that its parent must keep.
static INHERITED: OnceLock<fn() -> Vec<Keepsake>> = OnceLock::new();

/// Runs `serialize` for the arguments of a process, and returns what was noted meanwhile.
pub(crate) fn collect<R>(serialize: impl FnOnce() -> R) -> (R, Vec<Keepsake>) {
    let outer = NOTED.replace(Some(Vec::new()));
    let result = serialize();
    (result, NOTED.replace(outer).unwrap_or_default())
}

/// Keeps something for the child whose arguments this thread is serializing, if it is.
pub(crate) fn note(keepsake: impl FnOnce() -> Keepsake) {
    NOTED.with_borrow_mut(|noted| {
        if let Some(noted) = noted {
            noted.push(keepsake());
        }
    });
}

/// Has `list` asked before each fork. The first call decides.
pub(crate) fn on_fork(list: fn() -> Vec<Keepsake>) {
    let _ = INHERITED.set(list);
}

/// What a child that is forked now will need this process to keep.
pub(crate) fn inherited() -> Vec<Keepsake> {
    INHERITED.get().map_or_else(Vec::new, |list| list())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn notes_are_taken_while_arguments_are_serialized_and_only_then() {
        note(|| Arc::new(1));
        let ((), noted) = collect(|| {
            note(|| Arc::new(2));
            let ((), inner) = collect(|| note(|| Arc::new(3)));
            assert_eq!(inner.len(), 1);
            note(|| Arc::new(4));
        });
        let numbers: Vec<i32> =
            noted.iter().map(|one| *one.downcast_ref::<i32>().unwrap()).collect();
        assert_eq!(numbers, [2, 4]);
    }
}
