//! Several objects at a time.

use std::time::Instant;

use procession::channel::{ByteQueue, PutError};
use procession::shm::Pins;
use pyo3::prelude::*;

use crate::error::EngineResult;
use crate::pickling::dump;
use crate::wait::blocking;

/// Several objects, pickled one behind the other.
pub(super) struct Train {
    /// Where each ends, and the shared objects that it names.
    cars: Vec<(usize, Option<Pins>)>,
}

impl Train {
    pub(super) fn load(objects: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> PyResult<Self> {
        let mut cars = Vec::new();
        for object in objects.try_iter()? {
            let pins = dump(&object?, bytes)?.filter(|pins| !pins.is_empty());
            cars.push((bytes.len(), pins));
        }
        Ok(Self { cars })
    }

    /// The bytes of one object.
    fn car<'a>(&self, index: usize, bytes: &'a [u8]) -> &'a [u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.cars[before].0);
        &bytes[start..self.cars[index].0]
    }

    /// Puts all of them, or as many as there was room for in time, and returns how many.
    pub(super) fn put(
        &self,
        py: Python<'_>,
        queue: &ByteQueue,
        bytes: &[u8],
        deadline: Option<Instant>,
    ) -> EngineResult<usize> {
        let mut done = 0;
        while done < self.cars.len() {
            match blocking(py, || self.put_some(queue, done, bytes, deadline))? {
                Ok(put) => done += put,
                Err(PutError::Full) if done > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Puts at least one, and at most as many as need no pins.
    fn put_some(
        &self,
        queue: &ByteQueue,
        first: usize,
        bytes: &[u8],
        deadline: Option<Instant>,
    ) -> Result<usize, PutError> {
        if let (_, Some(pins)) = &self.cars[first] {
            return queue.put_pinned(self.car(first, bytes), pins, deadline).map(|()| 1);
        }
        let plain = self.cars[first..].iter().take_while(|(_, pins)| pins.is_none()).count();
        let payloads = (first..first + plain).map(|index| self.car(index, bytes));
        queue.put_many(payloads, deadline)
    }
}
