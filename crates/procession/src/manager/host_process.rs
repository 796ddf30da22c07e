//! A manager in a process of its own.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::channel::Queue;
use crate::channel::connection::{
    self, Address, ByteConnection, Client as Connector, EndpointError, RecvError, Signal, Waitable,
};
use crate::manager::host::{ManagerError, Plan, open};
use crate::manager::host_calls::Host;
use crate::manager::registry::Registry;
use crate::pickle::Value;
use crate::process::{self, Builder, JoinHandle, ParentProcess};
use crate::sys;

/// How long to wait for room among those that wait to be let in, and for the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The number of `SIGINT`.
const SIGINT: i32 = 2;

/// An address on its way to another process.
#[derive(Serialize, Deserialize)]
enum Place {
    Tcp(SocketAddr),
    Unix(Vec<u8>),
    Abstract(Vec<u8>),
    Unnamed,
}

impl Place {
    fn of(address: &Address) -> Self {
        match address {
            Address::Tcp(place) => Self::Tcp(*place),
            Address::Unix(path) => Self::Unix(path.as_os_str().as_bytes().to_vec()),
            Address::Abstract(name) => Self::Abstract(name.clone()),
            Address::Unnamed => Self::Unnamed,
        }
    }

    fn into_address(self) -> Address {
        match self {
            Self::Tcp(place) => Address::Tcp(place),
            Self::Unix(path) => Address::Unix(OsString::from_vec(path).into()),
            Self::Abstract(name) => Address::Abstract(name),
            Self::Unnamed => Address::Unnamed,
        }
    }
}

/// What the process is told.
#[derive(Serialize, Deserialize)]
struct Orders {
    address: Place,
    key: Vec<u8>,
    /// For where it listens, or why it does not.
    answer: Queue<Result<Place, String>>,
}

/// Starts a process that serves, and returns it with the address at which it listens.
pub(super) fn start<F>(plan: &Plan, register: F) -> Result<(JoinHandle<()>, Address), ManagerError>
where
    F: Fn(&mut Registry) + Copy + Send + 'static,
{
    let answer = Queue::new().map_err(ManagerError::Arena)?;
    let orders =
        Orders { address: Place::of(&plan.address), key: plan.key.clone(), answer: answer.clone() };
    let process = Builder::new()
        .name("manager")
        .start_method(plan.method)
        .spawn(move |orders: Orders| serve(orders, register), orders)
        .map_err(ManagerError::Spawn)?;
    let either = [Either::Answer(&answer), Either::End(process.sentinel())];
    let waited = connection::wait(&either, None);
    if let Err(source) = waited {
        return Err(give_up(process, ManagerError::Os { call: "poll", source }));
    }
    match answer.try_get() {
        Ok(Ok(place)) => Ok((process, place.into_address())),
        Ok(Err(reason)) => {
            let failed = ManagerError::ListenInProcess { pid: process.pid(), reason };
            Err(give_up(process, failed))
        }
        Err(_) => {
            let pid = process.pid();
            let reason = "it ended without a word".to_owned();
            Err(match process.join() {
                Err(error) => ManagerError::Ended(error),
                Ok(()) => ManagerError::ListenInProcess { pid, reason },
            })
        }
    }
}

/// What a new process does first: answer, or end.
enum Either<'a> {
    Answer(&'a Queue<Result<Place, String>>),
    End(BorrowedFd<'a>),
}

impl Waitable for Either<'_> {
    fn signal(&self) -> io::Result<Signal<'_>> {
        match self {
            Self::Answer(queue) => queue.signal(),
            Self::End(sentinel) => sentinel.signal(),
        }
    }
}

/// Has a process end that is of no use.
fn give_up(process: JoinHandle<()>, failed: ManagerError) -> ManagerError {
    // It is about to end by itself, or cannot be waited for.
    let _ = process.kill();
    let _ = process.join();
    failed
}

/// Does nothing: Ctrl-C is for the process to handle that started this one.
extern "C" fn ignore(_signal: i32) {}

