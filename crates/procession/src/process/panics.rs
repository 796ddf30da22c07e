//! What a panic said, kept for the process that waits for the outcome.
//!
//! The value that unwinds carries the message but not the place, so a panic hook notes both for
//! the thread that panics. The hook that was there before runs too: the message is printed as ever.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use serde::{Deserialize, Serialize};

thread_local! {
    /// Where this thread panicked last.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic, as it is told to another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PanicReport {
    /// The message, or a note that the panic had none.
    pub(crate) message: String,
    /// `file:line:column`; unknown if the hook was replaced or never ran.
    pub(crate) location: Option<String>,
}

impl fmt::Display for PanicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panicked")?;
        if let Some(location) = &self.location {
            write!(f, " at {location}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Makes panics of this process leave their place for [`catch`], besides what they did before.
///
/// A second call does nothing, also in a forked child.
pub(crate) fn watch() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            note(info.location().map(ToString::to_string));
            previous(info);
        }));
    });
}

/// Has ready what [`catch`] needs in a child that is forked after this.
///
/// Set up there, it would cost the child copies of a dozen pages, which is half a fork.
pub(crate) fn make_ready() {
    note(None);
}

/// Runs `work` and turns a panic into a report.
///
/// The caller must not use what `work` may have left half-changed.
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Result<R, PanicReport> {
    note(None);
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let location = PLACE.try_with(|place| place.borrow_mut().take()).ok().flatten();
        let report = PanicReport { message: message_of(payload.as_ref()), location };
        // Dropping the payload runs the user's code, which may panic again.
        std::mem::forget(payload);
        report
    })
}

fn note(location: Option<String>) {
    // A panic while the thread's locals are being destroyed has no place to be noted in.
    let _ = PLACE.try_with(|place| *place.borrow_mut() = location);
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a value that is not text".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_has_message_and_place() {
        watch();
        let report = catch(|| panic!("no {}", "luck")).unwrap_err();
        assert_eq!(report.message, "no luck");
        assert!(report.location.unwrap().contains("panics.rs:"), "the place is missing");
    }

    #[test]
    fn place_of_an_earlier_panic_is_not_reported_again() {
        watch();
        catch(|| panic!("first")).unwrap_err();
        let report = catch(|| panic::resume_unwind(Box::new("second"))).unwrap_err();
        assert_eq!(report, PanicReport { message: "second".to_owned(), location: None });
    }

    #[test]
    fn value_passes_through() {
        assert_eq!(catch(|| 5), Ok(5));
    }
}
