//! What a process finds around it: environment, folder, standard input, output and error.
//!
//! | | fork | spawn | forkserver |
//! |---|---|---|---|
//! | environment | set in the child | given to the image | set in the child |
//! | folder | changed in the child | changed in the child | changed in the child |
//! | standard descriptors | copied in the child | given to the image | sent, copied in the child |
//!
//! All of it happens before the function is called. What fails in the child is the reason why that
//! was not called.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::process::error::SpawnError;
use crate::process::exec::Exec;
use crate::sys::fd;

/// What a process gets as its standard input, output or error.
///
/// Made by [`inherit`](Self::inherit) and [`null`](Self::null), and from anything that owns a
/// descriptor: a file, an end of a pipe, a socket.
///
/// # Examples
///
/// ```
/// use std::io::Read;
/// use procession::process::{Builder, Stdio};
///
/// fn greet(name: String) {
///     println!("hello {name}");
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procession::process::init();
///     let (mut reader, writer) = std::io::pipe()?;
///     let builder = Builder::new().stdout(writer).stderr(Stdio::null());
///     let handle = builder.spawn(greet, "world".to_owned())?;
///     let mut text = String::new();
///     reader.read_to_string(&mut text)?;
///     assert_eq!(text, "hello world\n");
///     handle.join()?;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Stdio(Source);

#[derive(Debug, Clone, Default)]
enum Source {
    #[default]
    Inherit,
    Null,
    /// Shared by the copies of a builder.
    Descriptor(Arc<OwnedFd>),
}

impl Stdio {
    /// What this process has; for the child of a fork server, what that has.
    pub fn inherit() -> Self {
        Self(Source::Inherit)
    }

    /// Nothing to read, and what is written is lost.
    pub fn null() -> Self {
        Self(Source::Null)
    }

    /// The descriptor to put into the place; `None` to leave it as it is.
    fn descriptor(&self) -> io::Result<Option<Arc<OwnedFd>>> {
        let descriptor = match &self.0 {
            Source::Inherit => return Ok(None),
            Source::Null => Arc::new(fd::open_null()?),
            Source::Descriptor(descriptor) => descriptor.clone(),
        };
        if descriptor.as_raw_fd() > libc::STDERR_FILENO {
            return Ok(Some(descriptor));
        }
        // In one of the three places it would be overwritten before its turn.
        Ok(Some(Arc::new(fd::copy_above_standard(descriptor.as_fd())?)))
    }
}

impl From<OwnedFd> for Stdio {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Source::Descriptor(Arc::new(descriptor)))
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        OwnedFd::from(file).into()
    }
}

impl From<PipeReader> for Stdio {
    fn from(reader: PipeReader) -> Self {
        OwnedFd::from(reader).into()
    }
}

impl From<PipeWriter> for Stdio {
    fn from(writer: PipeWriter) -> Self {
        OwnedFd::from(writer).into()
    }
}

impl From<UnixStream> for Stdio {
    fn from(stream: UnixStream) -> Self {
        OwnedFd::from(stream).into()
    }
}

/// A change of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Clear,
    Set(OsString, OsString),
    Remove(OsString),
}

/// What is asked for in a builder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    pub(crate) env: Vec<Change>,
    pub(crate) folder: Option<OsString>,
    /// Input, output, error.
    pub(crate) streams: [Stdio; 3],
}

/// Descriptors, each with the place that it is for.
pub(crate) type Placed = Vec<(Arc<OwnedFd>, RawFd)>;

/// What is left to the child to do.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct InChild {
    env: Vec<Change>,
    folder: Option<OsString>,
    /// The places that the descriptors sent along are for, in their order.
    places: Vec<RawFd>,
}

impl Setup {
    /// Looks whether all that can be known here is in order, and gets hold of the descriptors.
    pub(crate) fn check(&self) -> Result<Placed, SpawnError> {
        for change in &self.env {
            match change {
                Change::Clear => {}
                Change::Set(name, value) => {
                    check_name(name)?;
                    check_text(value)?;
                }
                Change::Remove(name) => check_name(name)?,
            }
        }
        if let Some(folder) = &self.folder {
            check_text(folder)?;
        }
        let mut placed = Vec::new();
        for (stream, place) in self.streams.iter().zip(0..) {
            let descriptor = stream.descriptor();
            let descriptor =
                descriptor.map_err(|source| SpawnError::Os { call: "open or fcntl", source })?;
            placed.extend(descriptor.map(|descriptor| (descriptor, place)));
        }
        Ok(placed)
    }

