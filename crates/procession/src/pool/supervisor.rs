//! The one thread of a pool: it waits for workers to die, replaces them, and calls callbacks.
//!
//! It sleeps in `poll` on the pidfds of the workers and on an eventfd, so a pool with nothing to do
//! costs nothing. While a callback is to be called and no other thread waits for results, it waits for
//! them itself, as any waiting thread does, and looks after the workers every now and then. While tasks
//! have a timeout, it wakes when the first may be due: a task that begins now is not due before the
//! shortest timeout has passed, so nobody need tell it when one begins.
//!
//! # Replacing workers
//!
//! | the dead worker                    | what happens                                             |
//! |------------------------------------|----------------------------------------------------------|
//! | had been ready                     | replaced at once                                         |
//! | died before it was ready           | replaced; after [`FAILED_STARTS`] in a row the pool breaks |
//! | the same, of `SIGKILL`             | replaced; after [`KILLED_STARTS`] in a row, over [`KILLED_TIME`] at least, the pool breaks: this signal comes from outside and says little about whether a worker can start |
//!
//! | was killed by the pool, for its task | replaced at once                                       |
//!
//! "In a row" ends when any worker becomes ready. Deaths with no result in between are answered
//! more and more slowly, up to [`LONGEST_PAUSE`], so a pool whose workers die at once does not
//! keep the machine busy with starting them.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::WaitError;
use crate::pool::batch::Death;
use crate::pool::core::{Core, Phase};
use crate::pool::error::{Breakage, PoolError};
use crate::pool::owner::{Launched, Launcher};
use crate::pool::post::Post;
use crate::pool::state::Orders;
use crate::pool::transport::Remains;
use crate::primitive::Ordering;
use crate::process::ExitStatus;
use crate::sys::cpu::KillCounter;
use crate::sys::fd;

/// So many workers in a row that die before they are ready break the pool.
const FAILED_STARTS: u32 = 3;
/// The same for those that were killed.
const KILLED_STARTS: u32 = 50;
/// For so long none has become ready then.
const KILLED_TIME: Duration = Duration::from_secs(30);
/// How many deaths without a result in between are answered at once.
const PROMPT_DEATHS: u32 = 8;
/// The longest pause before a worker is replaced.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The same after a worker that was killed.
const LONGEST_PAUSE_KILLED: Duration = Duration::from_millis(10);
/// The shortest pause after a worker could not even be launched.
const LAUNCH_PAUSE: Duration = Duration::from_millis(100);
/// How long workers of a terminated pool have to exit by themselves.
const GRACE: Duration = Duration::from_millis(100);
/// How long to wait for a killed worker. Longer than this takes only one that the kernel cannot end,
/// and then the pool is no help.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How often to look after the workers while waiting for results.
const SHORTEST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(50);

/// Where a worker sits.
#[derive(Debug)]
enum Seat {
    Taken(Arc<Post>),
    /// To be filled at that time; not at all while the pool does not need it.
    Empty {
        since_clean_exit: bool,
        not_before: Instant,
    },
}

/// What the pool's thread knows.
pub(super) struct Supervisor {
    core: Arc<Core>,
    launcher: Box<dyn Launcher>,
    seats: Vec<Seat>,
    failed_starts: u32,
    killed_starts: u32,
    /// When the first of those was seen dead.
    killed_since: Instant,
    /// How many workers had ever become ready at the last failed start.
    ready_then: u32,
    /// Deaths since a result was taken in.
    deaths: u32,
    results_then: u64,
    ending: Option<Ending>,
    look_pause: Duration,
    /// From the start of the thread on.
    memory: Option<Memory>,
}

/// Watches how often the kernel ends processes for want of memory.
#[derive(Debug)]
struct Memory {
    counter: KillCounter,
    kills: Option<u64>,
}

impl Memory {
    fn watch() -> Self {
        let counter = KillCounter::of_this_process();
        let kills = counter.read();
        Self { counter, kills }
    }

    /// Whether there was another such kill since this was asked before.
    fn has_run_out(&mut self) -> bool {
        let before = self.kills;
        self.kills = self.counter.read();
        self.kills > before
    }
}

/// How far the end of a terminated pool has come.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Grace { until: Instant },
    Killed { until: Instant },
}

