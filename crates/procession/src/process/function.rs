//! Functions that travel to another process as a place in the executable.
//!
//! Two processes that run the same build of the same executable have the same functions, each at
//! the same distance from where the executable was loaded (which differs from process to process).
//! So a function is sent as that distance, with the build id of the executable as a guard: another
//! build would have something else there.
//!
//! Only functions of the executable itself can be sent. A shared library is loaded at a place of its
//! own, and may not be loaded in the other process at all.

use std::error::Error;
use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::sys::image;

/// Length of what is kept of a build id, in bytes.
const BUILD_LEN: usize = 16;

/// Where a function lies in the executable, and in which build of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Location {
    /// Distance from the start of the loaded executable, in bytes.
    offset: u64,
    /// The first bytes of the build id.
    build: [u8; BUILD_LEN],
}

/// Why a function cannot be sent, or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FunctionError {
    /// The address is not in the code of the executable.
    NotInExecutable,
    /// The function was sent by another build of the executable.
    Build,
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotInExecutable => "the function is not part of the executable",
            Self::Build => "the function comes from another build of the executable",
        })
    }
}

impl Error for FunctionError {}

impl Location {
    /// Finds out where the code at `address` lies.
    pub(crate) fn of(address: usize) -> Result<Self, FunctionError> {
        if !image::executable_contains(address) {
            return Err(FunctionError::NotInExecutable);
        }
        let offset = address.wrapping_sub(image::executable_base()) as u64;
        Ok(Self { offset, build: build() })
    }

    /// Returns the address that this is in the calling process: an address in the code of the
    /// executable, and the one that was given to [`of`](Self::of) if this comes from there.
    pub(crate) fn resolve(&self) -> Result<usize, FunctionError> {
        if self.build != build() {
            return Err(FunctionError::Build);
        }
        let offset = usize::try_from(self.offset).map_err(|_| FunctionError::NotInExecutable)?;
        let address = image::executable_base().wrapping_add(offset);
        if !image::executable_contains(address) {
            return Err(FunctionError::NotInExecutable);
        }
        Ok(address)
    }
}

/// Looks up what all later calls need, so that forked copies of this process need not.
pub(crate) fn prepare() {
    build();
}

/// The build of the running executable.
fn build() -> [u8; BUILD_LEN] {
    static BUILD: OnceLock<[u8; BUILD_LEN]> = OnceLock::new();
    *BUILD.get_or_init(|| {
        let mut build = [0; BUILD_LEN];
        for (place, byte) in build.iter_mut().zip(image::build_id()) {
            *place = byte;
        }
        build
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somewhere() -> usize {
        somewhere as fn() -> usize as usize
    }

    #[test]
    fn function_is_found_again() {
        let location = Location::of(somewhere()).unwrap();
        assert_eq!(location.resolve(), Ok(somewhere()));
    }

    #[test]
    fn location_survives_serialization() {
        let location = Location::of(somewhere()).unwrap();
        let bytes = postcard::to_stdvec(&location).unwrap();
        assert_eq!(postcard::from_bytes::<Location>(&bytes).unwrap(), location);
    }

    #[test]
    fn function_of_another_build_is_refused() {
        let mut location = Location::of(somewhere()).unwrap();
        location.build[0] ^= 1;
        assert_eq!(location.resolve(), Err(FunctionError::Build));
    }

    #[test]
    fn address_outside_the_code_is_refused() {
        let heap = Box::new(0_u8);
        let address = std::ptr::from_ref(heap.as_ref()).addr();
        assert_eq!(Location::of(address), Err(FunctionError::NotInExecutable));
        // `getpid` is in a shared library, unless the whole test is linked statically.
        if cfg!(not(target_feature = "crt-static")) {
            let location = Location { offset: u64::MAX / 2, build: build() };
            assert_eq!(location.resolve(), Err(FunctionError::NotInExecutable));
        }
    }
}
