//! Who sleeps for the results when several threads of the owner wait.
//!
//! One of them *leads*: it sleeps on the transport and takes in what arrives, for all. The others
//! *follow*: they sleep here, in ordinary memory, until the leader has brought what they wait for or
//! has left, in which case one of them leads.
//!
//! # Why nobody is left behind
//!
//! - A leader that leaves frees the place and then wakes a follower; a follower counts itself in and
//!   then looks at the place. A follower that was woken and leaves without leading wakes the next.
//! - A leader that waits for many results tells the transport not to wake it for fewer, and then
//!   looks for followers; a follower counts itself in and then tells the transport to wake the leader
//!   for each. All four are sequentially consistent, so the last word is the follower's.

use std::time::Instant;

use crate::error::WaitError;
use crate::primitive::{AtomicU32, Ordering};
use crate::sync::event_count::EventCount;
use crate::sync::spin::SpinBudget;

/// The place of the leader, and the threads that follow.
#[derive(Debug)]
pub(super) struct Turn {
    led: AtomicU32,
    followers: AtomicU32,
    sleep: EventCount,
    spin: SpinBudget,
}

impl Turn {
    pub(super) fn new() -> Self {
        Self {
            led: AtomicU32::new(0),
            followers: AtomicU32::new(0),
            sleep: EventCount::new(),
            spin: SpinBudget::new(),
        }
    }

    /// Takes the place of the leader, if it is free.
    pub(super) fn try_lead(&self) -> Option<Lead<'_>> {
        let free = self.led.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        free.then(|| Lead(self))
    }

    pub(super) fn follow(&self) -> Follow<'_> {
        self.followers.fetch_add(1, Ordering::SeqCst);
        Follow(self)
    }

    pub(super) fn has_followers(&self) -> bool {
        self.followers.load(Ordering::SeqCst) != 0
    }

    /// Lets all followers look whether they have what they wait for.
    pub(super) fn wake_followers(&self) {
        self.sleep.notify(u32::MAX);
    }

    fn is_free(&self) -> bool {
        self.led.load(Ordering::SeqCst) == 0
    }

    fn pass_on(&self) {
        if self.is_free() && self.has_followers() {
            self.sleep.notify(1);
        }
    }
}

/// This thread leads until it drops this.
#[derive(Debug)]
pub(super) struct Lead<'a>(&'a Turn);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.led.store(0, Ordering::SeqCst);
        self.0.pass_on();
    }
}

/// This thread follows until it drops this.
#[derive(Debug)]
pub(super) struct Follow<'a>(&'a Turn);

impl Follow<'_> {
    /// Blocks until `look` gives a value, or nobody leads: then it returns `None`.
    pub(super) fn sleep<R>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> Option<R>,
    ) -> Result<Option<R>, WaitError> {
        let ready = || match look() {
            Some(value) => Some(Some(value)),
            None => self.0.is_free().then_some(None),
        };
        self.0.sleep.wait_until(&self.0.spin, deadline, ready)
    }
}

impl Drop for Follow<'_> {
    fn drop(&mut self) {
        self.0.followers.fetch_sub(1, Ordering::SeqCst);
        self.0.pass_on();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Only a deadlock takes this long.
    const DEADLOCK: Duration = Duration::from_secs(30);

    #[test]
    fn only_one_leads() {
        let turn = Turn::new();
        let lead = turn.try_lead().unwrap();
        assert!(turn.try_lead().is_none());
        assert!(turn.try_lead().is_none(), "the first look must not have freed the place");
        drop(lead);
        assert!(turn.try_lead().is_some());
    }

    #[test]
    fn followers_lead_one_after_the_other_when_the_leader_leaves() {
        let turn = Arc::new(Turn::new());
        let lead = turn.try_lead().unwrap();
        let followers = [(); 4].map(|()| {
            let turn = Arc::clone(&turn);
            thread::spawn(move || {
                loop {
                    if turn.try_lead().is_some() {
                        return;
                    }
                    let deadline = Some(Instant::now() + DEADLOCK);
                    turn.follow()
                        .sleep(deadline, || None::<()>)
                        .expect("nobody woke this follower");
                }
            })
        });
        drop(lead);
        for follower in followers {
            follower.join().unwrap();
        }
        assert!(!turn.has_followers());
    }

    #[test]
    fn follower_gets_what_it_waits_for_while_another_leads() {
        let turn = Arc::new(Turn::new());
        let word = Arc::new(AtomicU32::new(0));
        let _lead = turn.try_lead().unwrap();
        let follower = {
            let (turn, word) = (Arc::clone(&turn), Arc::clone(&word));
            thread::spawn(move || {
                let deadline = Some(Instant::now() + DEADLOCK);
                turn.follow().sleep(deadline, || (word.load(Ordering::SeqCst) == 1).then_some(7))
            })
        };
        word.store(1, Ordering::SeqCst);
        turn.wake_followers();
        assert_eq!(follower.join().unwrap(), Ok(Some(7)));
    }
}