impl Supervisor {
    /// Starts the first workers. If one cannot be started, ends the others.
    pub(super) fn launch_all(
        core: Arc<Core>,
        launcher: Box<dyn Launcher>,
    ) -> Result<Self, PoolError> {
        let mut supervisor = Self {
            seats: Vec::with_capacity(core.workers),
            core,
            launcher,
            failed_starts: 0,
            killed_starts: 0,
            killed_since: Instant::now(),
            ready_then: 0,
            deaths: 0,
            results_then: 0,
            ending: None,
            look_pause: SHORTEST_LOOK,
            memory: None,
        };
        for seat in 0..supervisor.core.workers {
            match supervisor.launch(seat) {
                Ok(worker) => supervisor.seats.push(Seat::Taken(worker)),
                Err(error) => {
                    supervisor.give_up();
                    return Err(error);
                }
            }
        }
        supervisor.publish_posts();
        Ok(supervisor)
    }

    /// Starts the thread.
    pub(super) fn start(self) -> Result<thread::JoinHandle<()>, PoolError> {
        // Kept here, so that the workers can be ended if there is no thread to do it.
        let workers: Vec<_> = self.workers().cloned().collect();
        let core = Arc::clone(&self.core);
        let builder = thread::Builder::new().name("procession-pool".to_owned());
        builder.spawn(move || self.run()).map_err(|source| {
            core.end(Phase::Terminated);
            end_all(&workers);
            PoolError::Os { call: "pthread_create", source }
        })
    }

    fn run(mut self) {
        let _finish = Finish(Arc::clone(&self.core));
        self.memory = Some(Memory::watch());
        loop {
            let summons = self.core.summons();
            self.core.run_callbacks();
            self.follow_ending();
            self.fill_seats();
            if self.is_done() {
                break;
            }
            let overdue = self.watch_timeouts();
            self.sleep(summons, overdue);
            self.bury_dead();
        }
        self.core.run_callbacks();
    }

    /// Ends tasks that took too long, and returns when to look again.
    fn watch_timeouts(&self) -> Option<Instant> {
        loop {
            let seen = self.core.timed_ever();
            let again = self.core.end_overdue();
            self.core.set_unwatched_until(again);
            // Whoever added a task after the look either sees until when this sleeps, or is seen here.
            if self.core.timed_ever() == seen {
                return again;
            }
        }
    }

    fn workers(&self) -> impl Iterator<Item = &Arc<Post>> {
        self.seats.iter().filter_map(|seat| match seat {
            Seat::Taken(worker) => Some(worker),
            Seat::Empty { .. } => None,
        })
    }

    fn living(&self) -> usize {
        self.workers().count()
    }

    fn launch(&self, seat: usize) -> Result<Arc<Post>, PoolError> {
        let boot = self.core.transport.admit(seat as u32)?;
        let Launched { child, name } =
            self.launcher.launch(boot.clone()).map_err(PoolError::Launch)?;
        Ok(Arc::new(Post { child, name, boot }))
    }

    fn publish_posts(&self) {
        self.core.publish_posts(self.workers().cloned().collect());
    }

    /// Ends the workers of a pool that was not set up.
    fn give_up(&self) {
        self.core.end(Phase::Terminated);
        end_all(&self.workers().cloned().collect::<Vec<_>>());
    }

    /// Whether the last worker is gone and no other is needed.
    fn is_done(&self) -> bool {
        let gone = self.living() == 0;
        match self.core.phase() {
            Phase::Running => false,
            Phase::Closed => gone && self.core.pending() == 0 && !self.core.is_armed(),
            Phase::Terminated | Phase::Broken(_) => {
                (gone || self.has_waited_enough()) && self.core.is_swept()
            }
        }
    }

    fn has_waited_enough(&self) -> bool {
        matches!(self.ending, Some(Ending::Killed { until }) if until <= Instant::now())
    }

    /// Waits for a death, for a call since `summons`, or for the next thing to do.
    fn sleep(&mut self, summons: u64, overdue: Option<Instant>) {
        let deadline = [self.next_deadline(), overdue].into_iter().flatten().min();
        if !self.core.is_armed() {
            self.poll(summons, deadline);
            return;
        }
        // A worker may die meanwhile.
        let look = Some(Instant::now() + self.look_pause);
        let deadline = deadline.min(look).or(look);
        let before = self.core.results();
        if !self.core.lead_for_callbacks(summons, deadline) {
            // Another thread takes the results in.
            self.poll(summons, deadline);
            self.core.drain();
        }
        let quiet = self.core.results() == before;
        self.look_pause =
            if quiet { (self.look_pause * 2).min(LONGEST_LOOK) } else { SHORTEST_LOOK };
    }

