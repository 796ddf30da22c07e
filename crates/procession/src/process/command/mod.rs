//! External programs, as processes like any others.
//!
//! [`command()`] names a program; [`run`](Command::run) runs it and returns what it printed,
//! [`call`](Command::call) lets it use the streams of this process, [`start`](Command::start) returns
//! while it runs.
//!
//! ```
//! let output = procession::command("cat").input("hello").check()?;
//! assert_eq!(output.stdout, b"hello");
//! # Ok::<(), procession::command::CommandError>(())
//! ```
//!
//! What can be relied on:
//!
//! - Output and input of any size do not block each other, and no thread is used for them.
//! - A command that takes longer than its [`timeout`](Command::timeout) is killed together with all
//!   that it has started.
//! - No command stays a zombie: it is collected like every child of this process, by whoever waits for
//!   it or else when the next process is started.
//! - Every error after the start says which process it was about.

mod daemon;
mod error;
mod output;
mod running;
mod stdio;
mod streams;

use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

pub use self::error::CommandError;
pub use self::output::{Output, PartialOutput};
pub use self::running::RunningCommand;
pub use self::stdio::Stdio;

use crate::process::child::Child;
use crate::process::error::SpawnError;
use crate::process::exec::BOOT_VARIABLE;
use crate::process::registry;
use crate::process::seat::Seat;
use crate::process::status::ExitStatus;
use crate::sys::command::can_enter;

use self::stdio::{Defaults, Input, Plan};

/// Longest text by which a command is called in messages, in bytes.
const LONGEST_TEXT: usize = 200;

/// Names a program to be run: a path, or a name that is looked for in `PATH`.
///
/// # Examples
///
/// ```
/// let output = procession::command("sh").args(["-c", "echo hello"]).run()?;
/// assert!(output.status.success());
/// assert_eq!(output.stdout, b"hello\n");
/// # Ok::<(), procession::command::CommandError>(())
/// ```
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A program that is about to be run: its arguments, environment and streams.
///
/// Nothing of it goes through a shell.
#[must_use = "a command does nothing until it is run, called or started"]
pub struct Command {
    inner: std::process::Command,
    plan: Plan,
    timeout: Option<Duration>,
    daemon: bool,
}

