//! Functions called in processes of their own.
//!
//! A *spawned* process runs the same executable afresh. [`init`], first in `main`, sees that it is
//! meant to be a child, calls the function it was started for, and never returns. The function
//! travels as a place in the executable (see `function.rs`), its arguments and its value in
//! serialized form.
//!
//! With the fork server the fresh image is started once, and copies of it call the functions.
//!
//! A *forked* process is a copy of this one, so it can be given any closure.
//!
//! Either way the outcome comes back as `exchange.rs` describes, and a child that does not get as
//! far as that is known by its exit status.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::channel::connection;
use crate::process::boot::{Boot, take_boot};
use crate::process::child::Child;
use crate::process::error::{BootError, SpawnError};
use crate::process::exchange::{self, Exchange};
use crate::process::exec::Exec;
use crate::process::fate;
use crate::process::fork::{PreparedFork, Side};
use crate::process::function::{FunctionError, Location};
use crate::process::identity::Identity;
use crate::process::join::JoinHandle;
use crate::process::keepsake;
use crate::process::method::StartMethod;
use crate::process::panics;
use crate::process::service::{self, OWN_IMAGE, Served};
use crate::process::setup::{Change, InChild, Placed, Setup, Stdio};
use crate::shm::{self, Parcel, Shared};
use crate::sys::process;

/// Whether [`init`] was called, so that a fresh image of this program will call it too.
static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Makes this process what it was started as. Call it first in `main`.
///
/// In a process that [`spawn`] started it calls the function and does not return. In any other it
/// returns at once.
///
/// # Examples
///
/// ```
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procession::process::init();
///     let handle = procession::process::spawn(|()| std::process::id(), ())?;
///     assert_ne!(handle.join()?, std::process::id());
///     Ok(())
/// }
/// ```
pub fn init() {
    match take_boot() {
        Ok(None) => INITIALIZED.store(true, Ordering::Release),
        Ok(Some(boot)) => {
            INITIALIZED.store(true, Ordering::Release);
            match become_what_was_started(boot) {
                Ok(code) => exit(code),
                Err(error) => fail(&error),
            }
        }
        Err(error) => fail(&error),
    }
}

/// Calls `function` with `args` in a new process, which runs this executable afresh.
///
/// `function` is the name of a function or a closure that captures nothing; several arguments travel
/// as a tuple. Arguments and value are serialized with serde. The process is called `process-1` and
/// so on; use a [`Builder`] for another name, and for more.
///
/// # Errors
///
/// - [`SpawnError::NotInitialized`] when [`init`] was not called.
/// - [`SpawnError::Encode`] when the arguments cannot be serialized.
/// - [`SpawnError::NotInExecutable`] when the function lies in a shared library.
/// - [`SpawnError::Arena`] and [`SpawnError::Os`] when there is no room, or the system refuses.
///
/// # Examples
///
/// ```
/// fn power((base, exponent): (u64, u32)) -> u64 {
///     base.pow(exponent)
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procession::process::init();
///     let handle = procession::process::spawn(power, (2, 10))?;
///     assert_eq!(handle.join()?, 1024);
///     Ok(())
/// }
/// ```
///
/// A closure that captures something has no place in the executable, and is refused:
///
/// ```compile_fail
/// fn main() {
///     procession::process::init();
///     let factor = 3;
///     let _ = procession::process::spawn(move |x: u32| x * factor, 4);
/// }
/// ```
pub fn spawn<F, A, R>(function: F, args: A) -> Result<JoinHandle<R>, SpawnError>
where
    F: Fn(A) -> R + Copy + Send + 'static,
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    Builder::new().spawn(function, args)
}

/// Settings for a process to be started.
///
/// # Examples
///
/// ```
/// use procession::process::{Builder, current};
///
/// fn name(_: ()) -> String {
///     current().name().to_owned()
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procession::process::init();
///     let handle = Builder::new().name("scribe").daemon(true).spawn(name, ())?;
///     assert_eq!(handle.join()?, "scribe");
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder starts nothing by itself"]
pub struct Builder {
    name: Option<String>,
    daemon: bool,
    method: StartMethod,
    setup: Setup,
}

