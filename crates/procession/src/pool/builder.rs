//! Settings for pools of Rust functions, and how their workers are started.

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::num::NonZero;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pool::batch::TaskOptions;
use crate::pool::error::{LaunchError, PoolError};
use crate::pool::function::FunctionRunner;
use crate::pool::owner::{Affinity, Launched, Launcher, Options, RawPool};
use crate::pool::transport::WorkerBoot;
use crate::pool::typed::Pool;
use crate::pool::worker;
use crate::process::{self, Child, SpawnError, StartMethod, available_cpus, panics};
use crate::sys::process as system;

/// Tasks for each worker that an iterator over values has under way, unless told otherwise.
const WINDOW: usize = 4;
/// Exit code of a worker that could not go on.
const EXIT_CANNOT_SERVE: i32 = 1;

/// Settings for a [`Pool`].
#[derive(Clone)]
#[must_use = "a builder starts nothing by itself"]
pub struct Builder {
    options: Options,
    method: StartMethod,
    name: String,
    pub(super) calls: Calls,
    start: Start,
}

/// How calls of a pool are treated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls {
    /// Items in a task; the pool decides if there is none.
    pub(super) chunk: Option<NonZero<usize>>,
    /// Tasks for each worker that an iterator over values has under way.
    pub(super) window: NonZero<usize>,
    pub(super) tasks: TaskOptions,
}

/// Starts a process that becomes a worker.
type Start = Arc<dyn Fn(process::Builder, WorkerBoot) -> Result<Child, SpawnError> + Send + Sync>;

impl Default for Builder {
    fn default() -> Self {
        let window = NonZero::new(WINDOW).unwrap_or(NonZero::<usize>::MIN);
        Self {
            options: Options::new(available_cpus()),
            method: StartMethod::default(),
            name: "worker".to_owned(),
            calls: Calls { chunk: None, window, tasks: TaskOptions::default() },
            start: Arc::new(|builder, boot| Ok(builder.spawn(work, boot)?.into_child())),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, method, name, calls, .. } = self;
        f.debug_struct("Builder")
            .field("options", options)
            .field("method", method)
            .field("name", name)
            .field("calls", calls)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Settings for a pool with one worker for each processor this process may use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of workers.
    pub fn workers(mut self, workers: usize) -> Self {
        self.options.workers = workers;
        self
    }

    /// Sets how many times a task is run again after the worker that ran it died. 0 unless set: only
    /// the caller knows whether a task that was half done may be done again.
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Sets how the first workers are started. Those that replace a dead one are always spawned, as the
    /// pool then has a thread of its own.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = method;
        self
    }

    /// Sets how many items make a task, for all calls; see [`Pool::chunk`].
    pub fn chunk(mut self, items: usize) -> Self {
        self.calls.chunk = NonZero::new(items);
        self
    }

    /// Sets how many tasks for each worker an iterator over values has under way, for all calls; see
    /// [`Pool::window`].
    pub fn window(mut self, tasks: usize) -> Self {
        self.calls.window = NonZero::new(tasks).unwrap_or(NonZero::<usize>::MIN);
        self
    }

