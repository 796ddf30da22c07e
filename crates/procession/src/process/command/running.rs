//! A command that was started.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::error::WaitError;
use crate::process::child::Child;
use crate::process::command::streams::Streams;
use crate::process::command::{CommandError, Output, PartialOutput};
use crate::process::status::ExitStatus;
use crate::process::tree::{TreeError, kill_tree_behind};
use crate::sys::command::set_nonblocking;

/// A command that was started.
///
/// Dropping it closes its pipes and lets it go on by itself; it does not stay a zombie.
///
/// # Examples
///
/// ```
/// let mut sleep = procession::command("sleep").arg("1000").start()?;
/// assert!(sleep.is_alive());
/// sleep.terminate()?;
/// assert_eq!(sleep.wait().to_string(), "killed by signal 15 (SIGTERM)");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RunningCommand {
    child: Child,
    command: String,
    streams: Streams,
}

impl RunningCommand {
    pub(super) fn new(child: Child, command: String, streams: Streams) -> Self {
        Self { child, command, streams }
    }

    /// Returns the process id. After the command was waited for, the system may give it to another.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns the command line for messages: shortened, and quoted for people rather than shells.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Returns the process, as functions that were started have one. It can be cloned, to wait for the
    /// command in several threads.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Returns a descriptor that becomes readable when the process has ended, to be waited for
    /// together with others.
    pub fn sentinel(&self) -> BorrowedFd<'_> {
        self.child.sentinel()
    }

    /// Says whether the process has not ended yet.
    pub fn is_alive(&self) -> bool {
        self.child.is_alive()
    }

    /// Returns how the process ended, or `None` if it has not. Never blocks.
    pub fn try_wait(&self) -> Option<ExitStatus> {
        self.child.try_wait()
    }

    /// Closes the command's standard input, if that is a pipe, and blocks until the command has ended.
    ///
    /// A command whose output nobody reads waits when the pipe is full, and so would this; see
    /// [`communicate`](Self::communicate). Signals that this process handles do not end the waiting.
    pub fn wait(&mut self) -> ExitStatus {
        self.streams.stdin = None;
        loop {
            // Without a deadline the only error is that a signal handler ran.
            if let Ok(status) = self.child.wait(None) {
                return status;
            }
        }
    }

    /// Blocks until the command has ended or `timeout` has passed; `None` if it has not ended.
    ///
    /// A timeout of zero only looks. The standard input stays open.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<ExitStatus> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// Sends a signal to the process. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// `EPERM` when it runs with the rights of another user, `EINVAL` for a number that is no signal.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        self.child.send_signal(signal)
    }

    /// Interrupts the process as the key combination would, with `SIGINT`. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// As [`send_signal`](Self::send_signal).
    pub fn interrupt(&self) -> io::Result<()> {
        self.send_signal(libc::SIGINT)
    }

    /// Asks the process to end, with `SIGTERM`. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// As [`send_signal`](Self::send_signal).
    pub fn terminate(&self) -> io::Result<()> {
        self.child.terminate()
    }

    /// Ends the process at once, with `SIGKILL`. Does nothing if it has ended.
    ///
    /// What it has started goes on; see [`kill_tree`](Self::kill_tree).
    ///
    /// # Errors
    ///
    /// As [`send_signal`](Self::send_signal).
    pub fn kill(&self) -> io::Result<()> {
        self.child.kill()
    }

    /// Ends the process and everything below it, and returns the ids of those that were killed.
    ///
    /// As [`kill_process_tree`](crate::process::kill_process_tree), except that it is no error if the
    /// process has ended: what it had started is not below it any more then, and nothing is killed.
    ///
    /// # Errors
    ///
    /// [`TreeError::Os`] when a process runs with the rights of another user, or no descriptor was left.
    pub fn kill_tree(&self) -> Result<Vec<u32>, TreeError> {
        if self.child.try_wait().is_some() {
            return Ok(Vec::new());
        }
        kill_tree_behind(self.pid(), self.sentinel())
    }

    /// Takes the end of the pipe that the command reads from; `None` if there is none, or it was taken.
    ///
    /// The command sees the end of its input when it is dropped.
    pub fn stdin(&mut self) -> Option<PipeWriter> {
        let end = self.streams.stdin.take()?;
        make_blocking(&end);
        Some(end)
    }

    /// Takes the end of the pipe that the command writes to; `None` if there is none, or it was taken.
    pub fn stdout(&mut self) -> Option<PipeReader> {
        let end = self.streams.stdout.end.take()?;
        make_blocking(&end);
        Some(end)
    }

    /// Takes the end of the pipe that the command reports errors to; `None` if there is none, or it was
    /// taken.
    pub fn stderr(&mut self) -> Option<PipeReader> {
        let end = self.streams.stderr.end.take()?;
        make_blocking(&end);
        Some(end)
    }

    /// Sends `input` and the end of the stream, and returns what the command writes and how it ended.
    ///
    /// Blocks until it has ended and closed its pipes, but not longer than `timeout`; `None` is no limit.
    /// Streams that are not pipes, or were taken, are left alone.
    ///
    /// # Errors
    ///
    /// - [`CommandError::TimedOut`] with what was written so far. The command goes on. Another call,
    ///   with more input or none, carries on where this one was, and returns all that was written.
    /// - [`CommandError::NoInput`] when there is input and no pipe for it. Nothing was sent.
    /// - [`CommandError::Os`] when the system refuses to read, write or wait.
    pub fn communicate(
        &mut self,
        input: &[u8],
        timeout: Option<Duration>,
    ) -> Result<Output, CommandError> {
        if !input.is_empty() && self.streams.stdin.is_none() {
            return Err(CommandError::NoInput { pid: self.pid(), command: self.command.clone() });
        }
        self.streams.push(input);
        // A deadline too far away to be expressed is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        match self.finish(deadline)? {
            Some(status) => Ok(self.take_output(status)),
            None => {
                let Streams { stdout, stderr, .. } = &self.streams;
                let output = PartialOutput {
                    status: self.try_wait(),
                    stdout: stdout.bytes.clone(),
                    stderr: stderr.bytes.clone(),
                    killed: Vec::new(),
                };
                Err(self.timed_out(timeout.unwrap_or_default(), output))
            }
        }
    }

    /// Serves the pipes to their end and waits for the command; `None` when the deadline passed first.
    pub(super) fn finish(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Option<ExitStatus>, CommandError> {
        match self.streams.transfer(deadline) {
            Ok(true) => Ok(self.wait_until(deadline)),
            Ok(false) => Ok(None),
            Err(source) => {
                Err(CommandError::Os { pid: self.pid(), command: self.command.clone(), source })
            }
        }
    }

    /// What a command wrote that has ended.
    pub(super) fn into_output(mut self, status: ExitStatus) -> Output {
        self.take_output(status)
    }

    fn take_output(&mut self, status: ExitStatus) -> Output {
        Output {
            status,
            stdout: std::mem::take(&mut self.streams.stdout.bytes),
            stderr: std::mem::take(&mut self.streams.stderr.bytes),
            pid: self.pid(),
            command: self.command.clone(),
        }
    }

    /// Kills a command whose time has run out, and says so.
    pub(super) fn give_up(mut self, after: Duration) -> CommandError {
        // A part that belongs to another user goes on; the status tells whether the command does.
        let killed = self.kill_tree().unwrap_or_default();
        self.streams.drain();
        let output = PartialOutput {
            status: self.try_wait(),
            stdout: std::mem::take(&mut self.streams.stdout.bytes),
            stderr: std::mem::take(&mut self.streams.stderr.bytes),
            killed,
        };
        self.timed_out(after, output)
    }

    fn timed_out(&self, after: Duration, output: PartialOutput) -> CommandError {
        let (pid, command) = (self.pid(), self.command.clone());
        CommandError::TimedOut { pid, command, after, output: Box::new(output) }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Option<ExitStatus> {
        loop {
            match self.child.wait(deadline) {
                Ok(status) => return Some(status),
                Err(WaitError::TimedOut) => return None,
                Err(WaitError::Interrupted) => {}
            }
        }
    }
}

/// Undoes what [`RunningCommand::communicate`] did, for ends that somebody else reads or writes.
fn make_blocking(end: &impl AsFd) {
    let result = set_nonblocking(end.as_fd(), false);
    debug_assert!(result.is_ok(), "an open pipe can be made to block: {result:?}");
}

impl fmt::Debug for RunningCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningCommand")
            .field("pid", &self.pid())
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}
