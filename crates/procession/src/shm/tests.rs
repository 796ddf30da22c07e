//! The arena between real processes, which are killed at random moments.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::primitive::{AtomicU64, Ordering};
use crate::shm::arena::Arena;
use crate::shm::memory::ShmSafe;
use crate::shm::parcel;
use crate::shm::shared::Shared;
use crate::shm::word::{Handle, Member, Owner};
use crate::sys::process::{self, Fork};

/// Runs the calling test in a process of its own, and says whether that has been done: a test that
/// counts what is in the arena must be alone with it, and most tests of this crate use it.
pub(crate) fn done_apart() -> bool {
    const APART: &str = "PROCESSION_TEST_APART";
    let thread = std::thread::current();
    // The harness names the thread of a test after it.
    let test = thread.name().unwrap_or_default();
    if test == "main" || std::env::var_os(APART).is_some() {
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let status =
        Command::new(program).args(["--exact", test, "--test-threads=1"]).env(APART, "").status();
    assert!(status.unwrap().success(), "{test} failed in a process of its own; see above");
    true
}

#[derive(Debug)]
#[repr(C)]
struct Counter {
    value: AtomicU64,
    other: AtomicU64,
}

// SAFETY: two atomic words, in `repr(C)`.
unsafe impl ShmSafe for Counter {
    const TAG: u32 = u32::from_le_bytes(*b"test");
}

/// A child process and its place in the tree.
pub(crate) struct Child {
    pid: u32,
    member: Member,
}

impl Child {
    /// Forks a child that holds what this process holds, runs `work` and exits.
    pub(crate) fn fork(work: impl FnOnce(&Arena)) -> Self {
        let arena = Arena::current().unwrap();
        let member = arena.reserve_member().unwrap();
        arena.copy_references_to(member).unwrap();
        // SAFETY: the child uses atomics, the allocator, which glibc makes usable after a fork,
        // and ends without running anything of the parent's.
        match unsafe { process::fork() }.unwrap() {
            Fork::Child => {
                assert!(arena.become_member(member));
                work(arena);
                process::exit_now(0);
            }
            Fork::Parent { pid } => {
                arena.set_pid(member, pid);
                Self { pid, member }
            }
        }
    }

    /// Waits for the child and buries it.
    pub(crate) fn wait(self) {
        let pidfd = process::pidfd_open(self.pid).unwrap();
        process::wait_pidfd(std::os::fd::AsFd::as_fd(&pidfd), true).unwrap();
        Arena::current().unwrap().bury(self.member);
    }

    pub(crate) fn kill(self) {
        let pidfd = process::pidfd_open(self.pid).unwrap();
        process::pidfd_send_signal(std::os::fd::AsFd::as_fd(&pidfd), 9).unwrap();
        self.wait();
    }
}

/// A small generator, so that a failing run can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Panics unless the tables of the arena agree with themselves.
fn check(arena: &Arena) {
    let runs = arena.runs();
    let mut end = arena.layout.first_unit;
    for run in runs.iter() {
        assert_eq!(run.first, end, "the runs leave no gap");
        assert!(run.len > 0);
        end += run.len;
    }
    assert_eq!(end as u64, runs.top.load(Ordering::SeqCst));
    arena.for_each_block(|place, handle, state| {
        assert_eq!(arena.place(handle).unwrap().offset, place.offset, "{state:?}");
    });
}

#[test]
fn freed_handle_is_stale() {
    if done_apart() {
        return;
    }
    let arena = Arena::current().unwrap();
    for len in [1, 64, 5000, 32_704, 32_705, 1 << 20] {
        let block = arena.alloc(len, Owner::Member(arena.me())).unwrap();
        assert!(arena.capacity(block).unwrap() >= len);
        arena.free(block);
        assert!(arena.capacity(block).is_err());
        arena.free(block); // does nothing
    }
    assert!(arena.capacity(Handle::NONE).is_err());
    assert!(arena.capacity(Handle::from_raw(u64::MAX)).is_err());
}

#[test]
fn blocks_do_not_overlap() {
    if done_apart() {
        return;
    }
    let arena = Arena::current().unwrap();
    let mut random = Random(7);
    let mut live: Vec<(Handle, usize, u8)> = Vec::new();
    for step in 0..5000u32 {
        if random.next(3) > 0 || live.is_empty() {
            let bits = random.next(18);
            let size = 1 + random.next(1 << bits) as usize;
            let block = arena.alloc(size, Owner::Member(arena.me())).unwrap();
            arena.write_at(arena.offset_of(block).unwrap(), &vec![step as u8; size]);
            live.push((block, size, step as u8));
        } else {
            let (block, size, fill) = live.swap_remove(random.next(live.len() as u64) as usize);
            let at = arena.offset_of(block).unwrap();
            assert!(arena.bytes_at(at, size).iter().all(|byte| *byte == fill));
            arena.free(block);
        }
    }
    check(arena);
    live.into_iter().for_each(|(block, ..)| arena.free(block));
}

#[test]
fn block_over_the_limit_is_refused_and_memory_is_given_back() {
    let arena = Arena::create(64 << 20).unwrap();
    let me = Owner::Member(arena.me());
    let big = arena.alloc(40 << 20, me).unwrap();
    arena.write_at(arena.offset_of(big).unwrap(), &vec![1; 40 << 20]);
    let error = arena.alloc(40 << 20, me).unwrap_err();
    assert!(error.to_string().contains("PROCESSION_ARENA_MAX"), "{error}");
    assert!(arena.stats().resident >= 40 << 20);
    arena.free(big);
    let again = arena.alloc(60 << 20, me).unwrap();
    arena.free(again);
    arena.trim();
    assert!(arena.stats().resident < 4 << 20, "{:?}", arena.stats());
}

#[test]
fn object_goes_with_its_last_reference_and_takes_its_blocks_along() {
    if done_apart() {
        return;
    }
    let arena = Arena::current().unwrap();
    let before = arena.stats().blocks;
    let counter = Shared::<Counter>::new(|_| {}).unwrap();
    let parts: Vec<_> =
        (0..10).map(|_| arena.alloc(100, Owner::Block(counter.handle())).unwrap()).collect();
    let second = Shared::<Counter>::open(counter.handle()).unwrap();
    counter.value.store(5, Ordering::SeqCst);
    assert_eq!(second.value.load(Ordering::SeqCst), 5);
    let handle = counter.handle();
    drop(counter);
    assert!(arena.capacity(parts[9]).is_ok());
    drop(second);
    assert!(arena.capacity(handle).is_err());
    assert!(parts.iter().all(|part| arena.capacity(*part).is_err()));
    // The first reference of all makes the ledger.
    assert!(arena.stats().blocks <= before + 1);
}

#[test]
fn parcel_keeps_an_object_alive_until_it_is_freed() {
    if done_apart() {
        return;
    }
    let arena = Arena::current().unwrap();
    let counter = Shared::<Counter>::new(|_| {}).unwrap();
    let handle = counter.handle();
    assert!(counter.pack().is_err(), "not outside of pack");
    let ((), pins) = parcel::pack(|| assert!(counter.pack().is_ok()));
    let block = arena.store_parcel(&[b"by", b"tes"], &pins, Owner::Member(arena.me())).unwrap();
    drop((counter, pins));
    assert_eq!(arena.parcel_bytes(block).unwrap(), b"bytes");
    drop(Shared::<Counter>::open(handle).unwrap());
    assert!(arena.capacity(handle).is_ok(), "the parcel holds it");
    arena.free(block);
    assert!(arena.capacity(handle).is_err());
}

#[test]
fn forked_child_holds_what_its_parent_held() {
    if done_apart() {
        return;
    }
    let arena = Arena::current().unwrap();
    let counter = Shared::<Counter>::new(|_| {}).unwrap();
    let seen = Shared::<Counter>::new(|_| {}).unwrap();
    let child = Child::fork(|_| {
        while counter.other.load(Ordering::SeqCst) == 0 {
            std::hint::spin_loop();
        }
        seen.value.store(counter.value.load(Ordering::SeqCst), Ordering::SeqCst);
    });
    let handle = counter.handle();
    counter.value.store(9, Ordering::SeqCst);
    counter.other.store(1, Ordering::SeqCst);
    drop(counter);
    child.wait();
    assert_eq!(seen.value.load(Ordering::SeqCst), 9);
    assert!(arena.capacity(handle).is_err(), "the child's reference went with it");
}

#[test]
fn dead_owner_of_a_lock_is_recognised() {
    if done_apart() {
        return;
    }
    let arena = Arena::current().unwrap();
    let child = Child::fork(|_| {
        loop {
            std::thread::park();
        }
    });
    let member = child.member;
    assert!(arena.is_alive(member));
    child.kill();
    assert!(!arena.is_alive(member));
}

/// What a child of the storm does until it is killed.
fn churn(arena: &Arena, common: Handle, seed: u64) -> ! {
    // So that who starts and kills does not wait for its turn behind those that are to be killed.
    rustix::process::nice(5).unwrap();
    let mut random = Random(seed | 1);
    let mut blocks = Vec::new();
    let mut objects: Vec<Shared<Counter>> = Vec::new();
    let me = Owner::Member(arena.me());
    loop {
        match random.next(8) {
            0..3 => blocks.extend(arena.alloc(random.next(300) as usize, me)),
            3 => blocks.extend(arena.alloc(random.next(300_000) as usize, me)),
            4 => {
                let object = Shared::<Counter>::new(|_| {}).unwrap();
                let part = arena.alloc(200, Owner::Block(object.handle())).unwrap();
                arena.give(part, Owner::Block(object.handle())).unwrap();
                objects.push(object);
            }
            5 => {
                let held = Shared::<Counter>::open(common).unwrap();
                let ((), pins) = parcel::pack(|| {
                    assert!(held.pack().is_ok());
                    objects.iter().for_each(|object| assert!(object.pack().is_ok()));
                });
                blocks.extend(arena.store_parcel(&[&[7; 100]], &pins, me));
            }
            6 => objects.clear(),
            _ => blocks.drain(..).for_each(|block| arena.free(block)),
        }
    }
}

#[test]
fn nothing_is_lost_or_damaged_when_processes_are_killed() {
    if done_apart() {
        return;
    }
    let rounds = std::env::var("PROCESSION_STORM").map_or(2000, |text| text.parse().unwrap());
    let arena = Arena::current().unwrap();
    let common = Shared::<Counter>::new(|_| {}).unwrap();
    let before = arena.stats();
    let mut random = Random(42);
    let mut children = std::collections::VecDeque::new();
    for round in 0..rounds {
        let (handle, seed) = (common.handle(), random.next(u64::MAX));
        children.push_back(Child::fork(|arena| churn(arena, handle, seed)));
        let until = Instant::now() + Duration::from_micros(random.next(1500));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        if children.len() == 3 {
            children.pop_front().into_iter().for_each(Child::kill);
        }
        if round % 100 == 0 {
            let block = arena.alloc(1 << 20, Owner::Member(arena.me())).unwrap();
            arena.free(block);
        }
    }
    children.into_iter().for_each(Child::kill);
    arena.bury_orphans();
    check(arena);
    let after = arena.stats();
    assert_eq!((after.blocks, after.members), (before.blocks, before.members), "{after:?}");
    let handle = common.handle();
    drop(common);
    assert!(arena.capacity(handle).is_err(), "no killed process still counts as a holder");
    arena.trim();
    let spans = (arena.runs().used() as u64) << 16;
    assert!(arena.stats().resident <= spans / 4 + (8 << 20), "{:?}", arena.stats());
}