impl Builder {
    /// Settings as [`spawn`] has them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name. Without one it tells the place in the tree: `process-1`, or `process-1:2` for
    /// the second child of that.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Says whether the process is to end when this one ends, however that ends.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Sets how [`spawn`](Self::spawn) starts the process.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = method;
        self
    }

    /// Sets an environment variable of the process.
    ///
    /// Changes of the environment are made in the order of the calls.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.setup.env.push(Change::Set(name.into(), value.into()));
        self
    }

    /// Sets several environment variables of the process.
    pub fn envs<K: Into<OsString>, V: Into<OsString>>(
        self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        variables.into_iter().fold(self, |builder, (name, value)| builder.env(name, value))
    }

    /// Takes an environment variable from the process.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.setup.env.push(Change::Remove(name.into()));
        self
    }

    /// Takes all environment variables from the process, but for those that are set by later calls.
    pub fn env_clear(mut self) -> Self {
        self.setup.env = vec![Change::Clear];
        self
    }

    /// Sets the folder that the process is in; without this it is the one that this process is in.
    ///
    /// If it cannot be entered the function is not called, and joining the process says why.
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.setup.folder = Some(folder.into().into_os_string());
        self
    }

    /// Sets the standard input of the process; it is inherited without this.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.setup.streams[0] = stdin.into();
        self
    }

    /// Sets the standard output of the process; it is inherited without this.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.setup.streams[1] = stdout.into();
        self
    }

    /// Sets the standard error of the process; it is inherited without this.
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.setup.streams[2] = stderr.into();
        self
    }

    /// Calls `function` with `args` in a new process.
    ///
    /// # Errors
    ///
    /// As [`spawn`](fn@spawn), and
    ///
    /// - with [`StartMethod::Fork`] as [`fork`](Self::fork);
    /// - with [`StartMethod::ForkServer`] as [`ForkServer::spawn`](crate::process::ForkServer::spawn). A
    ///   fork server that has died is replaced; [`SpawnError::ForkServerDied`] means that its
    ///   successors died as well;
    /// - [`SpawnError::VariableName`] and [`SpawnError::ZeroByte`] for what cannot be in an environment.
    pub fn spawn<F, A, R>(self, function: F, args: A) -> Result<JoinHandle<R>, SpawnError>
    where
        F: Fn(A) -> R + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        const {
            assert!(
                size_of::<F>() == 0,
                "a spawned process can be given a function by its name, or a closure that captures nothing; pass what it needs as an argument, or use Builder::fork",
            );
        }
        match self.method {
            StartMethod::Fork => self.fork(move || function(args)),
            StartMethod::Spawn | StartMethod::ForkServer => {
                self.spawn_image(child_main::<F, A, R>, &args)
            }
        }
    }

    /// Calls `closure` in a copy of this process.
    ///
    /// The copy has all that this process has in memory, and nothing that it changes there is seen
    /// here. When the closure has returned it exits at once: destructors of what it inherited and
    /// handlers registered with `atexit` do not run in it.
    ///
    /// # Errors
    ///
    /// - [`SpawnError::Threads`] when this process has other threads.
    /// - [`SpawnError::Arena`] and [`SpawnError::Os`] when there is no room, or the system refuses.
    ///
    /// # Examples
    ///
    /// ```
    /// # // The test may run on a thread of its own, so that this process has two.
    /// # fn main() {
    /// let numbers = vec![1, 2, 3];
    /// match procession::process::Builder::new().fork(|| numbers.iter().sum::<i32>()) {
    ///     Ok(handle) => assert_eq!(handle.join().unwrap(), 6),
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// # }
    /// ```
    pub fn fork<F, R>(self, closure: F) -> Result<JoinHandle<R>, SpawnError>
    where
        F: FnOnce() -> R,
        R: Serialize + DeserializeOwned,
    {
        let placed = self.setup.check()?;
        let setup = self.setup.for_fork(&placed);
        let exchange = exchange::create()?;
        let identity = Identity::of_next_child(self.name, self.daemon);
        let prepared = PreparedFork::prepare()?;
        let keepsakes = keepsake::inherited();
        panics::make_ready();
        // What is still buffered would be written by both processes. An error stays with the stream.
        flush();
        match prepared.fork(self.daemon)? {
            Side::Parent { pid, prepared } => {
                let child = prepared.in_parent(pid)?;
                child.keep(keepsakes);
                Ok(started(child, identity.name, exchange))
            }
            Side::Child => {
                // The end of a pipe must not stay open in the child beside its standard descriptors.
                drop(self.setup);
                run_forked(identity, &exchange, &setup, placed, closure)
            }
        }
    }

    fn spawn_image<A: Serialize, R>(
        self,
        entry: Entry,
        args: &A,
    ) -> Result<JoinHandle<R>, SpawnError> {
        let mark = connection::mark();
        let spawned = self.start_image(entry, args);
        if spawned.is_err() {
            // Nobody will fetch the descriptors that are among the arguments.
            connection::withdraw(mark);
        }
        spawned
    }

    fn start_image<A: Serialize, R>(
        self,
        entry: Entry,
        args: &A,
    ) -> Result<JoinHandle<R>, SpawnError> {
        if !INITIALIZED.load(Ordering::Acquire) {
            return Err(SpawnError::NotInitialized);
        }
        let entry = Location::of(entry as usize).map_err(|_| SpawnError::NotInExecutable)?;
        let placed = self.setup.check()?;
        let by_fork_server = self.method == StartMethod::ForkServer;
        let setup = if by_fork_server {
            self.setup.for_fork_server(&placed)
        } else {
            self.setup.for_image()
        };
        let exchange = exchange::create()?;
        let identity = Identity::of_next_child(self.name.clone(), self.daemon);
        let name = identity.name.clone();
        let header = Header { entry, exchange: exchange.clone(), identity, setup };
        let ((bytes, pins), keepsakes) = keepsake::collect(|| shm::pack(|| encode(&header, args)));
        let bytes = bytes.map_err(|source| SpawnError::Encode { source: Box::new(source) })?;
        let payload = Parcel::new(bytes, pins);
        let child = if by_fork_server {
            let descriptors: Vec<_> = placed.iter().map(|(fd, _)| fd.as_fd()).collect();
            service::spawn(&payload, &descriptors, self.daemon)?
        } else {
            self.image(payload, placed).start()?
        };
        child.keep(keepsakes);
        Ok(started(child, name, exchange))
    }

    fn image(&self, payload: Parcel, placed: Placed) -> Exec {
        let exec = Exec::new(OWN_IMAGE).args(env::args_os()).payload(payload).daemon(self.daemon);
        self.setup.give_to(exec, placed)
    }
}

