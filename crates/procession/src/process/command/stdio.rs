//! The three streams of a command: what they are connected to.

use std::fmt;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{self, Command};

use crate::process::command::streams::Streams;
use crate::sys::command::file_of;

/// What a stream of a command is connected to.
///
/// # Examples
///
/// ```
/// use std::fs::File;
///
/// let file = File::open("/proc/self/comm")?;
/// let output = procession::command("cat").stdin(file).check()?;
/// assert!(!output.stdout.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Stdio {
    /// The same as that of this process.
    Inherit,
    /// Nothing: reads give the end of the stream, and what is written is lost.
    Null,
    /// A pipe to this process.
    Piped,
    /// This descriptor: a file, an end of a pipe, a socket.
    Fd(OwnedFd),
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Self::Fd(fd)
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        Self::Fd(file.into())
    }
}

impl From<PipeReader> for Stdio {
    fn from(reader: PipeReader) -> Self {
        Self::Fd(reader.into())
    }
}

impl From<PipeWriter> for Stdio {
    fn from(writer: PipeWriter) -> Self {
        Self::Fd(writer.into())
    }
}

/// What a command reads.
#[derive(Default)]
pub(super) enum Input {
    /// Nobody has said.
    #[default]
    Default,
    /// What comes from there.
    From(Stdio),
    /// These bytes.
    Bytes(Vec<u8>),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("Default"),
            Self::From(stdio) => stdio.fmt(f),
            // It may be long, and it may hold secrets.
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
        }
    }
}

/// What becomes of streams that nobody has said anything about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defaults {
    /// They are those of this process.
    Inherited,
    /// Nothing is read, and what is written is captured.
    Captured,
}

impl Defaults {
    fn input(self) -> Stdio {
        match self {
            Self::Inherited => Stdio::Inherit,
            Self::Captured => Stdio::Null,
        }
    }

    fn output(self) -> Stdio {
        match self {
            Self::Inherited => Stdio::Inherit,
            Self::Captured => Stdio::Piped,
        }
    }
}

/// The streams as they were asked for.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) input: Input,
    pub(super) stdout: Option<Stdio>,
    pub(super) stderr: Option<Stdio>,
    /// Whether errors go to where the output goes.
    pub(super) merge: bool,
}

/// An error and the system call that it came from.
type Failure = (&'static str, io::Error);

impl Plan {
    /// Connects the streams of `command`, and returns this process's ends of its pipes.
    pub(super) fn connect(
        self,
        command: &mut Command,
        defaults: Defaults,
    ) -> Result<Streams, Failure> {
        let stdin = match self.input {
            Input::Default => defaults.input(),
            Input::From(stdio) => stdio,
            Input::Bytes(bytes) => {
                Stdio::Fd(file_of(&bytes).map_err(|error| ("memfd_create", error))?)
            }
        };
        let (stdin, our_stdin) = input_end(stdin)?;
        command.stdin(stdin);
        let (stdout, our_stdout) = output_end(self.stdout.unwrap_or_else(|| defaults.output()))?;
        let (stderr, our_stderr) = if self.merge {
            (stdout.copy().map_err(|error| ("fcntl", error))?, None)
        } else {
            output_end(self.stderr.unwrap_or_else(|| defaults.output()))?
        };
        command.stdout(stdout).stderr(stderr);
        Ok(Streams::new(our_stdin, our_stdout, our_stderr))
    }
}

/// The command's end of a stream that it writes.
enum End {
    Inherit,
    Null,
    Fd(OwnedFd),
}

impl End {
    /// Another one for the same thing.
    ///
    /// `Inherit` does not stay what it is: it is the standard output, and the copy is for errors.
    fn copy(&self) -> io::Result<Self> {
        match self {
            Self::Inherit => Ok(Self::Fd(io::stdout().as_fd().try_clone_to_owned()?)),
            Self::Null => Ok(Self::Null),
            Self::Fd(fd) => Ok(Self::Fd(fd.try_clone()?)),
        }
    }
}

impl From<End> for process::Stdio {
    fn from(end: End) -> Self {
        match end {
            End::Inherit => Self::inherit(),
            End::Null => Self::null(),
            End::Fd(fd) => Self::from(fd),
        }
    }
}

fn input_end(stdio: Stdio) -> Result<(End, Option<PipeWriter>), Failure> {
    end_of(stdio, |reader, writer| (reader.into(), writer))
}

fn output_end(stdio: Stdio) -> Result<(End, Option<PipeReader>), Failure> {
    end_of(stdio, |reader, writer| (writer.into(), reader))
}

/// The command's end, and ours if it is a pipe, whose ends `split` tells from one another.
fn end_of<P>(
    stdio: Stdio,
    split: impl FnOnce(PipeReader, PipeWriter) -> (OwnedFd, P),
) -> Result<(End, Option<P>), Failure> {
    Ok(match stdio {
        Stdio::Inherit => (End::Inherit, None),
        Stdio::Null => (End::Null, None),
        Stdio::Fd(fd) => (End::Fd(fd), None),
        Stdio::Piped => {
            let (reader, writer) = pipe()?;
            let (theirs, ours) = split(reader, writer);
            (End::Fd(theirs), Some(ours))
        }
    })
}

fn pipe() -> Result<(PipeReader, PipeWriter), Failure> {
    io::pipe().map_err(|error| ("pipe2", error))
}
