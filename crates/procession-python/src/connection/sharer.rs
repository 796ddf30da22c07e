//! `multiprocessing.resource_sharer`: descriptors for processes that ask for them later.
//!
//! A request is the pickle of a pair of numbers: what is asked for, and the process that asks. It is
//! read without Python, since the thread that reads it must not wait for the interpreter, nor
//! outlive it.

use std::os::fd::{IntoRawFd, RawFd};
use std::time::Duration;

use procession::channel::connection::{self, Redeem, adopt_number};
use procession::shm;
use pyo3::prelude::*;

use crate::connection::listener::{to_address, to_python};
use crate::error::EngineResult;
use crate::wait::blocking;

/// Keep a descriptor, which is given away, until it is fetched; return where and by which number.
#[pyfunction]
pub(crate) fn share<'py>(
    py: Python<'py>,
    descriptor: RawFd,
    authkey: &[u8],
) -> EngineResult<(Bound<'py, PyAny>, u64)> {
    let descriptor = adopt_number(descriptor)?;
    let (address, number) = py.detach(|| connection::share(descriptor, authkey, number_in))?;
    Ok((to_python(py, &address)?, number))
}

/// Fetch a descriptor from the process that keeps it; the request says which one.
#[pyfunction]
pub(crate) fn redeem(
    address: &Bound<'_, PyAny>,
    authkey: &[u8],
    request: &[u8],
    timeout: f64,
) -> EngineResult<RawFd> {
    let py = address.py();
    let timeout = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX);
    let mut redeem = Redeem::start(&to_address(address)?, authkey, request, timeout)?;
    Ok(blocking(py, || redeem.finish())??.into_raw_fd())
}

/// Close what is kept and end the thread that waits for requests; say whether it has ended.
#[pyfunction]
#[pyo3(signature = (timeout=None))]
pub(crate) fn stop_sharing(py: Python<'_>, timeout: Option<f64>) -> bool {
    let timeout = timeout.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
    py.detach(|| connection::stop_sharing(timeout))
}

/// Say whether what is being pickled on this thread is for a process of the tree.
#[pyfunction]
pub(crate) fn is_packing() -> bool {
    shm::is_packing()
}

/// Instructions of a pickle.
mod op {
    pub(super) const PROTO: u8 = 0x80;
    pub(super) const FRAME: u8 = 0x95;
    pub(super) const BININT1: u8 = b'K';
    pub(super) const BININT2: u8 = b'M';
    pub(super) const BININT: u8 = b'J';
    pub(super) const LONG1: u8 = 0x8a;
    pub(super) const TUPLE2: u8 = 0x86;
    pub(super) const MEMOIZE: u8 = 0x94;
    pub(super) const BINPUT: u8 = b'q';
    pub(super) const STOP: u8 = b'.';
}

/// The first number of a pickled pair of numbers, of any protocol from 2 on.
fn number_in(request: &[u8]) -> Option<u64> {
    let mut left = request.strip_prefix(&[op::PROTO])?.get(1..)?;
    if let Some(framed) = left.strip_prefix(&[op::FRAME]) {
        left = framed.get(8..)?;
    }
    let number = take_number(&mut left)?;
    let _pid = take_number(&mut left)?;
    left = left.strip_prefix(&[op::TUPLE2])?;
    match left {
        [op::STOP] | [op::MEMOIZE, op::STOP] | [op::BINPUT, _, op::STOP] => Some(number),
        _ => None,
    }
}

/// Takes a number that is not negative from the front.
fn take_number(left: &mut &[u8]) -> Option<u64> {
    let (&kind, rest) = left.split_first()?;
    let (length, rest) = match kind {
        op::BININT1 => (1, rest),
        op::BININT2 => (2, rest),
        op::BININT => (4, rest),
        op::LONG1 => (usize::from(*rest.first()?), rest.get(1..)?),
        _ => return None,
    };
    let (digits, rest) = rest.split_at_checked(length)?;
    let signed = matches!(kind, op::BININT | op::LONG1);
    if signed && digits.last().is_some_and(|last| last & 0x80 != 0) {
        return None;
    }
    let mut wide = [0; 8];
    wide.get_mut(..length)?.copy_from_slice(digits);
    *left = rest;
    Some(u64::from_le_bytes(wide))
}
