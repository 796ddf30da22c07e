//! Rust functions as jobs: how they are named, how their arguments and values are packed.
//!
//! A job is the place in the executable of [`run_items`], made for one function and its types. The
//! payload of a task is a number of arguments (four bytes) and then the arguments one after another;
//! the reply has one `Result<value, Fault>` for each of them. All in postcard's format.
//!
//! A task may hold many items, and each fails by itself: a panic in one leaves the others as they are.
//! Only the death of the worker takes all items of its task.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::ptr::NonNull;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::channel::connection::text_of_postcard;
use crate::pool::frames::Frames;
use crate::pool::task::TaskError;
use crate::pool::worker::{Job, Reply, RunStatus, Runner};
use crate::process::function::Location;
use crate::process::panics::{self, PanicReport};
use crate::shm;

/// The one kind of task there is.
pub(super) const ITEMS: u32 = 0;

/// Bytes of the number of items at the start of a payload.
const COUNT: usize = 4;

/// [`run_items`], made for one function.
type Entry = fn(&[u8], &mut Reply) -> RunStatus;

/// Why one item has no value.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Fault {
    Panicked(PanicReport),
    /// The argument could not be deserialized.
    Decode(String),
    /// The value could not be serialized.
    Encode(String),
}

/// What names the function in a job.
pub(super) fn job_bytes<F, A, R>() -> Result<Vec<u8>, TaskError>
where
    F: Fn(A) -> R + Copy,
    A: DeserializeOwned,
    R: Serialize,
{
    let entry: Entry = run_items::<F, A, R>;
    let location = Location::of(entry as usize).map_err(|_| TaskError::NotInExecutable)?;
    postcard::to_stdvec(&location).map_err(|error| TaskError::Encode { reason: error.to_string() })
}

/// Adds one task with these arguments.
pub(super) fn push_items<A: Serialize>(frames: &mut Frames, items: &[A]) -> Result<(), TaskError> {
    let (result, pins) = shm::pack(|| {
        frames.push_with(|payload| {
            payload.extend_from_slice(&(items.len() as u32).to_le_bytes());
            items.iter().try_for_each(|item| postcard::to_io(item, &mut *payload).map(drop))
        })
    });
    result.map_err(|error| TaskError::Encode { reason: text_of_postcard(&error) })?;
    frames.pin(pins);
    Ok(())
}

/// Reads the values of a task with so many items.
pub(super) fn values<R: DeserializeOwned>(
    reply: &[u8],
    items: usize,
) -> impl Iterator<Item = Result<R, TaskError>> {
    let mut rest = Ok(reply);
    (0..items).map(move |_| match rest.clone() {
        Ok(bytes) => match postcard::take_from_bytes::<Result<R, Fault>>(bytes) {
            Ok((value, behind)) => {
                rest = Ok(behind);
                value.map_err(TaskError::from)
            }
            // What is behind it cannot be found.
            Err(error) => {
                rest = Err(error.clone());
                Err(undecodable(&error))
            }
        },
        Err(error) => Err(undecodable(&error)),
    })
}

fn undecodable(error: &postcard::Error) -> TaskError {
    TaskError::Decode { reason: format!("the value: {}", text_of_postcard(error)) }
}

/// Runs the tasks of a pool of Rust functions.
#[derive(Debug, Default)]
pub(super) struct FunctionRunner {
    /// The function that was run last, by its job.
    last: Option<(u64, Entry)>,
}

impl FunctionRunner {
    fn entry(&mut self, job: Job<'_>) -> Result<Entry, String> {
        if let Some((handle, entry)) = self.last
            && handle == job.handle
        {
            return Ok(entry);
        }
        let location: Location = postcard::from_bytes(job.bytes).map_err(|e| e.to_string())?;
        let address = location.resolve().map_err(|error| error.to_string())?;
        // SAFETY: the address is that of an `Entry`: the worker is the same build of the executable as
        // the owner, and the jobs of a pool with this runner come from `job_bytes` alone.
        let entry = unsafe { std::mem::transmute::<usize, Entry>(address) };
        self.last = Some((job.handle, entry));
        Ok(entry)
    }
}

impl Runner for FunctionRunner {
    fn run(&mut self, job: Job<'_>, _kind: u32, payload: &[u8], reply: &mut Reply) -> RunStatus {
        match self.entry(job) {
            Ok(entry) => entry(payload, reply),
            Err(reason) => {
                reply.bytes().extend_from_slice(reason.as_bytes());
                RunStatus::Failed
            }
        }
    }
}

