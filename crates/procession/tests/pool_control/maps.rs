//! Many tasks at once, all together or one by one.

use std::sync::atomic::{AtomicU32, Ordering};

use procession::channel::Queue;
use procession::pool::{Pool, TaskError};
use procession_testing::process::wait_until;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{DEADLOCK, busy_for, pool, square};

pub(crate) const TESTS: &[(&str, fn())] = procession_testing::tests![
    imap_keeps_the_order,
    imap_tells_errors_in_their_place,
    imap_draws_no_more_than_its_window,
    dropped_iterator_calls_its_tasks_back,
    map_of_any_size_keeps_the_order,
    map_of_uneven_items_is_complete,
];

fn imap_keeps_the_order() {
    let pool = pool();
    for chunk in [0, 1, 7] {
        let values: Result<Vec<u64>, _> =
            pool.chunk(chunk).imap(square, 0..3000).unwrap().collect();
        assert_eq!(values.unwrap(), (0..3000).map(square).collect::<Vec<_>>(), "chunk {chunk}");
    }
    assert_eq!(pool.imap(square, []).unwrap().count(), 0);
}

/// Serializes unless it is a multiple of 10, deserializes unless it is one of 15.
#[derive(Debug, PartialEq)]
struct Shy(u32);

impl Serialize for Shy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 10 {
            0 => Err(S::Error::custom("a multiple of 10")),
            _ => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Shy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            value if value % 15 == 0 => Err(D::Error::custom("a multiple of 15")),
            value => Ok(Self(value)),
        }
    }
}

fn imap_tells_errors_in_their_place() {
    let pool = pool();
    let values: Vec<_> = pool.imap(|x: Shy| x.0, (1..200).map(Shy)).unwrap().collect();
    assert_eq!(values.len(), 199);
    for (x, value) in (1..200_u32).zip(&values) {
        match value {
            Ok(value) => assert!(*value == x && !x.is_multiple_of(10) && !x.is_multiple_of(15)),
            Err(TaskError::Encode { .. }) => assert!(x.is_multiple_of(10), "{x}"),
            Err(TaskError::Decode { .. }) => assert!(x.is_multiple_of(15), "{x}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    let packed: Vec<_> = pool.chunk(6).imap(|x: Shy| x.0, (1..200).map(Shy)).unwrap().collect();
    assert_eq!(packed.len(), 199, "an item without an outcome");
    assert!(matches!(packed[198], Ok(199)));
}

fn imap_draws_no_more_than_its_window() {
    let pool = pool();
    for window in [1, 3] {
        let drawn = AtomicU32::new(0);
        let endless = std::iter::repeat_with(|| {
            drawn.fetch_add(1, Ordering::Relaxed);
            7
        });
        let mut values = pool.window(window).imap(square, endless).unwrap();
        for taken in 1..=50 {
            assert_eq!(values.next().unwrap().unwrap(), 49);
            let most = taken + window as u32 * 2;
            assert!(drawn.load(Ordering::Relaxed) <= most, "window {window}");
        }
    }
}

fn dropped_iterator_calls_its_tasks_back() {
    let pool = Pool::new(1).unwrap();
    let (gate, said) = (Queue::new().unwrap(), Queue::new().unwrap());
    let items = (0..1000).map(|number| (gate.clone(), said.clone(), number));
    let slow = |(gate, said, number): (Queue<u8>, Queue<u32>, u32)| {
        said.put(&number).unwrap();
        if number > 0 {
            gate.get().unwrap();
        }
    };
    let mut values = pool.window(50).imap(slow, items).unwrap();
    values.next().unwrap().unwrap();
    assert!(wait_until(DEADLOCK, || said.len() == 2), "the second item was not begun");
    drop(values);
    gate.put(&0).unwrap();
    assert_eq!(pool.apply(square, 2).unwrap(), 4);
    assert_eq!(said.len(), 2, "tasks of a dropped iterator were run");
}

fn map_of_any_size_keeps_the_order() {
    let pool = pool();
    for count in [0, 1, 2, 3, 5, 17, 1000, 300_000] {
        let expected: Vec<u64> = (0..count).map(square).collect();
        assert_eq!(pool.map(square, 0..count).unwrap(), expected, "{count}");
        // The same without saying how many there are.
        let unknown = (0..count).filter(|_| true);
        assert_eq!(pool.map(square, unknown).unwrap(), expected, "{count}");
    }
}

fn map_of_uneven_items_is_complete() {
    let pool = pool();
    let times: Vec<u64> = (0..400).map(|x| if x % 97 == 0 { 20_000 } else { x % 50 }).collect();
    assert_eq!(pool.map(busy_for, times.clone()).unwrap(), times);
}