/// Is the manager's process.
fn serve<F: Fn(&mut Registry)>(orders: Orders, register: F) {
    // Without it Ctrl-C would end this process too, which is no reason not to serve.
    let _ = sys::process::install_signal_handler(SIGINT, ignore);
    let Orders { address, key, answer } = orders;
    match begin(&Plan::new(address.into_address(), key), register) {
        Ok(begun) => begun.serve(&answer),
        Err(reason) => {
            // Nobody is left to be told if that fails.
            let _ = answer.put(&Err(reason));
        }
    }
}

/// A manager that listens, and the process with which it ends.
struct Begun {
    host: Arc<Host>,
    parent: ParentProcess,
}

fn begin<F: Fn(&mut Registry)>(plan: &Plan, register: F) -> Result<Begun, String> {
    let parent = process::parent().ok_or("the process that started it is not known")?;
    // There must be one before anybody relies on it.
    parent.sentinel().map_err(|error| format!("its parent cannot be watched: {error}"))?;
    let host = open(plan, register).map_err(|error| match error {
        ManagerError::Listen(error) => error.to_string(),
        error => error.to_string(),
    })?;
    Ok(Begun { host, parent })
}

impl Begun {
    /// Tells where it listens, and serves until it is to stop or the parent ends.
    fn serve(self, answer: &Queue<Result<Place, String>>) {
        let server = self.host.server();
        let told = answer.put(&Ok(Place::of(server.address())));
        if told.is_ok()
            && let Ok(sentinel) = self.parent.sentinel()
            && let Err(error) = connection::wait(&[server.as_fd(), sentinel], None)
        {
            tracing::error!("the manager cannot wait for its end and stops: {error}");
        }
        server.stop();
        self.host.threads.wait_ended();
    }
}

/// Ends a manager's process, by force if it does not end otherwise.
pub(super) fn end(process: &JoinHandle<()>, address: &Address, key: &[u8], patience: Duration) {
    if process.is_alive()
        && let Err(error) = ask_to_end(address, key)
    {
        tracing::debug!("the manager was not told to end: {error}");
    }
    let has_ended = || !matches!(process.join_timeout(patience), Ok(None));
    if !has_ended() {
        tracing::warn!("the manager in process {} does not end; it is terminated", process.pid());
        // It fails only where there is nothing to end.
        let _ = process.terminate();
        if !has_ended() {
            let _ = process.kill();
            let _ = process.child().wait(None);
        }
    }
    if let Address::Unix(path) = address
        && process.exit_status().is_none_or(|status| !status.success())
    {
        // One that was killed leaves the socket file, which leads nowhere.
        let _ = std::fs::remove_file(path);
    }
}

fn ask_to_end(address: &Address, key: &[u8]) -> Result<(), EndpointError> {
    let connector = Connector::new(address.clone()).key(key).timeout(PATIENCE);
    let connection = connector.connect()?;
    let nothing = (Value::Tuple(Vec::new()), Value::Dict(Vec::new()));
    let request = vec![Value::None, "shutdown".into(), nothing.0, nothing.1];
    let request = Value::Tuple(request).to_pickle().expect("a short request can be written");
    // That it has ended is seen by its end.
    if connection.send(&request).is_ok() {
        wait_for_answer(&connection, Instant::now().checked_add(PATIENCE));
    }
    Ok(())
}

/// Blocks until there is an answer, or the end of the connection, or `deadline`.
fn wait_for_answer(connection: &ByteConnection, deadline: Option<Instant>) {
    // Interrupted by a handler of the program, which is no reason to stop waiting.
    while matches!(connection.poll(deadline), Err(RecvError::Interrupted)) {}
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::channel::connection::byte_pipe;

    #[test]
    fn wait_for_an_answer_goes_on_after_an_interruption() {
        let (connection, _silent) = byte_pipe().unwrap();
        // A connection interrupts whoever waits longer than a second, as a signal does.
        let deadline = Instant::now() + Duration::from_millis(1100);
        wait_for_answer(&connection, Some(deadline));
        assert!(Instant::now() >= deadline, "gave up before the deadline");
    }
}
