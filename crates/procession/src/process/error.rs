//! Why a process could not be started, could not start, or gave no value.

use std::error::Error;
use std::fmt;
use std::io;

use crate::process::panics::PanicReport;
use crate::process::status::ExitStatus;
use crate::shm::ArenaError;

/// Why a process was not started. Nothing is left of the attempt.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpawnError {
    /// This process has several threads, and only the calling one would live on in a forked child:
    /// locks held by the others would stay locked in it for ever.
    Threads {
        /// Threads of this process.
        count: usize,
    },
    /// [`init`](crate::process::init) was not called in this program, so that a spawned child would
    /// run the whole program once more.
    NotInitialized,
    /// The function lies in a shared library. Only functions of the executable itself have the same
    /// place in a fresh image of it.
    NotInExecutable,
    /// The arguments could not be serialized.
    Encode {
        /// What the serializer reported.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A program name, argument or environment variable holds a zero byte.
    ZeroByte {
        /// The text up to the zero byte.
        text: String,
    },
    /// An environment variable has a name that none can have: it is empty or holds a `=`.
    VariableName {
        /// The name.
        name: String,
    },
    /// The arena has no room for the child or for what it is to be given.
    Arena(ArenaError),
    /// More descriptors are to be sent to the child than one message can carry.
    TooManyDescriptors {
        /// Descriptors that were given.
        count: usize,
        /// Descriptors that can be sent.
        limit: usize,
    },
    /// The fork server belongs to the process that started it, and this is another one.
    ForeignForkServer {
        /// Process id of the one that it belongs to.
        owner: u32,
    },
    /// The fork server could not make the child.
    ForkServer {
        /// Process id of the fork server.
        pid: u32,
        /// What it reported.
        reason: String,
    },
    /// The fork server has ended. Another one can be started.
    ForkServerDied {
        /// Process id that it had.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
    /// The operating system refused.
    Os {
        /// The system call that failed, e.g. `"fork"`.
        call: &'static str,
        /// What it reported.
        source: io::Error,
    },
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads { count } => write!(
                f,
                "cannot fork a process with {count} threads; use the spawn or forkserver start method, or fork before starting threads"
            ),
            Self::NotInitialized => f.write_str("call procession::init() first in main"),
            Self::NotInExecutable => f.write_str(
                "the function is in a shared library; a spawned process can only be given functions of the executable",
            ),
            Self::Encode { .. } => f.write_str("the arguments could not be serialized"),
            Self::ZeroByte { text } => {
                write!(f, "program, argument or environment variable with a zero byte after {text:?}")
            }
            Self::VariableName { name } => {
                write!(f, "no environment variable can be called {name:?}")
            }
            Self::Arena(_) => f.write_str("the arena has no room for a new process"),
            Self::TooManyDescriptors { count, limit } => {
                write!(f, "{count} descriptors are too many for a start; {limit} can be sent")
            }
            Self::ForeignForkServer { owner } => {
                write!(f, "the fork server belongs to process {owner}; start one in this process")
            }
            Self::ForkServer { pid, reason } => {
                write!(f, "the fork server (pid {pid}) could not make the process: {reason}")
            }
            Self::ForkServerDied { pid, status } => write!(
                f,
                "the fork server (pid {pid}) has ended: {status}; its standard error may say why"
            ),
            Self::Os { call, .. } => write!(f, "{call} failed"),
        }
    }
}

impl Error for SpawnError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Encode { source } => Some(source.as_ref()),
            Self::Arena(source) => Some(source),
            Self::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<ArenaError> for SpawnError {
    fn from(error: ArenaError) -> Self {
        Self::Arena(error)
    }
}

/// Why a fresh image could not become the child process it was started as.
#[derive(Debug)]
#[non_exhaustive]
pub enum BootError {
    /// The environment variable that tells an image what it is has no meaning.
    Malformed {
        /// Its value.
        value: String,
    },
    /// What the parent left in the arena for this child is gone or has no meaning.
    Payload,
    /// The child is not the same build of the program as its parent.
    Build,
    /// The process was not started as a fork server.
    NoForkServer,
    /// The parent's arena could not be used.
    Arena(ArenaError),
    /// The operating system refused.
    Os {
        /// The system call that failed, e.g. `"fcntl"`.
        call: &'static str,
        /// What it reported.
        source: io::Error,
    },
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { value } => {
                write!(
                    f,
                    "environment variable {} has no meaning: {value:?}",
                    super::exec::BOOT_VARIABLE
                )
            }
            Self::Payload => {
                f.write_str("what the parent process left for this one is gone or damaged")
            }
            Self::Build => {
                f.write_str("the executable is another build than that of the parent process")
            }
            Self::NoForkServer => f.write_str("the process was not started as a fork server"),
            Self::Arena(_) => f.write_str("the parent's arena cannot be used"),
            Self::Os { call, .. } => write!(f, "{call} failed"),
        }
    }
}

impl Error for BootError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Arena(source) => Some(source),
            Self::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why a process gave no value.
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// The function panicked.
    Panicked {
        /// Name of the process.
        name: String,
        /// Its process id.
        pid: u32,
        /// The panic's message.
        message: String,
        /// Where it panicked, `file:line:column`, if that is known.
        location: Option<String>,
    },
    /// The process ended before the function returned: it was killed, it aborted, or it called `exit`.
    Died {
        /// Name of the process.
        name: String,
        /// Its process id.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
    /// The process ended before the function was called.
    NeverStarted {
        /// Name of the process.
        name: String,
        /// Its process id.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
        /// What the process said about it, if it could.
        reason: Option<String>,
    },
    /// The function returned, but its value could not be sent: it did not serialize, or the arena had
    /// no room for it.
    Unsendable {
        /// Name of the process.
        name: String,
        /// Its process id.
        pid: u32,
        /// What the process said about it.
        reason: String,
    },
    /// The value that came back could not be deserialized.
    Decode {
        /// Name of the process.
        name: String,
        /// Its process id.
        pid: u32,
        /// What the deserializer reported.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl JoinError {
    /// Returns the id of the process.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Panicked { pid, .. }
            | Self::Died { pid, .. }
            | Self::NeverStarted { pid, .. }
            | Self::Unsendable { pid, .. }
            | Self::Decode { pid, .. } => *pid,
        }
    }

    /// Returns the name of the process.
    pub fn name(&self) -> &str {
        match self {
            Self::Panicked { name, .. }
            | Self::Died { name, .. }
            | Self::NeverStarted { name, .. }
            | Self::Unsendable { name, .. }
            | Self::Decode { name, .. } => name,
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name(), self.pid())?;
        match self {
            Self::Panicked { message, location, .. } => {
                let report = PanicReport { message: message.clone(), location: location.clone() };
                write!(f, " {report}")
            }
            Self::Died { status, .. } => write!(f, " ended before its function returned: {status}"),
            Self::NeverStarted { status, reason: Some(reason), .. } => {
                write!(f, " ended before it started: {status}: {reason}")
            }
            Self::NeverStarted { status, reason: None, .. } => write!(
                f,
                " ended before it started: {status}; its standard error may say why, and its main must call procession::init() first"
            ),
            Self::Unsendable { reason, .. } => write!(f, " could not send its result: {reason}"),
            Self::Decode { .. } => f.write_str(" returned a value that could not be deserialized"),
        }
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Decode { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}