    /// Sets how long a task may take, for all calls; see [`Pool::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.calls.tasks.timeout = Some(timeout);
        self
    }

    /// Sets after how many tasks a worker is replaced by a fresh one. 0 is never, as it is unless set.
    pub fn max_tasks(mut self, tasks: u64) -> Self {
        self.options.max_tasks = NonZero::new(tasks);
        self
    }

    /// Sets how much memory a worker may have to itself, in bytes: one that has more is replaced after
    /// the task at hand. 0 is any, as it is unless set.
    ///
    /// Counted is what is resident and neither shared nor of a file. The worker looks after a task, at
    /// most every 10 milliseconds.
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.options.max_memory = NonZero::new(bytes);
        self
    }

    /// Sets on which processors the workers run.
    pub fn affinity(mut self, affinity: Affinity) -> Self {
        self.options.affinity = affinity;
        self
    }

    /// Sets what the workers are called, before a dash and their number: `worker` unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Has every worker call `function` with `argument` before its first task. The function returns
    /// nothing, or a `Result` with nothing in it.
    ///
    /// If it fails or panics, the worker does not start; three such workers in a row break the pool, and
    /// every task fails with [`PoolError::Broken`], which says what went wrong.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::pool::{Pool, PoolError, TaskError};
    ///
    /// fn open_model(path: String) -> std::io::Result<()> {
    ///     let _model = std::fs::read(path)?; // to be kept in a static
    ///     Ok(())
    /// }
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     procession::init();
    ///     let pool = Pool::builder().workers(1).initializer(open_model, "nowhere".into()).build()?;
    ///     match pool.apply(|x: u32| x + 1, 1) {
    ///         Err(TaskError::Pool(PoolError::Broken(cause))) => {
    ///             assert!(cause.reason.contains("No such file"));
    ///         }
    ///         other => panic!("{other:?}"),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn initializer<F, A, R>(mut self, function: F, argument: A) -> Self
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        R: Initialized,
    {
        const {
            assert!(
                size_of::<F>() == 0,
                "a worker can be given a function by its name, or a closure that captures nothing; pass what it needs as the argument",
            );
        }
        self.start = Arc::new(move |builder, boot| {
            let argument = argument.clone();
            let initialize = move |(boot, argument): (WorkerBoot, A)| {
                initialize_and_work(&boot, || function(argument).cause());
            };
            Ok(builder.spawn(initialize, (boot, argument))?.into_child())
        });
        self
    }

    /// Starts the workers. Does not wait until they are ready.
    ///
    /// # Errors
    ///
    /// - [`PoolError::NoWorkers`] when the number of workers is 0.
    /// - [`PoolError::Affinity`] when a worker is to run where it cannot.
    /// - [`PoolError::Launch`] when a worker cannot be started.
    /// - [`PoolError::Arena`] and [`PoolError::Os`] when there is no room, or the system refuses.
    pub fn build(self) -> Result<Pool, PoolError> {
        let Self { options, method, name, calls, start } = self;
        let creator = thread::current().id();
        let launcher = FunctionLauncher { method, name, creator, start };
        let raw = RawPool::start(options, Box::new(launcher))?;
        Ok(Pool::new_with(Arc::new(raw), calls))
    }
}

/// What an initializer may return: nothing, or a `Result` with nothing in it.
pub trait Initialized: sealed::Initialized {}

mod sealed {
    pub trait Initialized {
        /// Why the worker cannot start.
        fn cause(self) -> Option<String>;
    }
}

impl Initialized for () {}
impl<E: Display> Initialized for Result<(), E> {}

impl sealed::Initialized for () {
    fn cause(self) -> Option<String> {
        Ok::<(), Infallible>(self).cause()
    }
}

impl<E: Display> sealed::Initialized for Result<(), E> {
    fn cause(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// Starts workers that run functions of this executable.
struct FunctionLauncher {
    method: StartMethod,
    name: String,
    /// The thread that makes the pool and may fork. The pool's own may not, as it is a second one.
    creator: ThreadId,
    start: Start,
}

impl Launcher for FunctionLauncher {
    fn launch(&self, boot: WorkerBoot) -> Result<Launched, LaunchError> {
        let method = match self.method {
            StartMethod::Fork if thread::current().id() != self.creator => StartMethod::Spawn,
            method => method,
        };
        let name = format!("{}-{}", self.name, boot.seat() + 1);
        let builder = process::Builder::new().name(name.clone()).daemon(true).start_method(method);
        Ok(Launched { child: (self.start)(builder, boot)?, name })
    }
}

/// What a worker process does that has something to do first.
fn initialize_and_work(boot: &WorkerBoot, initialize: impl FnOnce() -> Option<String>) {
    if let Err(error) = boot.prepare() {
        cannot_start(boot, &format!("the worker cannot run where it is to: {error}"));
    }
    match panics::catch(initialize) {
        Ok(None) => serve(boot),
        Ok(Some(cause)) => cannot_start(boot, &format!("the initializer failed: {cause}")),
        Err(report) => cannot_start(boot, &format!("the initializer {report}")),
    }
}

fn cannot_start(boot: &WorkerBoot, reason: &str) -> ! {
    boot.start_failed(reason);
    system::exit_now(EXIT_CANNOT_SERVE)
}

/// What a worker process does.
#[expect(clippy::needless_pass_by_value, reason = "what a process is started with is its own")]
fn work(boot: WorkerBoot) {
    serve(&boot);
}

fn serve(boot: &WorkerBoot) {
    // Ctrl-C goes to all processes at a terminal. What becomes of the pool is for the owner to say,
    // and with the owner its workers end. A handler, unlike "ignore", is not passed on to what a task
    // may start.
    let _ = system::install_signal_handler(libc::SIGINT, leave_it_to_the_owner);
    if let Err(error) = worker::serve(boot, &mut FunctionRunner::default()) {
        eprintln!("procession: a pool worker cannot go on: {error}");
        system::exit_now(EXIT_CANNOT_SERVE);
    }
}

extern "C" fn leave_it_to_the_owner(_signal: i32) {}
