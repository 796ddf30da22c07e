//! Why a command could not be run, or did not do what it should.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::process::command::PartialOutput;
use crate::process::error::SpawnError;
use crate::process::status::ExitStatus;

/// Why a command could not be run, or did not do what it should.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no such program.
    NotFound {
        /// The program as it was named.
        program: String,
    },
    /// The program, or a folder on the way to it, may not be used by this user, or it is no program.
    PermissionDenied {
        /// The program as it was named.
        program: String,
    },
    /// The working directory cannot be entered: it does not exist, is no folder, or is not for this
    /// user.
    Directory {
        /// The folder.
        path: PathBuf,
        /// What the system says about it.
        source: io::Error,
    },
    /// The command could not be started for another reason. Nothing is left of the attempt.
    Start {
        /// The program as it was named.
        program: String,
        /// The reason.
        source: SpawnError,
    },
    /// It ended, and not with exit code 0.
    Failed {
        /// The id that the process had.
        pid: u32,
        /// The command line, shortened.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to its standard error, unless that went elsewhere.
        stderr: String,
    },
    /// Its time ran out.
    TimedOut {
        /// The id of the process.
        pid: u32,
        /// The command line, shortened.
        command: String,
        /// The time that it had.
        after: Duration,
        /// What it had written by then, and what became of it.
        output: Box<PartialOutput>,
    },
    /// There is input for it, but its standard input is no pipe to this process, or is closed.
    NoInput {
        /// The id of the process.
        pid: u32,
        /// The command line, shortened.
        command: String,
    },
    /// The operating system refused to read from it, to write to it or to wait for it.
    Os {
        /// The id of the process.
        pid: u32,
        /// The command line, shortened.
        command: String,
        /// What it reported.
        source: io::Error,
    },
}

impl CommandError {
    /// Returns the id of the process; `None` if it was not started.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Failed { pid, .. }
            | Self::TimedOut { pid, .. }
            | Self::NoInput { pid, .. }
            | Self::Os { pid, .. } => Some(*pid),
            _ => None,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { program } if program.contains('/') => {
                write!(f, "there is no program {program:?}")
            }
            Self::NotFound { program } => {
                write!(f, "no program {program:?} in any folder of PATH")
            }
            Self::PermissionDenied { program } => {
                write!(f, "permission denied to run {program:?}; is it an executable file?")
            }
            Self::Directory { path, .. } => {
                write!(f, "cannot start a command in the folder {}", path.display())
            }
            Self::Start { program, source } => {
                write!(f, "cannot start {program:?}{}", advice(source))
            }
            Self::Failed { pid, command, status, stderr } => {
                write!(f, "command {command} (process {pid}) failed, {status}")?;
                if stderr.is_empty() { Ok(()) } else { write!(f, ": {stderr}") }
            }
            Self::TimedOut { pid, command, after, output } => {
                write!(f, "command {command} (process {pid}) timed out after {after:?}; ")?;
                write_fate(f, output)
            }
            Self::NoInput { pid, command } => write!(
                f,
                "command {command} (process {pid}) takes no input: its standard input is no pipe, or is closed"
            ),
            Self::Os { pid, command, .. } => {
                write!(f, "lost touch with command {command} (process {pid})")
            }
        }
    }
}

/// What can be done about a failed start, where the system's words do not say it.
fn advice(source: &SpawnError) -> &'static str {
    let SpawnError::Os { source, .. } = source else { return "" };
    match source.raw_os_error() {
        Some(libc::ENOENT) => ": the file exists, but not the interpreter or loader that it names",
        Some(libc::EMFILE) => {
            ": this process has too many open files; close some or raise its limit"
        }
        Some(libc::E2BIG) => {
            ": its arguments and environment are too long; use a file or its input"
        }
        _ => "",
    }
}

fn write_fate(f: &mut fmt::Formatter<'_>, output: &PartialOutput) -> fmt::Result {
    match (output.killed.len(), output.status) {
        (0, None) => f.write_str("it is still running"),
        (0, Some(status)) => {
            write!(f, "it has ended ({status}), but a process that it started has its output open")
        }
        (1, _) => f.write_str("it was killed"),
        (count, _) => write!(f, "it was killed, and {} more below it", count - 1),
    }
}

impl Error for CommandError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Directory { source, .. } | Self::Os { source, .. } => Some(source),
            Self::Start { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_timeout_says_what_became_of_the_command() {
        let text = |killed: &[u32], status| {
            let killed = killed.to_vec();
            let output = PartialOutput { status, stdout: vec![], stderr: vec![], killed };
            let (command, after) = ("sleep 9".to_owned(), Duration::from_secs(1));
            CommandError::TimedOut { pid: 7, command, after, output: output.into() }.to_string()
        };
        let begin = "command sleep 9 (process 7) timed out after 1s; ";
        assert_eq!(text(&[], None), format!("{begin}it is still running"));
        assert_eq!(text(&[7], None), format!("{begin}it was killed"));
        assert_eq!(text(&[7, 8], None), format!("{begin}it was killed, and 1 more below it"));
        assert!(text(&[], Some(ExitStatus::Code(0))).contains("has ended (exit code 0), but"));
    }
}
