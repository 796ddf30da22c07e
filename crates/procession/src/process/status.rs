//! How a process ended.

use std::fmt;

use crate::sys::process::RawStatus;

/// What is reported for a process whose status somebody else collected, as Python does.
const UNKNOWN_CODE: i32 = 255;

/// How a process ended.
///
/// # Examples
///
/// ```
/// use procession::process::ExitStatus;
///
/// let killed = ExitStatus::Signal { signal: 9, core_dumped: false };
/// assert!(!killed.success());
/// assert_eq!(killed.to_string(), "killed by signal 9 (SIGKILL)");
/// assert_eq!(ExitStatus::Code(3).to_string(), "exit code 3");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExitStatus {
    /// It exited by itself with this code, 0 to 255.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// Number of the signal.
        signal: i32,
        /// Whether the system wrote a core dump.
        core_dumped: bool,
    },
    /// It has ended, but its status is gone: somebody else in this process waited for "any child", or
    /// `SIGCHLD` is ignored, or the process that asks is not the one that started it, or the fork
    /// server that made it was killed first.
    Unknown,
}

impl ExitStatus {
    /// Says whether the process exited by itself with code 0.
    pub fn success(&self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// Returns the exit code, or `None` if the process did not exit by itself.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(*code),
            Self::Signal { .. } | Self::Unknown => None,
        }
    }

    /// Returns the number of the signal that ended the process, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self {
            Self::Signal { signal, .. } => Some(*signal),
            Self::Code(_) | Self::Unknown => None,
        }
    }

    /// Returns the status the way Python's `Process.exitcode` has it: the code, or the negative
    /// number of the signal; 255 when the status is unknown.
    pub fn python_exitcode(&self) -> i32 {
        match self {
            Self::Code(code) => *code,
            Self::Signal { signal, .. } => -signal,
            Self::Unknown => UNKNOWN_CODE,
        }
    }
}

impl From<RawStatus> for ExitStatus {
    fn from(raw: RawStatus) -> Self {
        match raw {
            RawStatus::Exited(code) => Self::Code(code),
            RawStatus::Signaled { signal, core_dumped } => Self::Signal { signal, core_dumped },
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal { signal, core_dumped } => {
                write!(f, "killed by signal {signal}")?;
                if let Some(name) = signal_name(*signal) {
                    write!(f, " ({name})")?;
                }
                if *core_dumped { f.write_str(", core dumped") } else { Ok(()) }
            }
            Self::Unknown => f.write_str("unknown exit status"),
        }
    }
}

/// The name of a signal, for those that have one of their own (real-time signals have not).
fn signal_name(signal: i32) -> Option<&'static str> {
    const NAMES: &[(i32, &str)] = &[
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGSTKFLT, "SIGSTKFLT"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
        (libc::SIGVTALRM, "SIGVTALRM"),
        (libc::SIGPROF, "SIGPROF"),
        (libc::SIGIO, "SIGIO"),
        (libc::SIGPWR, "SIGPWR"),
        (libc::SIGSYS, "SIGSYS"),
    ];
    NAMES.iter().find(|(number, _)| *number == signal).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_exit_codes_are_negative_for_signals_and_255_when_unknown() {
        assert_eq!(ExitStatus::Code(7).python_exitcode(), 7);
        assert_eq!(ExitStatus::Signal { signal: 15, core_dumped: false }.python_exitcode(), -15);
        assert_eq!(ExitStatus::Unknown.python_exitcode(), 255);
    }

    #[test]
    fn text_names_signal_and_core_dump() {
        let aborted = ExitStatus::Signal { signal: libc::SIGABRT, core_dumped: true };
        assert_eq!(aborted.to_string(), "killed by signal 6 (SIGABRT), core dumped");
        let real_time = ExitStatus::Signal { signal: 40, core_dumped: false };
        assert_eq!(real_time.to_string(), "killed by signal 40");
    }

    #[test]
    fn only_code_zero_is_success() {
        assert!(ExitStatus::Code(0).success());
        assert!(!ExitStatus::Code(1).success());
        assert!(!ExitStatus::Unknown.success());
    }
}