/// Runs the items of one task.
fn run_items<F, A, R>(payload: &[u8], reply: &mut Reply) -> RunStatus
where
    F: Fn(A) -> R + Copy,
    A: DeserializeOwned,
    R: Serialize,
{
    let Some((count, mut rest)) = payload.split_first_chunk::<COUNT>() else {
        reply.bytes().extend_from_slice(b"the task is too short");
        return RunStatus::Failed;
    };
    let count = u32::from_le_bytes(*count) as usize;
    let mut outcomes = Vec::with_capacity(count.min(payload.len()));
    for _ in 0..count {
        outcomes.push(run_item::<F, A, R>(&mut rest));
    }
    let ((), pins) = shm::pack(|| write_outcomes(outcomes, reply.bytes()));
    reply.pin(pins);
    RunStatus::Done
}

/// Takes an argument off the front of `rest` and calls the function with it.
fn run_item<F, A, R>(rest: &mut &[u8]) -> Result<R, Fault>
where
    F: Fn(A) -> R + Copy,
    A: DeserializeOwned,
{
    let run = || {
        // Without one that decodes there is no telling where the next begins: it fails likewise.
        let (argument, behind) = postcard::take_from_bytes::<A>(rest)?;
        *rest = behind;
        Ok(value_of::<F>()(argument))
    };
    match panics::catch(run) {
        Ok(result) => {
            result.map_err(|error: postcard::Error| Fault::Decode(text_of_postcard(&error)))
        }
        Err(report) => Err(Fault::Panicked(report)),
    }
}

/// Appends outcomes. One that does not serialize is replaced by a fault.
fn write_outcomes<R: Serialize>(mut outcomes: Vec<Result<R, Fault>>, buffer: &mut Vec<u8>) {
    let mut written = 0;
    while written < outcomes.len() {
        let mut start = buffer.len();
        let write = || {
            for outcome in &outcomes[written..] {
                start = buffer.len();
                postcard::to_io(outcome, &mut *buffer)?;
                written += 1;
            }
            Ok(())
        };
        let fault = match panics::catch(write) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => encode_fault(&error),
            Err(report) => Fault::Panicked(report),
        };
        buffer.truncate(start);
        // A fault is text, and serializes.
        outcomes[written] = Err(fault);
    }
}

fn encode_fault(error: &postcard::Error) -> Fault {
    Fault::Encode(text_of_postcard(error))
}

/// Makes the value of a type that has no size.
fn value_of<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0) };
    // SAFETY:
    // - Valid to read: nothing is read of a type of size zero, and a dangling pointer is aligned.
    // - A value: the owner of the pool was given one when it submitted the task, so the type has one;
    //   it is `Copy`, so there may be another.
    unsafe { NonNull::<F>::dangling().read() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halve(x: u32) -> u32 {
        assert!(x.is_multiple_of(2), "odd");
        x / 2
    }

    fn run<F, A, R>(_: F, items: &[A]) -> Vec<Result<R, TaskError>>
    where
        F: Fn(A) -> R + Copy,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let mut payload = (items.len() as u32).to_le_bytes().to_vec();
        for item in items {
            postcard::to_io(item, &mut payload).unwrap();
        }
        let mut reply = Reply::for_test();
        assert_eq!(run_items::<F, A, R>(&payload, &mut reply), RunStatus::Done);
        values(reply.written(), items.len()).collect()
    }

    #[test]
    fn items_without_size_are_counted() {
        let values = run(|()| 7_u8, &[(); 3]);
        assert_eq!(values.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [7; 3]);
    }

    #[test]
    fn panic_in_one_item_leaves_the_others() {
        let values = run(halve, &[2, 3, 4]);
        assert_eq!(*values[0].as_ref().unwrap(), 1);
        assert!(matches!(&values[1], Err(TaskError::Panicked { message, .. }) if message == "odd"));
        assert_eq!(*values[2].as_ref().unwrap(), 2);
    }

    #[test]
    fn truncated_arguments_fail_and_do_not_run() {
        let mut payload = 2_u32.to_le_bytes().to_vec();
        postcard::to_io(&4_u32, &mut payload).unwrap();
        let mut reply = Reply::for_test();
        assert_eq!(run_with(halve, &payload, &mut reply), RunStatus::Done);
        let values: Vec<Result<u32, _>> = values(reply.written(), 2).collect();
        assert_eq!(*values[0].as_ref().unwrap(), 2);
        assert!(matches!(values[1], Err(TaskError::Decode { .. })));
    }

    fn run_with<F, A, R>(_: F, payload: &[u8], reply: &mut Reply) -> RunStatus
    where
        F: Fn(A) -> R + Copy,
        A: DeserializeOwned,
        R: Serialize,
    {
        run_items::<F, A, R>(payload, reply)
    }

    #[test]
    fn damaged_reply_is_an_error_for_every_item() {
        let values: Vec<Result<u32, _>> = values(&[9, 9, 9], 3).collect();
        assert_eq!(values.len(), 3);
        assert!(values.iter().all(|value| matches!(value, Err(TaskError::Decode { .. }))));
    }
}
