//! Where a child leaves what came of it.
//!
//! One block in the arena, shared by the child and by whoever holds its handle.
//!
//! # Shared state
//!
//! | state | name | meaning | outcome |
//! |-------|------|---------|---------|
//! | 0 | `NEW` | the child has not said anything yet | nothing |
//! | 1 | `STARTED` | it is about to call the function | nothing |
//! | 2 | `RETURNED` | the function returned | its serialized value |
//! | 3 | `PANICKED` | the function panicked | a serialized [`PanicReport`] |
//! | 4 | `REFUSED` | the function could not be called | the reason, as text |
//! | 5 | `UNSENDABLE` | the function's value could not be stored | the reason, as text |
//!
//! A short outcome lies in `words`, `len` bytes of it; of any other `block` is the handle.
//!
//! Only the child writes. States from 2 on are final, but for one case: 2 is never replaced, and 5
//! comes in its place. The parent looks after the child has ended.
//!
//! # Memory ordering
//!
//! The outcome is stored before `state`, which is stored with release and loaded with acquire. The
//! block that `block` names is complete before that.
//!
//! # When a process dies
//!
//! A child killed between storing the block and storing the state has said nothing: the state is as
//! before, and the block goes with the exchange, whose block it is. The exchange itself goes with
//! the last of the two processes that hold it.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::borrow::Cow;

use serde::Serialize;

use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::process::panics::{self, PanicReport};
use crate::shm::{self, Arena, ArenaError, Handle, Owner, Pins, Shared, ShmSafe};

const NEW: u32 = 0;
const STARTED: u32 = 1;
const RETURNED: u32 = 2;
const PANICKED: u32 = 3;
const REFUSED: u32 = 4;
const UNSENDABLE: u32 = 5;

/// Exit codes of children that ran to their end.
pub(crate) const EXIT_OK: i32 = 0;
const EXIT_UNSENDABLE: i32 = 1;
pub(crate) const EXIT_REFUSED: i32 = 1;
/// As `std` has it for a program whose main thread panicked.
pub(crate) const EXIT_PANICKED: i32 = 101;

/// Stands for a reason that could not be stored itself.
const NO_ROOM: &str = "the arena has no room";

/// The block. See the head of this file.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Exchange {
    state: AtomicU32,
    /// Length in bytes of an outcome in `words`.
    len: AtomicU32,
    /// Raw handle of the block with the outcome; 0 if it is in `words`.
    block: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// Outcomes of up to this many words need no block of their own.
const WORDS: usize = 6;

#[cfg(not(loom))]
const _: () = assert!(size_of::<Exchange>() == 64 && align_of::<Exchange>() == 8);

// SAFETY: `repr(C)`, atomic integers only: every bit pattern is a value, zero is a fresh exchange,
// there is no pointer in it, and other processes may change it at any time.
unsafe impl ShmSafe for Exchange {
    const TAG: u32 = u32::from_le_bytes(*b"exch");
}

/// What a child has left, as its parent reads it.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    /// The function was not called yet.
    New,
    /// The function was called.
    Started,
    /// The function returned this, serialized.
    Returned(Cow<'a, [u8]>),
    /// The function panicked.
    Panicked(PanicReport),
    /// The function could not be called.
    Refused(String),
    /// The function's value could not be sent.
    Unsendable(String),
}

/// Makes a fresh exchange.
pub(crate) fn create() -> Result<Shared<Exchange>, ArenaError> {
    Shared::new(|_: &Exchange| {})
}