impl Command {
    /// Names a program, as [`command()`].
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut inner = std::process::Command::new(program);
        // It speaks of this process, and would mislead a program that uses this crate.
        inner.env_remove(BOOT_VARIABLE);
        Self { inner, plan: Plan::default(), timeout: None, daemon: false }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.inner.args(args);
        self
    }

    /// Sets one environment variable. The others are those of this process.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(key, value);
        self
    }

    /// Takes one environment variable away.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.inner.env_remove(key);
        self
    }

    /// Takes all environment variables away, those that were set before this call included.
    pub fn env_clear(mut self) -> Self {
        self.inner.env_clear();
        self
    }

    /// Sets the folder that the program starts in. A relative path of the program starts there too.
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.inner.current_dir(folder);
        self
    }

    /// Sets where the program reads from: by default nothing with [`run`](Self::run), and what this
    /// process reads from with [`call`](Self::call) and [`start`](Self::start).
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.plan.input = Input::From(stdin.into());
        self
    }

    /// Gives the program these bytes to read, and then the end of the stream.
    ///
    /// They lie in a file in memory, so the program need not read them for anybody to go on. Takes the
    /// place of [`stdin`](Self::stdin).
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.plan.input = Input::Bytes(bytes.into());
        self
    }

    /// Sets where the program writes to: by default into the [`Output`] with [`run`](Self::run), and to
    /// what this process writes to with [`call`](Self::call) and [`start`](Self::start).
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.plan.stdout = Some(stdout.into());
        self
    }

    /// Sets where the program reports errors to; the default is as for [`stdout`](Self::stdout).
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.plan.stderr = Some(stderr.into());
        self.plan.merge = false;
        self
    }

    /// Lets the program report errors to where it writes to, in the order in which it writes.
    pub fn merge_stderr(mut self) -> Self {
        self.plan.stderr = None;
        self.plan.merge = true;
        self
    }

    /// Sets how long the command may take. Then it is killed, with all that it has started.
    ///
    /// For [`run`](Self::run), [`check`](Self::check) and [`call`](Self::call), which return
    /// [`CommandError::TimedOut`] then. Without it they wait for ever. A command that was
    /// [started](Self::start) is waited for by methods with a timeout of their own.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Says whether the program is to be killed when this process ends, however that ends.
    ///
    /// What the program has started is not killed with it. Three limits are the system's: the program
    /// is killed also when the *thread* that starts it ends, so start it in one that lives on; it can
    /// take the wish back; and the wish is lost in a program that runs with the rights of another user.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Runs the command and returns what it wrote and how it ended.
    ///
    /// Blocks until it has ended and its output has: a process that it started in the background and
    /// that has its output open is waited for as well. An exit code other than 0 is no error here; see
    /// [`check`](Self::check). Signals that this process handles meanwhile do not end the waiting.
    ///
    /// # Errors
    ///
    /// - [`CommandError::NotFound`], [`CommandError::PermissionDenied`], [`CommandError::Directory`] and
    ///   [`CommandError::Start`] when it could not be started.
    /// - [`CommandError::TimedOut`] when it took longer than its [`timeout`](Self::timeout). It has been
    ///   killed, with all that was below it.
    /// - [`CommandError::Os`] when the system refused to wait. It has been killed too.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use procession::command::CommandError;
    ///
    /// let error = procession::command("sh")
    ///     .args(["-c", "echo started; sleep 1000"])
    ///     .timeout(Duration::from_millis(200))
    ///     .run()
    ///     .unwrap_err();
    /// let CommandError::TimedOut { output, .. } = error else { panic!("{error}") };
    /// assert_eq!(output.status.and_then(|status| status.signal()), Some(9));
    /// ```
    pub fn run(self) -> Result<Output, CommandError> {
        self.run_with(Defaults::Captured)
    }

    /// Runs the command like [`run`](Self::run), and makes it an error if it fails.
    ///
    /// # Errors
    ///
    /// [`CommandError::Failed`] when its exit code is not 0 or a signal ended it; and as
    /// [`run`](Self::run).
    ///
    /// # Examples
    ///
    /// ```
    /// let error = procession::command("sh").args(["-c", "echo no >&2; exit 3"]).check().unwrap_err();
    /// assert!(error.to_string().contains("exit code 3: no"), "{error}");
    /// ```
    pub fn check(self) -> Result<Output, CommandError> {
        self.run()?.checked()
    }

    /// Runs the command on the streams of this process, and returns how it ended.
    ///
    /// Blocks until it has ended. What it writes into pipes, if any were asked for, is read and lost.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    ///
    /// # Examples
    ///
    /// ```
    /// let status = procession::command("sh").args(["-c", "exit 3"]).call()?;
    /// assert_eq!(status.code(), Some(3));
    /// # Ok::<(), procession::command::CommandError>(())
    /// ```
    pub fn call(self) -> Result<ExitStatus, CommandError> {
        Ok(self.run_with(Defaults::Inherited)?.status)
    }

    /// Starts the command and returns at once.
    ///
    /// # Errors
    ///
    /// [`CommandError::NotFound`], [`CommandError::PermissionDenied`], [`CommandError::Directory`] and
    /// [`CommandError::Start`]. Nothing is left of the attempt.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::command::Stdio;
    ///
    /// let mut cat = procession::command("cat").stdin(Stdio::Piped).stdout(Stdio::Piped).start()?;
    /// let output = cat.communicate(b"hello", None)?;
    /// assert_eq!(output.stdout, b"hello");
    /// # Ok::<(), procession::command::CommandError>(())
    /// ```
    pub fn start(self) -> Result<RunningCommand, CommandError> {
        self.launch(Defaults::Inherited)
    }

    fn run_with(self, defaults: Defaults) -> Result<Output, CommandError> {
        let timeout = self.timeout;
        // A deadline too far away to be expressed is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut running = self.launch(defaults)?;
        match running.finish(deadline) {
            Ok(Some(status)) => Ok(running.into_output(status)),
            Ok(None) => Err(running.give_up(timeout.unwrap_or_default())),
            Err(error) => {
                // The first error is the one to tell.
                let _ = running.kill_tree();
                Err(error)
            }
        }
    }

    fn launch(mut self, defaults: Defaults) -> Result<RunningCommand, CommandError> {
        registry::collect_ended();
        let (program, text) = (self.program(), self.text());
        let start = |source| CommandError::Start { program: program.clone(), source };
        let streams = std::mem::take(&mut self.plan)
            .connect(&mut self.inner, defaults)
            .map_err(|(call, source)| start(SpawnError::Os { call, source }))?;
        if self.daemon {
            daemon::die_with_this_process(&mut self.inner);
        }
        let seat = Seat::reserve().map_err(start)?;
        let pid = match self.inner.spawn().map(|child| child.id()) {
            Ok(pid) => pid,
            Err(error) => return Err(self.refusal(error)),
        };
        // With it go the ends of the pipes that are the program's.
        drop(self.inner);
        let child: Child = seat.taken_by(pid).map_err(start)?;
        tracing::debug!(pid, command = text, "command started");
        Ok(RunningCommand::new(child, text, streams))
    }

    /// Says why the program was not started. The system has one number for several reasons.
    fn refusal(&self, error: io::Error) -> CommandError {
        let program = self.program();
        let folder = self.inner.get_current_dir();
        if let Some(folder) = folder
            && let Err(source) = can_enter(folder)
        {
            return CommandError::Directory { path: folder.to_owned(), source };
        }
        let path = Path::new(self.inner.get_program());
        // Only a path with a slash in it is not looked for in other folders.
        let is_path = path.parent().is_some_and(|parent| parent != Path::new(""));
        let from = folder.unwrap_or(Path::new(""));
        match error.kind() {
            // The file is there, so it is what the file names that is missing.
            io::ErrorKind::NotFound if !(is_path && from.join(path).exists()) => {
                CommandError::NotFound { program }
            }
            io::ErrorKind::PermissionDenied => CommandError::PermissionDenied { program },
            _ => {
                let source = SpawnError::Os { call: "execve", source: error };
                CommandError::Start { program, source }
            }
        }
    }

    fn program(&self) -> String {
        self.inner.get_program().to_string_lossy().into_owned()
    }

    /// The command line, for people: quoted where it must be, and not too long.
    fn text(&self) -> String {
        let mut text = String::new();
        for word in [self.inner.get_program()].into_iter().chain(self.inner.get_args()) {
            if !text.is_empty() {
                text.push(' ');
            }
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
            // Writing to a `String` does not fail.
            let _ = match !word.is_empty() && word.chars().all(plain) {
                true => write!(text, "{word}"),
                false => write!(text, "{word:?}"),
            };
            if text.len() > LONGEST_TEXT {
                let cut = (0..=LONGEST_TEXT).rev().find(|at| text.is_char_boundary(*at));
                text.truncate(cut.unwrap_or(0));
                text.push('…');
                break;
            }
        }
        text
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment may hold secrets.
        f.debug_struct("Command")
            .field("command", &self.text())
            .field("current_dir", &self.inner.get_current_dir())
            .field("plan", &self.plan)
            .field("timeout", &self.timeout)
            .field("daemon", &self.daemon)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_and_not_too_long() {
        let text = command("sh").args(["-c", "echo 'a b'", ""]).text();
        assert_eq!(text, r#"sh -c "echo 'a b'" """#);
        let long = command("echo").arg("é".repeat(500)).text();
        assert!(long.len() <= LONGEST_TEXT + '…'.len_utf8() && long.ends_with("é…"), "{long}");
    }

    #[test]
    fn debug_output_tells_no_environment() {
        let text = format!("{:?}", command("sh").env("TOKEN", "secret").input("hidden"));
        assert!(!text.contains("secret") && !text.contains("hidden"), "{text}");
    }
}
