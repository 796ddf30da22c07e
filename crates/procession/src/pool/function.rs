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

/// The kind of tasks whose items are all run.
pub(super) const ALL_ITEMS: u32 = 0;
/// The kind of tasks that end with the first item that fails; those behind it have no outcome.
pub(super) const UNTIL_FAILURE: u32 = 1;

/// Bytes of the number of items at the start of a payload.
const COUNT: usize = 4;

/// [`run_items`], made for one function.
pub(super) type Entry = fn(u32, &[u8], &mut Reply) -> RunStatus;

/// Why one item has no value.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Fault {
    Panicked(PanicReport),
    /// The argument could not be deserialized.
    Decode(String),
    /// The value could not be serialized.
    Encode(String),
}

/// What workers call for a function.
pub(super) fn entry<F, A, R>(_function: F) -> Entry
where
    F: Fn(A) -> R + Copy + Send + 'static,
    A: DeserializeOwned,
    R: Serialize,
{
    const { assert!(size_of::<F>() == 0, "{}", NO_CAPTURES) };
    run_items::<F, A, R, Always>
}

/// The same for a function that may fail.
pub(super) fn fallible_entry<F, A, T, E>(_function: F) -> Entry
where
    F: Fn(A) -> Result<T, E> + Copy + Send + 'static,
    A: DeserializeOwned,
    T: Serialize,
    E: Serialize,
{
    const { assert!(size_of::<F>() == 0, "{}", NO_CAPTURES) };
    run_items::<F, A, Result<T, E>, Fallible>
}

const NO_CAPTURES: &str = "a worker can be given a function by its name, or a closure that captures nothing; pass what it needs with each item";

/// Says whether a value that a function returned is a failure.
trait Judge<R> {
    fn is_failure(value: &R) -> bool;
}

/// For functions that return values.
enum Always {}

impl<R> Judge<R> for Always {
    fn is_failure(_value: &R) -> bool {
        false
    }
}

/// For functions that return results.
enum Fallible {}

impl<T, E> Judge<Result<T, E>> for Fallible {
    fn is_failure(value: &Result<T, E>) -> bool {
        value.is_err()
    }
}

/// What names the function in a job.
pub(super) fn job_bytes(entry: Entry) -> Result<Vec<u8>, TaskError> {
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
        // An item of the same task has failed first.
        Ok([]) => Err(TaskError::Cancelled),
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
    fn run(&mut self, job: Job<'_>, kind: u32, payload: &[u8], reply: &mut Reply) -> RunStatus {
        match self.entry(job) {
            Ok(entry) => entry(kind, payload, reply),
            Err(reason) => refuse(payload, &reason, reply),
        }
    }
}

/// The number of items in a task, and the items.
fn split_count(payload: &[u8]) -> Option<(usize, &[u8])> {
    let (count, items) = payload.split_first_chunk::<COUNT>()?;
    Some((u32::from_le_bytes(*count) as usize, items))
}

/// Writes the reply of a task of which no item can be run.
fn refuse(payload: &[u8], reason: &str, reply: &mut Reply) -> RunStatus {
    let count = split_count(payload).map_or(0, |(count, _)| count);
    let fault = || Err::<(), _>(Fault::Decode(reason.to_owned()));
    write_outcomes((0..count).map(|_| fault()).collect(), reply.bytes());
    RunStatus::Failed
}

