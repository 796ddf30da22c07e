//! The queue in one process, and between processes that are killed.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::channel::{ByteQueue, ClaimWord, GetError, PutError, Queue};
use crate::primitive::AtomicU64;
use crate::shm::tests::{Child, Random, done_apart};
use crate::shm::{Pins, Shared, ShmSafe};

fn past() -> Option<Instant> {
    Some(Instant::now())
}

#[test]
fn messages_of_all_sizes_arrive_whole_and_in_order() {
    let queue = ByteQueue::new(0).unwrap();
    let sizes = [0, 1, 7, 8, 9, 8191, 8192, 8193, 65_000, 100_000, 3, 1 << 20];
    for round in 0..50u8 {
        for size in sizes {
            queue.put(&vec![round; size], None).unwrap();
        }
        for size in sizes {
            assert_eq!(queue.get(None).unwrap().as_ref(), vec![round; size]);
        }
    }
    assert!(queue.is_empty());
}

#[test]
fn empty_and_full_queues_say_so_at_the_deadline() {
    let queue = ByteQueue::new(2).unwrap();
    assert!(matches!(queue.get(past()), Err(GetError::Empty)));
    queue.put(b"1", None).unwrap();
    queue.put(b"2", None).unwrap();
    assert!(queue.is_full());
    assert!(matches!(queue.put(b"3", past()), Err(PutError::Full)));
    let soon = Some(Instant::now() + Duration::from_millis(5));
    assert!(matches!(queue.put(b"3", soon), Err(PutError::Full)));
    assert_eq!(queue.len(), 2);
    queue.get(None).unwrap();
    queue.put(b"3", past()).unwrap();
}

#[test]
fn closed_queue_gives_what_is_in_it_and_then_an_error() {
    let queue = Queue::<u32>::new().unwrap();
    queue.put(&1).unwrap();
    queue.close();
    assert!(matches!(queue.put(&2), Err(PutError::Closed)));
    assert_eq!(queue.get().unwrap(), 1);
    assert!(matches!(queue.get(), Err(GetError::Closed)));
}

#[test]
fn waiting_threads_share_all_messages_among_them() {
    let queue = Queue::<u64>::bounded(10).unwrap();
    let total: u64 = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| std::iter::from_fn(|| queue.get().ok()).sum::<u64>()))
            .collect();
        let putters: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| (1..=5000).for_each(|value| queue.put(&value).unwrap())))
            .collect();
        putters.into_iter().for_each(|putter| putter.join().unwrap());
        queue.close();
        takers.into_iter().map(|taker| taker.join().unwrap()).sum()
    });
    assert_eq!(total, 3 * 5000 * 5001 / 2);
}

#[test]
fn queue_sent_through_a_queue_works_and_keeps_its_messages() {
    let outer = Queue::<Queue<String>>::new().unwrap();
    let inner = Queue::new().unwrap();
    inner.put(&"inside".to_owned()).unwrap();
    outer.put(&inner).unwrap();
    drop(inner);
    assert_eq!(outer.get().unwrap().get().unwrap(), "inside");
}

#[test]
fn chunks_are_used_again_or_freed() {
    let queue = ByteQueue::new(0).unwrap();
    let message = [1; 1000];
    for _ in 0..20 {
        let many = vec![&message[..]; 500];
        assert_eq!(queue.put_many(many, None).unwrap(), 500);
        assert_eq!(queue.get_many(500, None).unwrap().len(), 500);
        assert!(queue.blocks() <= 2, "a chunk and a spare");
    }
}

#[test]
fn value_that_is_no_message_is_refused_where_it_is_put() {
    let queue = Queue::<Queue<u8>>::new().unwrap();
    let bytes = ByteQueue::new(0).unwrap();
    bytes.put(b"\x01\x02", None).unwrap();
    assert!(bytes.note().is_err());
    assert!(queue.is_empty());
}

/// A message in which no two neighbours are alike. To draw each byte would take most of the test's time.
fn counting(first: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| first.wrapping_add(at as u8)).collect()
}

proptest! {
    #[test]
    fn queue_behaves_like_a_deque(steps in prop::collection::vec(
        prop_oneof![
            2 => (any::<u8>(), 0..300_usize).prop_map(|(first, len)| Some(counting(first, len))),
            1 => Just(None),
        ], 1..300), batch in 1usize..20)
    {
        let queue = ByteQueue::new(0).unwrap();
        let mut model = std::collections::VecDeque::new();
        for step in steps {
            match step {
                Some(bytes) => {
                    let (head, tail) = bytes.split_at(bytes.len() / 3);
                    queue.put_parts(&[head, tail], &Pins::default(), None).unwrap();
                    model.push_back(bytes);
                }
                None if batch % 2 == 0 => match queue.get(past()) {
                    Ok(message) => prop_assert_eq!(message.as_ref(), &model.pop_front().unwrap()[..]),
                    Err(_) => prop_assert!(model.is_empty()),
                },
                None => for message in queue.get_many(batch, past()).unwrap_or_default() {
                    prop_assert_eq!(message.as_ref(), &model.pop_front().unwrap()[..]);
                },
            }
            prop_assert_eq!(queue.len(), model.len());
        }
        let rest: Vec<&[u8]> = model.iter().map(|bytes| &bytes[..]).collect();
        prop_assert_eq!(queue.put_many(rest.clone(), None).unwrap(), rest.len());
        prop_assert_eq!(queue.len(), 2 * rest.len());
    }
}

