//! A number there and back: the median of the single times.
//!
//! Reading the clock is part of each, with about a twentieth of a microsecond.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipc_channel::ipc;
use procession::channel::Queue;
use procession::memory::Atomic;
use rustix::thread::futex;

use crate::sides::{race, stay_on};
use crate::streams::{In, Out};

/// Where the system likes to run the two processes, instead of a number of processors.
pub(crate) const ANYWHERE: usize = 0;

/// Times `ask` here while `answer` runs in the other process, each kept on one processor out of
/// `CORES`, or [`ANYWHERE`]. The result is one operation in the median time.
fn median<const CORES: usize, N, F>(
    count: u64,
    make_near: impl FnOnce() -> N,
    ask: impl Fn(&mut N, u64),
    make_far: impl FnOnce() -> F,
    answer: impl Fn(&mut F),
) -> (u64, Duration) {
    let mut times = Vec::with_capacity(usize::try_from(count).expect("a count that fits"));
    let near = |end: &mut N| {
        for number in 0..count {
            let start = Instant::now();
            ask(end, number);
            times.push(start.elapsed());
        }
    };
    let pinned = |core: usize| {
        if CORES != ANYWHERE {
            stay_on(core.min(CORES - 1));
        }
    };
    race(
        || {
            pinned(1);
            make_far()
        },
        |end| (0..count).for_each(|_| answer(end)),
        || {
            pinned(0);
            make_near()
        },
        near,
    );
    times.sort_unstable();
    (1, times[times.len() / 2])
}

pub(crate) fn queue<const CORES: usize>(count: u64) -> (u64, Duration) {
    let [there, back] = [(); 2].map(|()| Queue::<u64>::new().expect("shared memory for a queue"));
    median::<CORES, _, _>(
        count,
        || (),
        |(), number| {
            there.put(&number).expect("memory for a message");
            assert_eq!(back.get().expect("an answer"), number);
        },
        || (),
        |()| back.put(&there.get().expect("a question")).expect("memory for a message"),
    )
}

pub(crate) fn ipc_channel<const CORES: usize>(count: u64) -> (u64, Duration) {
    let (there, question) = ipc::channel::<u64>().expect("descriptors for a channel");
    let (back, answer) = ipc::channel::<u64>().expect("descriptors for a channel");
    median::<CORES, _, _>(
        count,
        || (),
        |(), number| {
            there.send(number).expect("the receiver lives");
            assert_eq!(answer.recv().expect("an answer"), number);
        },
        || (),
        |()| back.send(question.recv().expect("a question")).expect("the receiver lives"),
    )
}

pub(crate) fn iceoryx2<const CORES: usize>(count: u64) -> (u64, Duration) {
    let [there, back] =
        ["there", "back"].map(|way| format!("procession-peers-{}-{way}", std::process::id()));
    let word = [0; size_of::<u64>()];
    median::<CORES, _, _>(
        count,
        || (Out::new(&there, word.len()), In::new(&back)),
        |(out, answers), number| {
            out.send(&number.to_ne_bytes());
            let mut answer = word;
            answers.receive_into(&mut answer);
            assert_eq!(u64::from_ne_bytes(answer), number);
        },
        || (Out::new(&back, word.len()), In::new(&there)),
        |(out, questions)| {
            let mut question = word;
            questions.receive_into(&mut question);
            out.send(&question);
        },
    )
}

/// What the system can do, without any care: a word each way, sleeping at once.
pub(crate) fn futex<const CORES: usize>(count: u64) -> (u64, Duration) {
    let [there, back] =
        [(); 2].map(|()| Atomic::<AtomicU32>::new(0).expect("shared memory for a number"));
    let take = |from: &AtomicU32| {
        while from.swap(0, Ordering::SeqCst) == 0 {
            // Woken, or not asleep at all: look again.
            let _ = futex::wait(from, futex::Flags::empty(), 0, None);
        }
    };
    let give = |to: &AtomicU32| {
        to.store(1, Ordering::SeqCst);
        futex::wake(to, futex::Flags::empty(), 1).expect("the word is there");
    };
    median::<CORES, _, _>(
        count,
        || (),
        |(), _| {
            give(&there);
            take(&back);
        },
        || (),
        |()| {
            take(&there);
            give(&back);
        },
    )
}