    /// Waits for a death, or for a call since `summons`.
    fn poll(&self, summons: u64, deadline: Option<Instant>) {
        self.core.set_polling(true);
        // Who calls looks whether this polls, and this looks whether somebody has called.
        if self.core.summons() == summons {
            let mut fds: Vec<BorrowedFd<'_>> = vec![self.core.control().as_fd()];
            fds.extend(self.workers().map(|worker| worker.child.sentinel()));
            if let Err(error) = fd::poll_readable(&fds, deadline)
                && error.kind() != ErrorKind::Interrupted
            {
                // `poll` refuses to work when the limit on descriptors was set to less than are open.
                thread::park_timeout(LONGEST_LOOK);
            }
        }
        self.core.set_polling(false);
        // It may have been signalled or not; both are reason enough to look around.
        let _ = fd::eventfd_drain(self.core.control().as_fd());
    }

    fn next_deadline(&self) -> Option<Instant> {
        let empty = self.seats.iter().filter_map(|seat| match seat {
            Seat::Empty { not_before, .. } if self.wants(seat) => Some(*not_before),
            _ => None,
        });
        let ending = self.ending.map(|(Ending::Grace { until } | Ending::Killed { until })| until);
        empty.chain(ending).min()
    }

    /// Removes the workers that have ended and settles their accounts.
    fn bury_dead(&mut self) {
        let mut changed = false;
        for seat in 0..self.seats.len() {
            let Seat::Taken(worker) = &self.seats[seat] else { continue };
            let Some(status) = worker.child.try_wait() else { continue };
            changed = true;
            let empty = Seat::Empty { since_clean_exit: false, not_before: Instant::now() };
            if let Seat::Taken(worker) = std::mem::replace(&mut self.seats[seat], empty) {
                self.seats[seat] = self.settle(&worker, status);
            }
        }
        if changed {
            self.publish_posts();
            self.wake_workers();
        }
    }

    /// Settles the account of a dead worker and says when to replace it.
    fn settle(&mut self, worker: &Post, status: ExitStatus) -> Seat {
        let Remains { claim, was_ready, arrested, work } = self.core.transport.judge(&worker.boot);
        let (pid, name) = (worker.child.pid(), worker.name.clone());
        tracing::debug!(pid, %name, %status, task = ?claim, "worker ended");
        let killed = is_kill(status);
        let clean = claim.is_none() && status.success();
        if !clean && !arrested && self.ending.is_none() {
            self.core.tally.deaths.fetch_add(1, Ordering::Relaxed);
        }
        let out_of_memory = killed && !arrested && self.has_run_out_of_memory();
        let ended = format!("worker {name} (pid {pid}) ended: {status}");
        // Takes in what it said last.
        self.core.settle_death(claim, Death { pid, name, status, out_of_memory });
        if !was_ready {
            let said = self.core.take_start_failure(worker.boot.seat());
            self.count_failed_start(said.unwrap_or(ended), Some(status));
        }
        self.core.tally.inherit(work);
        let pause = if arrested { Duration::ZERO } else { self.pause(killed) };
        Seat::Empty { since_clean_exit: clean, not_before: Instant::now() + pause }
    }

    fn has_run_out_of_memory(&mut self) -> bool {
        self.memory.as_mut().is_some_and(Memory::has_run_out)
    }

    /// Counts a worker that did not get as far as taking tasks; the last straw breaks the pool.
    fn count_failed_start(&mut self, reason: String, status: Option<ExitStatus>) {
        let ready = self.core.transport.ready_workers();
        if ready != self.ready_then {
            (self.failed_starts, self.killed_starts) = (0, 0);
            self.ready_then = ready;
        }
        if status.is_some_and(is_kill) {
            if self.killed_starts == 0 {
                self.killed_since = Instant::now();
            }
            self.killed_starts += 1;
        } else {
            self.failed_starts += 1;
        }
        let killed_in_vain =
            self.killed_starts >= KILLED_STARTS && self.killed_since.elapsed() >= KILLED_TIME;
        if self.failed_starts >= FAILED_STARTS || killed_in_vain {
            let breakage = Breakage { reason, status };
            tracing::error!("{breakage}");
            self.core.end(Phase::Broken(Arc::new(breakage)));
        }
    }

