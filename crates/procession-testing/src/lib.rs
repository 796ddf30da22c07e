//! Helpers for the tests of `procession`. Nothing that the engine needs at run time.
//!
//! The built-in test main runs each test on a thread of its own. A process with several threads
//! cannot safely fork, and a program that starts its own executable again must be able to divert
//! the child first thing in `main`. So tests that start processes are listed by hand and run on
//! the main thread:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn two_and_two_make_four() {
//!     assert_eq!(2 + 2, 4);
//! }
//!
//! fn main() -> ExitCode {
//!     fn init() {} // `procession::init` in a real test
//!     procession_testing::run(init, procession_testing::tests![two_and_two_make_four])
//! }
//! ```
//!
//! with `harness = false` for that file in `Cargo.toml`. Command line and report are those of the
//! built-in main. Around every test, [`run`] arms a [`Watchdog`] and holds a [`LeakCheck`].
//!
//! [`Report`] measures. [`process`] has what tests do to processes that they did not start through the engine.

mod bench;
mod harness;
mod interrupt;
mod leaks;
pub mod process;
mod watchdog;

pub use bench::{Contender, Report};
pub use harness::{ROLE, run, run_by_role};
pub use leaks::{LeakCheck, Leaks};
pub use watchdog::Watchdog;

/// Lists test functions by name, for [`run`].
///
/// A test that is not listed is dead code, which the lint gate refuses.
#[macro_export]
macro_rules! tests {
    ($($test:ident),+ $(,)?) => {
        &[$((stringify!($test), $test as fn())),+]
    };
}
