//! What a pool has done and is doing, in numbers.

use std::time::Duration;

use crate::pool::core::{Core, lock};
use crate::pool::gate::Stand;
use crate::pool::state::Work;
use crate::pool::transport::View;
use crate::primitive::{AtomicU64, Ordering};
use crate::sys::clock;

/// What a pool has done and is doing. A chunk of a map counts as one task.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks that workers have done.
    pub done: u64,
    /// Tasks that failed by themselves: they raised or panicked.
    pub failed: u64,
    /// Tasks that failed because their worker died.
    pub lost: u64,
    /// Tasks that took longer than they may.
    pub timed_out: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Tasks that no worker has taken yet.
    pub waiting: usize,
    /// Tasks that workers run.
    pub running: usize,
    /// How often a task was given to another worker, since its own died.
    pub retries: u64,
    /// Workers that died by themselves or were killed by others. The pool's own doing does not count.
    pub deaths: u64,
    /// Workers that were started in place of one that ended, for whatever reason.
    pub restarts: u64,
    /// The workers that live just now.
    pub workers: Vec<WorkerStats>,
}

/// What a worker has done and is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: WorkerState,
    /// For how long it has been doing that, to some milliseconds; `None` if it is starting or ending.
    pub since: Option<Duration>,
    /// Tasks that it has run.
    pub tasks: u64,
    /// How long they took, to some milliseconds each, in which errors cancel out over many tasks.
    pub busy: Duration,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// It is not ready for its first task.
    Starting,
    /// It waits for a task.
    Idle,
    /// It runs a task.
    Running,
    /// The pool has ended it.
    Ending,
}

/// What the owner counts itself.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) cancelled: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) deaths: AtomicU64,
    /// Done and failed, by workers that are gone.
    done: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    pub(super) fn new() -> Self {
        let [cancelled, timed_out, lost, retries, deaths, done, failed] =
            std::array::from_fn(|_| AtomicU64::new(0));
        Self { cancelled, timed_out, lost, retries, deaths, done, failed }
    }

    /// Adds what a worker has done that is gone.
    pub(super) fn inherit(&self, work: Work) {
        self.done.fetch_add(work.done, Ordering::Relaxed);
        self.failed.fetch_add(work.failed, Ordering::Relaxed);
    }
}

impl Core {
    /// Looks at the counters, most of which are the workers'. Takes no results in.
    pub(super) fn stats(&self) -> Stats {
        let tally = &self.tally;
        let count = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let now = clock::now();
        // Nobody is buried between the look at the dead and that at the living.
        let posts = lock(&self.posts);
        let mut stats = Stats {
            done: count(&tally.done),
            failed: count(&tally.failed),
            lost: count(&tally.lost),
            timed_out: count(&tally.timed_out),
            cancelled: count(&tally.cancelled),
            waiting: self.transport.backlog(),
            retries: count(&tally.retries),
            deaths: count(&tally.deaths),
            restarts: count(&self.restarts),
            ..Stats::default()
        };
        for post in posts.iter() {
            let view = self.transport.look(&post.boot);
            let worker = worker_stats(post.child.pid(), &post.name, &view, now);
            stats.done += view.work.done;
            stats.failed += view.work.failed;
            stats.running += usize::from(worker.state == WorkerState::Running);
            stats.workers.push(worker);
        }
        stats
    }
}

fn worker_stats(pid: u32, name: &str, view: &View, now: u64) -> WorkerStats {
    let state = match view.stand {
        Stand::Arrested => WorkerState::Ending,
        Stand::Running(_) => WorkerState::Running,
        Stand::New | Stand::Finished(_) if view.was_ready => WorkerState::Idle,
        Stand::New | Stand::Finished(_) => WorkerState::Starting,
    };
    let known = view.since != 0 && state != WorkerState::Ending;
    let since = known.then(|| Duration::from_nanos(now.saturating_sub(view.since)));
    let Work { done, failed, mut busy } = view.work;
    if let (WorkerState::Running, Some(since)) = (state, since) {
        busy += clock::span(since);
    }
    let (name, busy) = (name.to_owned(), Duration::from_nanos(busy));
    WorkerStats { pid, name, state, since, tasks: done + failed, busy }
}
