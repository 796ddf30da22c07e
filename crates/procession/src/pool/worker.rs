//! The worker's side of a pool: take a task, run it, hand over the result, until told to stop.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::channel::{GetError, Message};
use crate::pool::frame::{RESULT_HEADER, ResultHeader, Status, TaskHeader, TaskId};
use crate::pool::state::Orders;
use crate::pool::transport::{ArenaWorker, Begin, WorkerBoot, WorkerTransport};
use crate::pool::wear::Wear;
use crate::shm::{ArenaError, Pins};

/// A reply buffer that has grown beyond this is not kept for the next task, in bytes.
const KEPT_REPLY: usize = 4 << 20;
/// How many times the owner may make room in vain before a result is given up.
const FUTILE_RELIEFS: u32 = 3;
/// How long to wait for the owner before trying again: others may have made room.
const PATIENCE: Duration = Duration::from_millis(20);

/// A function of a pool, as a task names it.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The same for all tasks with this function and never used for another one of the same pool, so
    /// what was decoded from the bytes can be kept under it.
    pub handle: u64,
    /// What was given to [`register_job`](super::raw::RawPool::register_job).
    pub bytes: &'a [u8],
}

/// What a runner says about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// Done; the reply is its value.
    Done,
    /// Failed; the reply says why.
    Failed,
}

/// What a runner writes about a task.
#[derive(Debug)]
pub struct Reply {
    record: Vec<u8>,
    pins: Pins,
}

impl Reply {
    fn new() -> Self {
        Self { record: vec![0; RESULT_HEADER], pins: Pins::default() }
    }

    /// Returns the buffer to append to. What stands in it must stay.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.record
    }

    /// Takes back what was appended.
    pub fn clear(&mut self) {
        self.record.truncate(RESULT_HEADER);
        self.pins = Pins::default();
    }

    /// Keeps the shared objects alive that the reply names.
    pub fn pin(&mut self, pins: Pins) {
        self.pins = pins;
    }

    /// Empties it for the next task, and does not keep a buffer that one large reply needed.
    fn recycle(&mut self) {
        self.clear();
        self.record.shrink_to(KEPT_REPLY);
    }
}

#[cfg(test)]
impl Reply {
    /// An empty reply outside a worker.
    pub(super) fn for_test() -> Self {
        Self::new()
    }

    /// What was appended.
    pub(super) fn written(&self) -> &[u8] {
        &self.record[RESULT_HEADER..]
    }
}

/// Runs the tasks of a worker.
pub trait Runner {
    /// Runs one task and appends its value, or what went wrong, to `reply`.
    ///
    /// `kind` is what was given to [`Frames::new`](super::raw::Frames::new). Shared objects that
    /// `payload` names can be deserialized until this returns. A panic ends the worker.
    fn run(&mut self, job: Job<'_>, kind: u32, payload: &[u8], reply: &mut Reply) -> RunStatus;

    /// Says whether the worker is to be replaced now. Asked after each task, when its reply was sent.
    fn retire(&mut self) -> bool {
        false
    }

    /// Called when a signal handler ran while the worker was waiting. `false` makes it leave.
    fn interrupted(&mut self) -> bool {
        true
    }
}

/// Why a worker left its pool before it was told to.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The arena does not work any more.
    Arena(ArenaError),
    /// It cannot run on the processors that the pool chose for it.
    Affinity(io::Error),
    /// The runner said so after a signal.
    Interrupted,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arena(_) => "tasks cannot be received",
            Self::Affinity(_) => "it cannot run on the processors chosen for it",
            Self::Interrupted => "left because of a signal",
        })
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Arena(source) => Some(source),
            Self::Affinity(source) => Some(source),
            Self::Interrupted => None,
        }
    }
}

impl From<ArenaError> for ServeError {
    fn from(error: ArenaError) -> Self {
        Self::Arena(error)
    }
}

/// Runs tasks until the pool is closed or terminated.
///
/// With the first call the worker counts as started: what may go wrong before, such as setting up
/// what tasks need, belongs before it; so does [`WorkerBoot::prepare`], if that is to run where the tasks
/// will.
///
/// # Errors
///
/// [`ServeError`] when the worker cannot go on; it should then exit with a code other than 0.
pub fn serve(boot: &WorkerBoot, runner: &mut dyn Runner) -> Result<(), ServeError> {
    boot.prepare().map_err(|error| {
        boot.start_failed(&format!("the worker cannot run where it is to: {error}"));
        ServeError::Affinity(error)
    })?;
    let transport = ArenaWorker::new(boot)?;
    let wear = Wear::new(boot.limits());
    Worker { transport, runner, reply: Reply::new(), seat: boot.seat() as u32, wear }.serve()
}