/// What comes before the serialized arguments in the payload of a spawned process.
#[derive(Serialize, Deserialize)]
struct Header {
    /// First, so that nothing else is made of what another build has written.
    entry: Location,
    exchange: Shared<Exchange>,
    identity: Identity,
    setup: InChild,
}

/// What a spawned process calls: [`child_main`], made for one function.
type Entry = fn(Start) -> i32;

/// What a spawned process has to go on.
struct Start {
    boot: Boot,
    /// Length of the serialized arguments, which are the end of the payload.
    args_len: usize,
    exchange: Shared<Exchange>,
}

fn encode<A: Serialize>(header: &Header, args: &A) -> postcard::Result<Vec<u8>> {
    let mut bytes = postcard::to_stdvec(header)?;
    postcard::to_io(args, &mut bytes)?;
    Ok(bytes)
}

fn started<R>(child: Child, name: String, exchange: Shared<Exchange>) -> JoinHandle<R> {
    tracing::debug!(pid = child.pid(), name, "process started");
    child.set_name(&name);
    JoinHandle::new(child, name, exchange)
}

/// Does what a fresh image was started for, and returns the exit code; in the fork server, and in
/// each of its children.
fn become_what_was_started(boot: Boot) -> Result<i32, BootError> {
    if !boot.is_fork_server() {
        return run_image(boot, Vec::new());
    }
    match service::serve(boot)? {
        Served::All => Ok(exchange::EXIT_OK),
        Served::Child(boot, descriptors) => run_image(boot, descriptors),
    }
}