/// Runs the items of one task. It has failed if one of them has.
fn run_items<F, A, R, J>(kind: u32, payload: &[u8], reply: &mut Reply) -> RunStatus
where
    F: Fn(A) -> R + Copy,
    A: DeserializeOwned,
    R: Serialize,
    J: Judge<R>,
{
    let Some((count, mut rest)) = split_count(payload) else {
        return refuse(payload, "the task is too short", reply);
    };
    let mut outcomes = Vec::with_capacity(count.min(payload.len()));
    let mut failed = false;
    for _ in 0..count {
        let outcome = run_item::<F, A, R>(&mut rest);
        failed |= outcome.as_ref().map_or(true, J::is_failure);
        outcomes.push(outcome);
        if failed && kind == UNTIL_FAILURE {
            break;
        }
    }
    let (all_written, pins) = shm::pack(|| write_outcomes(outcomes, reply.bytes()));
    reply.pin(pins);
    if failed || !all_written { RunStatus::Failed } else { RunStatus::Done }
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

/// Appends outcomes. One that does not serialize is replaced by a fault; returns whether there was none.
fn write_outcomes<R: Serialize>(mut outcomes: Vec<Result<R, Fault>>, buffer: &mut Vec<u8>) -> bool {
    let mut written = 0;
    let mut all = true;
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
            Ok(Ok(())) => return all,
            Ok(Err(error)) => encode_fault(&error),
            Err(report) => Fault::Panicked(report),
        };
        buffer.truncate(start);
        // A fault is text, and serializes.
        outcomes[written] = Err(fault);
        all = false;
    }
    all
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
        run_items::<F, A, R, Always>(ALL_ITEMS, &payload, &mut reply);
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
        assert_eq!(run_with(halve, ALL_ITEMS, &payload, &mut reply), RunStatus::Failed);
        let values: Vec<Result<u32, _>> = values(reply.written(), 2).collect();
        assert_eq!(*values[0].as_ref().unwrap(), 2);
        assert!(matches!(values[1], Err(TaskError::Decode { .. })));
    }

    #[test]
    fn task_that_ends_with_a_failure_leaves_the_rest_undone() {
        let mut payload = 4_u32.to_le_bytes().to_vec();
        for item in [2_u32, 3, 4, 5] {
            postcard::to_io(&item, &mut payload).unwrap();
        }
        let mut reply = Reply::for_test();
        assert_eq!(run_with(halve, UNTIL_FAILURE, &payload, &mut reply), RunStatus::Failed);
        let values: Vec<Result<u32, _>> = values(reply.written(), 4).collect();
        assert_eq!(*values[0].as_ref().unwrap(), 1);
        assert!(matches!(values[1], Err(TaskError::Panicked { .. })));
        assert!(values[2..].iter().all(|value| matches!(value, Err(TaskError::Cancelled))));
    }

    #[test]
    fn error_that_a_function_returns_is_a_failure_and_a_value() {
        let check = |x: u32| if x == 0 { Err("zero".to_owned()) } else { Ok(x) };
        let mut payload = 2_u32.to_le_bytes().to_vec();
        payload.extend([0, 7]);
        for (kind, values_expected) in [(ALL_ITEMS, 2), (UNTIL_FAILURE, 1)] {
            let mut reply = Reply::for_test();
            assert_eq!(fallible_entry(check)(kind, &payload, &mut reply), RunStatus::Failed);
            let values: Vec<_> = values::<Result<u32, String>>(reply.written(), 2).collect();
            assert!(matches!(&values[0], Ok(Err(error)) if error == "zero"));
            assert_eq!(values.iter().filter(|value| value.is_ok()).count(), values_expected);
        }
    }

    #[test]
    fn task_whose_function_is_not_found_fails_for_every_item() {
        let mut reply = Reply::for_test();
        let status = refuse(&[2, 0, 0, 0, 1, 1], "gone", &mut reply);
        assert_eq!(status, RunStatus::Failed);
        let values: Vec<Result<u32, _>> = values(reply.written(), 2).collect();
        assert!(values.iter().all(
            |value| matches!(value, Err(TaskError::Decode { reason }) if reason.contains("gone"))
        ));
    }

    fn run_with<F, A, R>(_: F, kind: u32, payload: &[u8], reply: &mut Reply) -> RunStatus
    where
        F: Fn(A) -> R + Copy,
        A: DeserializeOwned,
        R: Serialize,
    {
        run_items::<F, A, R, Always>(kind, payload, reply)
    }

    #[test]
    fn damaged_reply_is_an_error_for_every_item() {
        let values: Vec<Result<u32, _>> = values(&[9, 9, 9], 3).collect();
        assert_eq!(values.len(), 3);
        assert!(values.iter().all(|value| matches!(value, Err(TaskError::Decode { .. }))));
    }
}