    /// How long to wait before the worker that has just died is replaced.
    ///
    /// One that was killed is replaced sooner: while there are few others, the next kill is the
    /// more likely to meet the replacement before it has got anywhere.
    fn pause(&mut self, killed: bool) -> Duration {
        let longest = if killed { LONGEST_PAUSE_KILLED } else { LONGEST_PAUSE };
        let results = self.core.results();
        if results != self.results_then {
            self.results_then = results;
            self.deaths = 0;
        }
        self.deaths += 1;
        // 10 ms, doubled with each death.
        match self.deaths.checked_sub(PROMPT_DEATHS) {
            None | Some(0) => Duration::ZERO,
            Some(excess) => Duration::from_millis(5 << excess.min(8)).min(longest),
        }
    }

    /// Has workers look around: the dead one may have been woken for a task that it did not take,
    /// and those that are to exit may wait for a word that it took.
    fn wake_workers(&self) {
        let (orders, living) = match self.core.phase() {
            Phase::Running => (Orders::Work, 1),
            Phase::Closed => (Orders::Finish, 1),
            Phase::Terminated | Phase::Broken(_) => (Orders::Stop, self.living()),
        };
        if self.living() > 0 {
            self.core.transport.give_orders(orders, living);
        }
    }

    /// Whether an empty seat is to be filled.
    fn wants(&self, seat: &Seat) -> bool {
        let Seat::Empty { since_clean_exit, .. } = seat else { return false };
        match self.core.phase() {
            Phase::Running => true,
            // Tasks that are left over need somebody; one that exited as told is not replaced
            // while others work.
            Phase::Closed => (!since_clean_exit || self.living() == 0) && self.core.pending() > 0,
            Phase::Terminated | Phase::Broken(_) => false,
        }
    }

    /// Starts workers for the empty seats whose time has come.
    fn fill_seats(&mut self) {
        let mut changed = false;
        for seat in 0..self.seats.len() {
            let due = match &self.seats[seat] {
                Seat::Empty { not_before, .. } => *not_before <= Instant::now(),
                Seat::Taken(_) => false,
            };
            if due && self.wants(&self.seats[seat]) {
                changed = true;
                self.fill(seat);
            }
        }
        if changed {
            self.publish_posts();
        }
    }

    fn fill(&mut self, seat: usize) {
        match self.launch(seat) {
            Ok(worker) => {
                self.core.restarts.fetch_add(1, Ordering::Relaxed);
                self.seats[seat] = Seat::Taken(worker);
                if matches!(self.core.phase(), Phase::Closed) {
                    // Behind the tasks that are left, so that it exits after them.
                    self.core.transport.give_orders(Orders::Finish, 1);
                }
            }
            Err(error) => {
                self.count_failed_start(describe(&error), None);
                // What is lacking may be there again in a moment.
                let not_before = Instant::now() + self.pause(false).max(LAUNCH_PAUSE);
                self.seats[seat] = Seat::Empty { since_clean_exit: false, not_before };
            }
        }
    }

    /// Takes the end of a terminated pool one step further, if it is time.
    fn follow_ending(&mut self) {
        if !matches!(self.core.phase(), Phase::Terminated | Phase::Broken(_)) {
            return;
        }
        let now = Instant::now();
        match self.ending {
            None => self.ending = Some(Ending::Grace { until: now + GRACE }),
            Some(Ending::Grace { until }) if until <= now => {
                for worker in self.workers() {
                    worker.kill();
                }
                self.ending = Some(Ending::Killed { until: now + LAST_WAIT });
            }
            Some(_) => {}
        }
    }
}

fn is_kill(status: ExitStatus) -> bool {
    matches!(status, ExitStatus::Signal { signal: libc::SIGKILL, .. })
}

/// Says that the thread is done, however it came to that.
struct Finish(Arc<Core>);

impl Drop for Finish {
    fn drop(&mut self) {
        // Nobody is left to run tasks. After a pool was closed there are none.
        self.0.end(Phase::Terminated);
        // The pool object may live on for long, and tasks may hold much.
        self.0.transport.discard_backlog();
        self.0.finish();
        // Those that came while this thread was leaving.
        self.0.run_callbacks();
    }
}

/// Kills workers and waits for them.
fn end_all(workers: &[Arc<Post>]) {
    for worker in workers {
        worker.kill();
    }
    let deadline = Some(Instant::now() + LAST_WAIT);
    for worker in workers {
        while let Err(WaitError::Interrupted) = worker.child.wait(deadline) {}
    }
}

/// An error and what caused it, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