    /// Gives a fresh image what it can be given.
    pub(crate) fn give_to(&self, exec: Exec, placed: Placed) -> Exec {
        let exec = self.env.iter().fold(exec, |exec, change| match change {
            Change::Clear => exec.envs::<OsString, OsString>([]),
            Change::Set(name, value) => exec.env(name, value),
            Change::Remove(name) => exec.env_remove(name),
        });
        placed.into_iter().fold(exec, |exec, (descriptor, place)| exec.place(descriptor, place))
    }

    /// What is left to a fresh image that was given the rest.
    pub(crate) fn for_image(&self) -> InChild {
        InChild { folder: self.folder.clone(), ..InChild::default() }
    }

    /// What is left to a forked child.
    pub(crate) fn for_fork(&self, placed: &Placed) -> InChild {
        let places = placed.iter().map(|(_, place)| *place).collect();
        InChild { env: self.env.clone(), folder: self.folder.clone(), places }
    }

    /// What is left to the child of a fork server, which is in another folder, maybe.
    pub(crate) fn for_fork_server(&self, placed: &Placed) -> InChild {
        let mut left = self.for_fork(placed);
        // If the folder has been removed there is none to go to.
        left.folder = left.folder.or_else(|| env::current_dir().ok().map(Into::into));
        left
    }
}

impl InChild {
    /// Does what is left. The error is the reason why the function cannot be called.
    ///
    /// # Safety
    ///
    /// No other thread may run if the environment is to be changed.
    pub(crate) unsafe fn apply<'a>(
        &self,
        descriptors: impl IntoIterator<Item = BorrowedFd<'a>>,
    ) -> Result<(), String> {
        for (descriptor, place) in descriptors.into_iter().zip(&self.places) {
            fd::copy_onto_standard(descriptor, *place)
                .map_err(|error| format!("cannot replace standard descriptor {place}: {error}"))?;
        }
        for change in &self.env {
            // SAFETY: no other thread runs, as the caller promises.
            unsafe { change.apply() };
        }
        match &self.folder {
            Some(folder) => env::set_current_dir(folder)
                .map_err(|error| format!("cannot change to the folder {folder:?}: {error}")),
            None => Ok(()),
        }
    }
}

impl Change {
    /// # Safety
    ///
    /// No other thread may run.
    unsafe fn apply(&self) {
        match self {
            Self::Clear => {
                for (name, _) in env::vars_os() {
                    // SAFETY: promised by the caller.
                    unsafe { env::remove_var(name) };
                }
            }
            // SAFETY: promised by the caller.
            Self::Set(name, value) => unsafe { env::set_var(name, value) },
            // SAFETY: promised by the caller.
            Self::Remove(name) => unsafe { env::remove_var(name) },
        }
    }
}

fn check_name(name: &OsStr) -> Result<(), SpawnError> {
    check_text(name)?;
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return Err(SpawnError::VariableName { name: name.to_string_lossy().into_owned() });
    }
    Ok(())
}

fn check_text(text: &OsStr) -> Result<(), SpawnError> {
    match text.as_bytes().iter().position(|byte| *byte == 0) {
        Some(end) => {
            let text = String::from_utf8_lossy(&text.as_bytes()[..end]).into_owned();
            Err(SpawnError::ZeroByte { text })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_variable_can_have_are_refused() {
        for name in ["", "A=B", "="] {
            let error = check_name(name.as_ref()).unwrap_err();
            assert!(matches!(error, SpawnError::VariableName { .. }), "{name:?}: {error}");
        }
        assert!(matches!(check_name("A\0".as_ref()), Err(SpawnError::ZeroByte { .. })));
        check_name("PATH".as_ref()).unwrap();
    }

    #[test]
    fn only_what_is_replaced_has_a_descriptor() {
        let streams = [Stdio::inherit(), Stdio::null(), Stdio::from(fd::open_null().unwrap())];
        let placed = Setup { streams, ..Setup::default() }.check().unwrap();
        let places: Vec<_> = placed.iter().map(|(_, place)| *place).collect();
        assert_eq!(places, [1, 2]);
        assert!(placed.iter().all(|(descriptor, _)| descriptor.as_raw_fd() > 2));
    }
}
