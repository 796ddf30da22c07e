//! What a command wrote and how it ended.

use std::fmt;

use crate::process::command::CommandError;
use crate::process::status::ExitStatus;

/// How much of a failed command's errors goes into the message, in bytes.
const TAIL: usize = 2000;

/// What a command wrote and how it ended.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote, unless that went elsewhere.
    pub stdout: Vec<u8>,
    /// The errors that it reported, unless they went elsewhere.
    pub stderr: Vec<u8>,
    pub(super) pid: u32,
    pub(super) command: String,
}

impl Output {
    /// Returns the id that the process had.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Makes it an error if the command failed.
    ///
    /// # Errors
    ///
    /// [`CommandError::Failed`], with the end of what the command wrote to its standard error, when its
    /// exit code is not 0, a signal ended it, or its status is unknown.
    ///
    /// # Examples
    ///
    /// ```
    /// let output = procession::command("sh").args(["-c", "exit 3"]).run()?;
    /// assert_eq!(output.status.code(), Some(3));
    /// assert!(output.checked().is_err());
    /// # Ok::<(), procession::command::CommandError>(())
    /// ```
    pub fn checked(self) -> Result<Self, CommandError> {
        if self.status.success() {
            return Ok(self);
        }
        let Self { pid, command, status, stderr, .. } = self;
        Err(CommandError::Failed { pid, command, status, stderr: tail_of(&stderr) })
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("pid", &self.pid)
            .field("command", &self.command)
            .field("status", &self.status)
            .field("stdout", &String::from_utf8_lossy(&self.stdout))
            .field("stderr", &String::from_utf8_lossy(&self.stderr))
            .finish()
    }
}

/// What is known of a command whose time ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartialOutput {
    /// How it ended; `None` if it still runs.
    pub status: Option<ExitStatus>,
    /// What it had written.
    pub stdout: Vec<u8>,
    /// The errors that it had reported.
    pub stderr: Vec<u8>,
    /// The processes that were killed, the command first.
    pub killed: Vec<u32>,
}

/// The end of a text, without the white space behind it.
fn tail_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    if text.len() <= TAIL {
        return text.to_owned();
    }
    let start = (text.len() - TAIL..).find(|at| text.is_char_boundary(*at));
    format!("…{}", &text[start.unwrap_or(text.len())..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_is_the_end_of_the_text() {
        assert_eq!(tail_of(b"short\n\n"), "short");
        let long = "é".repeat(5000);
        let tail = tail_of(long.as_bytes());
        assert_eq!(tail.len(), TAIL + '…'.len_utf8());
        assert!(tail.starts_with("…é"), "cut within a character");
        assert_eq!(tail_of(b"\xff"), "\u{fffd}");
    }
}
