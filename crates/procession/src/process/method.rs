//! The ways to start a process.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// How a process is started.
///
/// # Examples
///
/// ```
/// use procession::process::StartMethod;
///
/// let method: StartMethod = "forkserver".parse()?;
/// assert_eq!(method, StartMethod::ForkServer);
/// assert_eq!(StartMethod::Spawn.to_string(), "spawn");
/// assert!("clone".parse::<StartMethod>().is_err());
/// # Ok::<(), procession::process::UnknownStartMethod>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum StartMethod {
    /// A fresh image of the executable. Works from any thread.
    #[default]
    Spawn,
    /// A copy of this process, which must have no other threads.
    Fork,
    /// A copy of the fork server, a process that is a fresh image of the executable and does nothing
    /// else. Works from any thread, and in a fraction of the time of a fresh image.
    ///
    /// The first use in a process starts the fork server, and so does the next one after it has died.
    /// Its children have the environment that this process had then, and the folder that this
    /// process is in at their own start.
    ForkServer,
}

impl StartMethod {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fork, Self::Spawn, Self::ForkServer];

    fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Spawn => "spawn",
            Self::ForkServer => "forkserver",
        }
    }
}

impl fmt::Display for StartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for StartMethod {
    type Err = UnknownStartMethod;

    /// Reads `fork`, `spawn` or `forkserver`.
    fn from_str(text: &str) -> Result<Self, UnknownStartMethod> {
        let found = Self::ALL.into_iter().find(|method| method.name() == text);
        found.ok_or_else(|| UnknownStartMethod { name: text.to_owned() })
    }
}

/// A text that names no start method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownStartMethod {
    name: String,
}

impl fmt::Display for UnknownStartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no start method is called {:?}; there are", self.name)?;
        for (index, method) in StartMethod::ALL.iter().enumerate() {
            write!(f, "{} {method}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Error for UnknownStartMethod {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_read_by_its_name() {
        for method in StartMethod::ALL {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
    }

    #[test]
    fn unknown_method_is_told_what_there_is() {
        let text = "Fork".parse::<StartMethod>().unwrap_err().to_string();
        assert_eq!(text, r#"no start method is called "Fork"; there are fork, spawn, forkserver"#);
    }
}