/// Calls `work` and leaves what comes of it in `exchange`. Returns the exit code.
///
/// To be called in the child. Does not unwind.
pub(crate) fn run<R: Serialize>(exchange: &Shared<Exchange>, work: impl FnOnce() -> R) -> i32 {
    exchange.state.store(STARTED, Ordering::Release);
    let result = panics::catch(|| {
        let value = work();
        // Serializing and dropping the value runs the user's code as well.
        let (bytes, pins) = shm::pack(|| postcard::to_stdvec(&value));
        drop(value);
        (bytes, pins)
    });
    match result {
        Ok((Ok(bytes), pins)) => match leave(exchange, RETURNED, &bytes, &pins) {
            Ok(()) => EXIT_OK,
            Err(error) => {
                leave_text(exchange, UNSENDABLE, &error.to_string());
                EXIT_UNSENDABLE
            }
        },
        Ok((Err(error), _)) => {
            leave_text(exchange, UNSENDABLE, &error.to_string());
            EXIT_UNSENDABLE
        }
        Err(report) => {
            leave_panic(exchange, &report);
            EXIT_PANICKED
        }
    }
}

/// Says why the function could not be called. Returns the exit code.
pub(crate) fn refuse(exchange: &Shared<Exchange>, reason: &str) -> i32 {
    leave_text(exchange, REFUSED, reason);
    EXIT_REFUSED
}

/// Reads what the child has left.
pub(crate) fn read(exchange: &Shared<Exchange>) -> Outcome<'_> {
    let state = exchange.state.load(Ordering::Acquire);
    match state {
        NEW => return Outcome::New,
        STARTED => return Outcome::Started,
        _ => {}
    }
    let Some(bytes) = outcome_of(exchange) else {
        return Outcome::Unsendable(NO_ROOM.to_owned());
    };
    match state {
        RETURNED => Outcome::Returned(bytes),
        PANICKED => Outcome::Panicked(postcard::from_bytes(&bytes).unwrap_or_else(|_| {
            PanicReport { message: format!("its message was lost: {NO_ROOM}"), location: None }
        })),
        REFUSED => Outcome::Refused(text_of(&bytes)),
        _ => Outcome::Unsendable(text_of(&bytes)),
    }
}

fn text_of(bytes: &[u8]) -> String {
    if bytes.is_empty() { NO_ROOM.to_owned() } else { String::from_utf8_lossy(bytes).into_owned() }
}

/// The bytes that the child has left, no byte if there was no room; `None` if they are gone.
fn outcome_of(exchange: &Exchange) -> Option<Cow<'_, [u8]>> {
    let block = exchange.block.load(Ordering::Relaxed);
    if block != 0 {
        return Some(Arena::current().ok()?.parcel_bytes(Handle::from_raw(block)).ok()?.into());
    }
    let words = exchange.words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
    let len = exchange.len.load(Ordering::Relaxed) as usize;
    Some(words.take(len).collect::<Vec<_>>().into())
}

fn leave(
    exchange: &Shared<Exchange>,
    state: u32,
    bytes: &[u8],
    pins: &Pins,
) -> Result<(), ArenaError> {
    if pins.is_empty() && bytes.len() <= WORDS * size_of::<u64>() {
        for (word, part) in exchange.words.iter().zip(bytes.chunks(size_of::<u64>())) {
            let mut padded = [0; size_of::<u64>()];
            padded[..part.len()].copy_from_slice(part);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        exchange.len.store(bytes.len() as u32, Ordering::Relaxed);
    } else {
        let owner = Owner::Block(exchange.handle());
        let block = Arena::current()?.store_parcel(&[bytes], pins, owner)?;
        exchange.block.store(block.raw(), Ordering::Relaxed);
    }
    exchange.state.store(state, Ordering::Release);
    Ok(())
}

fn leave_panic(exchange: &Shared<Exchange>, report: &PanicReport) {
    let bytes = postcard::to_stdvec(report).unwrap_or_default();
    if leave(exchange, PANICKED, &bytes, &Pins::default()).is_err() {
        exchange.state.store(PANICKED, Ordering::Release);
    }
}

fn leave_text(exchange: &Shared<Exchange>, state: u32, text: &str) {
    if leave(exchange, state, text.as_bytes(), &Pins::default()).is_err() {
        exchange.state.store(state, Ordering::Release);
    }
}