struct Worker<'a, T> {
    transport: T,
    runner: &'a mut dyn Runner,
    reply: Reply,
    seat: u32,
    wear: Wear,
}

/// What to do after a record was dealt with.
enum Then {
    GoOn,
    Leave,
}

impl<T: WorkerTransport> Worker<'_, T> {
    fn serve(&mut self) -> Result<(), ServeError> {
        self.transport.become_ready();
        loop {
            let then = match self.transport.take() {
                Ok(record) => self.deal_with(record),
                Err(GetError::Arena(error)) => return Err(error.into()),
                Err(GetError::Closed) => Then::Leave,
                Err(_) if self.runner.interrupted() => Then::GoOn,
                Err(_) => return Err(ServeError::Interrupted),
            };
            if let Then::Leave = then {
                return Ok(());
            }
        }
    }

    fn deal_with(&mut self, record: Message) -> Then {
        let task = TaskHeader::split(record.as_ref());
        let Some((TaskHeader { id: Some(id), job, kind, care }, payload)) = task else {
            return self.look_around();
        };
        if self.transport.orders() == Orders::Stop {
            self.transport.let_go();
            return Then::Leave;
        }
        let began = match self.transport.begin(id, care) {
            Begin::Run { began } => began,
            Begin::PassBy => {
                drop(record);
                self.send(id, Status::Skipped);
                self.reply.recycle();
                return Then::GoOn;
            }
            Begin::Leave => return Then::Leave,
        };
        let status = self.run(job, kind, payload);
        // The result may need its room.
        drop(record);
        if !self.transport.finish(id, began, status != Status::Done) {
            return Then::Leave;
        }
        self.send(id, status);
        if care.urgent && status != Status::Done {
            self.transport.urge();
        }
        self.reply.recycle();
        if self.runner.retire() || self.wear.is_worn() { Then::Leave } else { Then::GoOn }
    }

    /// There was no task; who is told to finish has none to expect behind this.
    fn look_around(&self) -> Then {
        match self.transport.orders() {
            Orders::Work => Then::GoOn,
            Orders::Finish | Orders::Stop => Then::Leave,
        }
    }

    fn run(&mut self, job: u64, kind: u32, payload: &[u8]) -> Status {
        match self.transport.job(job) {
            Ok(bytes) => {
                let job = Job { handle: job, bytes };
                match self.runner.run(job, kind, payload, &mut self.reply) {
                    RunStatus::Done => Status::Done,
                    RunStatus::Failed => Status::Failed,
                }
            }
            Err(error) => {
                let reason = format!("the function of the task cannot be found: {error}");
                self.reply.record.extend_from_slice(reason.as_bytes());
                Status::Refused
            }
        }
    }

    /// Hands the reply over. If there is no room for it, waits until the owner has taken some results
    /// in; if that does not help, sends an error in its place.
    fn send(&mut self, id: TaskId, mut status: Status) {
        let mut futile = 0;
        loop {
            let header = ResultHeader { id: Some(id), status, seat: self.seat };
            self.reply.record[..RESULT_HEADER].copy_from_slice(&header.to_bytes());
            let error = match self.transport.publish(&self.reply.record, &self.reply.pins) {
                Ok(()) => return,
                Err(error) => error,
            };
            if self.transport.orders() == Orders::Stop {
                return;
            }
            if status != Status::Refused && is_hopeless(&error, futile) {
                status = Status::Refused;
                self.excuse(&error);
            } else if self.transport.wait_for_room(Instant::now() + PATIENCE) {
                futile += 1;
            }
        }
    }

    /// Puts the reason why the reply cannot be sent in its place.
    fn excuse(&mut self, error: &ArenaError) {
        let len = self.reply.record.len() - RESULT_HEADER;
        self.reply.clear();
        let reason = format!("the result of {len} bytes could not be sent: {error}");
        self.reply.record.extend_from_slice(reason.as_bytes());
    }
}

/// Whether to give a result up that the owner made room for in vain so often.
fn is_hopeless(error: &ArenaError, futile: u32) -> bool {
    match error {
        ArenaError::OutOfMemory { requested, limit, .. } => {
            requested > limit || futile >= FUTILE_RELIEFS
        }
        _ => true,
    }
}