/// A message that shows whether it is whole: its length decides every byte.
fn whole(len: usize) -> Vec<u8> {
    vec![(len % 251) as u8; len]
}

#[test]
fn killed_producers_leave_whole_messages_and_no_litter() {
    if done_apart() {
        return;
    }
    let queue = ByteQueue::new(50).unwrap();
    let mut random = Random(11);
    let mut received = 0;
    for round in 0..400u64 {
        let child = Child::fork(|_| {
            let mut random = Random(round * 7 + 1);
            loop {
                let len = random.next(20_000) as usize;
                queue.put(&whole(len), None).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_micros(random.next(2000));
        while Instant::now() < until {
            if let Ok(message) = queue.get(past()) {
                assert_eq!(message.as_ref(), whole(message.len()));
                received += 1;
            }
        }
        child.kill();
    }
    while let Ok(message) = queue.get(past()) {
        assert_eq!(message.as_ref(), whole(message.len()));
    }
    assert!(received > 0);
    // The lock of a producer killed in the middle is taken over here, which also cleans up.
    queue.put(b"still works", None).unwrap();
    assert_eq!(queue.get(None).unwrap().as_ref(), b"still works");
    assert!(queue.blocks() <= 3, "a chunk, a spare and one that a dead producer linked");
}

#[test]
fn killed_consumers_lose_at_most_what_they_had_taken() {
    if done_apart() {
        return;
    }
    let queue = ByteQueue::new(0).unwrap();
    let taken = ByteQueue::new(0).unwrap();
    let mut random = Random(5);
    let (mut next, mut lost, mut seen) = (0u64, 0, 0);
    for _ in 0..400 {
        for _ in 0..50 {
            let mut message = whole(9000 * (next % 2) as usize + 8);
            message[..8].copy_from_slice(&next.to_le_bytes());
            queue.put(&message, None).unwrap();
            next += 1;
        }
        let child = Child::fork(|_| {
            while let Ok(message) = queue.get(None) {
                taken.put(&message[..8], None).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_micros(random.next(2000));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill();
        // What is left comes in order, after all that the child took.
        while let Ok(message) = queue.get(past()) {
            taken.put(&message[..8], None).unwrap();
        }
        let mut got = 0;
        while let Ok(number) = taken.get(past()) {
            let number = u64::from_le_bytes(number.as_ref().try_into().unwrap());
            assert!(number < next && number >= next - 50, "{number} came twice or too late");
            got += 1;
        }
        lost += 50 - got;
        assert!(50 - got <= 1, "one consumer holds one message at a time");
        seen += got;
    }
    assert_eq!(seen + lost, next);
    assert!(queue.blocks() <= 3 && taken.blocks() <= 3, "as for producers");
}

#[derive(Debug)]
#[repr(C)]
struct Seat {
    claim: ClaimWord,
    served: AtomicU64,
}

// SAFETY: two atomic words, in `repr(C)`.
unsafe impl ShmSafe for Seat {
    const TAG: u32 = u32::from_le_bytes(*b"seat");
}

#[test]
fn claim_of_a_killed_worker_names_exactly_the_task_it_had() {
    if done_apart() {
        return;
    }
    let tasks = ByteQueue::new(0).unwrap();
    let done = ByteQueue::new(0).unwrap();
    let mut random = Random(3);
    let (mut next, mut claimed_deaths) = (1u64, 0);
    for _ in 0..500 {
        let seat = Shared::<Seat>::new(|_| {}).unwrap();
        let first = next;
        while next < first + 20 {
            tasks.put(&next.to_le_bytes(), None).unwrap();
            next += 1;
        }
        let child = Child::fork(|_| {
            loop {
                let task = tasks.get_claimed(&seat.claim, None).unwrap();
                (0..500).for_each(|_| std::hint::spin_loop());
                done.put(&task, None).unwrap();
                seat.claim.clear();
            }
        });
        let until = Instant::now() + Duration::from_micros(random.next(3000));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill();
        tasks.settle().unwrap();
        let number = |message: crate::channel::Message| {
            u64::from_le_bytes(message.as_ref().try_into().unwrap())
        };
        let mut all = Vec::new();
        while let Ok(message) = done.get(past()) {
            all.push(number(message));
        }
        let claim = seat.claim.load();
        if claim != 0 && !all.contains(&claim) {
            all.push(claim);
            claimed_deaths += 1;
        }
        while let Ok(message) = tasks.get(past()) {
            all.push(number(message));
        }
        assert_eq!(all, (first..next).collect::<Vec<_>>(), "each task is in exactly one place");
    }
    // Seen in about one round of ten; none at all would mean that the test tests nothing.
    assert!(claimed_deaths > 0);
}
