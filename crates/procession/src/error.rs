//! Error types used by more than one layer.

use std::fmt;

/// Why a blocking call of the engine gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline passed first.
    TimedOut,
    /// A signal handler ran in this thread. Nothing has changed; call again to go on waiting.
    Interrupted,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "timed out",
            Self::Interrupted => "interrupted by a signal",
        })
    }
}

impl std::error::Error for WaitError {}
