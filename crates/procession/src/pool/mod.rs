//! Pools of worker processes.
//!
//! [`Pool`] runs functions of this program. Below it, for other faces of the engine, is [`raw`]: a
//! pool whose functions, arguments and values are bytes.
//!
//! # How a task travels
//!
//! ```text
//! owner                               arena                              worker
//!   Frames ── submit ──▶ task queue ─────────── take, with a claim ──▶ Runner
//!                        function (job) ─────── read ────────────────▶   │
//!   RawBatch ◀─ drain ── result queue ◀──────── publish ────────────────┘
//!   pool's thread ─ pidfds of the workers; judges the claims of the dead
//! ```
//!
//! There is one queue of tasks for all workers, so an idle one takes whatever is next. Results are
//! taken in by whoever waits for one, for all who wait; without anybody waiting they stay where they
//! are, unless somebody is to be called back. See the headers of `state` (the words in the arena), `gate`
//! and `cancel` (ending tasks), `transport` (the two ends), `core` (the owner's locks), `turn` (several
//! waiting threads), `batch` (slots), `supervisor` (deaths and timeouts), `map` (items and tasks).
//!
//! What can be relied on:
//!
//! - A task is run once. If its worker dies in the middle it fails, naming the worker, or is run again
//!   as often as the pool was told; no other task is touched.
//! - A task may have a timeout, and can be cancelled, also while it runs: its worker is killed and
//!   replaced, and no other task is touched.
//! - A worker that dies is replaced. If workers die before they are ready, the pool breaks once, with the
//!   reason, and every task that has no outcome yet fails with it.
//! - Every task gets an outcome, also when the pool is terminated.
//! - Workers end with the pool, and with the process that made it, however that ends.

mod batch;
mod builder;
mod cancel;
mod core;
mod error;
mod frame;
mod frames;
mod function;
mod gate;
mod home;
mod job;
mod map;
mod outcome;
mod owner;
mod post;
mod state;
mod stats;
mod supervisor;
mod task;
mod transport;
mod turn;
mod typed;
mod values;
mod wear;
mod worker;

pub use self::builder::{Builder, Initialized};
pub use self::error::{Breakage, LaunchError, PoolError, TaskLost, TimedOut, WorkerDied};
pub use self::owner::Affinity;
pub use self::stats::{Stats, WorkerState, WorkerStats};
pub use self::task::{Task, TaskError, TryError};
pub use self::typed::Pool;
pub use self::values::Values;

/// The pool whose functions, arguments and values are bytes.
///
/// The owner [starts](raw::RawPool::start) workers through a [`Launcher`](raw::Launcher), makes
/// functions known as [jobs](raw::RawPool::register_job), packs tasks into [`Frames`](raw::Frames) and
/// submits them to a [`RawBatch`](raw::RawBatch), which collects the outcomes. A worker process calls
/// [`serve`](raw::serve) with a [`Runner`](raw::Runner) that knows what the bytes mean.
pub mod raw {
    pub use super::batch::{Order, TaskOptions};
    pub use super::core::Phase;
    pub use super::error::{Breakage, LaunchError, PoolError, TaskLost, TimedOut, WorkerDied};
    pub use super::frames::Frames;
    pub use super::job::JobRef;
    pub use super::outcome::{Outcome, Payload};
    pub use super::owner::{Affinity, Launched, Launcher, Options, PoolStatus, RawBatch, RawPool};
    pub use super::stats::{Stats, WorkerState, WorkerStats};
    pub use super::transport::WorkerBoot;
    pub use super::worker::{Job, Reply, RunStatus, Runner, ServeError, serve};
}