/// Calls the function that the payload names, and returns the exit code.
fn run_image(boot: Boot, descriptors: Vec<OwnedFd>) -> Result<i32, BootError> {
    panics::watch();
    // Alone first: a header of another build has no meaning beyond its first field.
    let (entry, _): (Location, _) =
        postcard::take_from_bytes(boot.payload()).map_err(|_| BootError::Payload)?;
    let address = entry.resolve().map_err(|error| match error {
        FunctionError::Build => BootError::Build,
        FunctionError::NotInExecutable => BootError::Payload,
    })?;
    let (header, args): (Header, &[u8]) =
        postcard::take_from_bytes(boot.payload()).map_err(|_| BootError::Payload)?;
    let args_len = args.len();
    process::set_name(&header.identity.name);
    header.identity.assume();
    // SAFETY: no thread has been started yet: this is `init`, which comes first.
    if let Err(reason) = unsafe { header.setup.apply(descriptors.iter().map(AsFd::as_fd)) } {
        return Ok(exchange::refuse(&header.exchange, &reason));
    }
    drop(descriptors);
    // SAFETY: the address is that of an `Entry`: the parent is the same build of this executable, and
    // `spawn_image` puts nothing else into the field.
    let entry = unsafe { std::mem::transmute::<usize, Entry>(address) };
    Ok(entry(Start { boot, args_len, exchange: header.exchange }))
}

/// Calls the function that a spawned process was started for, and returns the exit code.
fn child_main<F, A, R>(start: Start) -> i32
where
    F: Fn(A) -> R + Copy,
    A: DeserializeOwned,
    R: Serialize,
{
    let Start { boot, args_len, exchange } = start;
    let args = panics::catch(|| {
        let payload = boot.payload();
        postcard::from_bytes::<A>(&payload[payload.len() - args_len..])
    });
    // The arguments have been read, and the function may run for long.
    drop(boot);
    match args {
        Ok(Ok(args)) => exchange::run(&exchange, || value_of::<F>()(args)),
        Ok(Err(error)) => exchange::refuse(
            &exchange,
            &format!(
                "its arguments could not be deserialized: {}",
                connection::text_of_postcard(&error)
            ),
        ),
        Err(report) => {
            exchange::refuse(&exchange, &format!("deserializing its arguments {report}"))
        }
    }
}

/// Makes the value of a type that has no size.
fn value_of<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0) };
    // SAFETY:
    // - Valid to read: nothing is read of a type of size zero, and a dangling pointer is aligned.
    // - A value: `Builder::spawn` was given one, in this or in the parent process, so the type has
    //   one; it is `Copy`, so there may be another.
    unsafe { NonNull::<F>::dangling().read() }
}

/// Runs a forked process to its end.
fn run_forked<R: Serialize>(
    identity: Identity,
    exchange: &Shared<Exchange>,
    setup: &InChild,
    placed: Placed,
    closure: impl FnOnce() -> R,
) -> ! {
    let _stay = NeverReturn;
    panics::watch();
    identity.assume();
    // SAFETY: a process with other threads is not forked.
    let ready = unsafe { setup.apply(placed.iter().map(|(fd, _)| fd.as_fd())) };
    drop(placed);
    let code = match ready {
        Ok(()) => exchange::run(exchange, closure),
        Err(reason) => exchange::refuse(exchange, &reason),
    };
    flush();
    connection::finish_at_end();
    fate::announce_exit(code);
    process::exit_now(code)
}

/// Keeps a forked process from unwinding into the code of its parent.
struct NeverReturn;

impl Drop for NeverReturn {
    fn drop(&mut self) {
        process::exit_now(exchange::EXIT_PANICKED);
    }
}

/// Writes out what is buffered for standard output and error.
fn flush() {
    // Nobody is left to be told of an error, such as a pipe whose reader is gone.
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
}

/// Ends a spawned process.
fn exit(code: i32) -> ! {
    flush();
    fate::announce_exit(code);
    std::process::exit(code)
}

/// Ends a spawned process that could not become one.
fn fail(error: &BootError) -> ! {
    match error.source() {
        Some(source) => eprintln!("procession: cannot start as a child process: {error}: {source}"),
        None => eprintln!("procession: cannot start as a child process: {error}"),
    }
    exit(exchange::EXIT_REFUSED)
}
