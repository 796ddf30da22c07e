//! Several objects at a time.

use std::time::Instant;

use procession::channel::{ByteQueue, PutError};
use procession::shm::Pins;
use pyo3::prelude::*;

use crate::draft::{Car, Draft, Train};
use crate::error::EngineResult;
use crate::pickling::dump_draft;
use crate::wait::blocking;

/// Pickles objects one behind the other.
pub(super) fn load_train<'py>(
    objects: &Bound<'py, PyAny>,
    draft: &mut Draft<'py>,
) -> PyResult<Train> {
    let mut train = Train::default();
    for object in objects.try_iter()? {
        let start = draft.mark();
        let pins = dump_draft(&object?, draft, true)?;
        train.add(draft, start, pins);
    }
    Ok(train)
}

/// Puts all of them, or as many as there was room for in time, and returns how many.
pub(super) fn put_train(
    py: Python<'_>,
    queue: &ByteQueue,
    train: &Train,
    draft: &Draft<'_>,
    deadline: Option<Instant>,
) -> EngineResult<usize> {
    let cars = train.cars();
    let mut done = 0;
    while done < cars.len() {
        match put_some(py, queue, &cars[done..], draft, deadline)? {
            Ok(put) => done += put,
            Err(PutError::Full) if done > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// Puts at least one, and at most as many as are plain bytes.
fn put_some(
    py: Python<'_>,
    queue: &ByteQueue,
    cars: &[Car],
    draft: &Draft<'_>,
    deadline: Option<Instant>,
) -> PyResult<Result<usize, PutError>> {
    let none = Pins::default();
    if !cars[0].is_plain() {
        let parts = cars[0].parts(draft);
        let pins = cars[0].pins.as_ref().unwrap_or(&none);
        return blocking(py, || queue.put_parts(&parts, pins, deadline).map(|()| 1));
    }
    let plain = cars.iter().take_while(|car| car.is_plain());
    let payloads: Vec<_> = plain.map(|car| car.bytes(draft)).collect();
    blocking(py, || queue.put_many(payloads.iter().copied(), deadline))
}
