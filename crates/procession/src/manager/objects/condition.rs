//! `Condition`.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::manager::ClientId;
use crate::manager::object::{Answer, Invocation, Outcome, Raised, Served};
use crate::manager::objects::lock::Lock;
use crate::manager::objects::monitor::{self, Monitor};
use crate::manager::objects::named;
use crate::pickle::Value;

/// A condition with a lock: one of its own, or one of the manager's.
///
/// A notification is for a client that lives: those that died while they waited are not counted.
struct Condition {
    lock: Arc<dyn Served>,
    waiters: Mutex<VecDeque<Arc<Waiter>>>,
}

/// A call that waits for a notification.
struct Waiter {
    client: ClientId,
    state: Monitor<Waiting>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Still,
    Notified,
    /// The client is gone.
    Abandoned,
}

pub(super) fn make(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    let lock: Option<Value> = call.bind(&["lock"])?.next_if_given()?;
    let lock = match lock.filter(|lock| *lock != Value::None) {
        None => Arc::new(Lock::new(true)),
        Some(proxy) => {
            let entry = call.host().object_of_proxy(&proxy);
            let lock = entry.map(|entry| entry.object.clone()).filter(|lock| is_lock(&**lock));
            let text = "the lock of a Condition is a Lock or RLock of the same manager";
            lock.ok_or_else(|| Raised::type_error(text))?
        }
    };
    Ok(Arc::new(Condition { lock, waiters: Mutex::default() }))
}

fn is_lock(object: &dyn Served) -> bool {
    (object as &dyn Any).is::<Lock>()
}

impl Condition {
    fn lock(&self) -> &Lock {
        let lock: &dyn Any = &*self.lock;
        lock.downcast_ref().expect("no condition is made with anything else")
    }

    fn waiters(&self) -> MutexGuard<'_, VecDeque<Arc<Waiter>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, call: &mut Invocation<'_>) -> Answer {
        let timeout = monitor::duration(monitor::seconds(&mut call.bind(&["timeout"])?)?);
        if !self.lock().is_held(call) {
            return Err(Raised::runtime_error("cannot wait on un-acquired lock"));
        }
        let waiter =
            Arc::new(Waiter { client: call.client(), state: Monitor::new(Waiting::Still) });
        self.waiters().push_back(waiter.clone());
        let count = self.lock().release_all();
        let state = waiter.state.lock();
        let waited =
            waiter.state.wait_until(state, Some(call), timeout, |state| *state != Waiting::Still);
        // Whoever takes it out decides: a notification that comes from here on is for another one.
        let was_notified = !self.take_out(&waiter) && {
            drop(waited.map(|(state, _)| drop(state)));
            *waiter.state.lock() == Waiting::Notified
        };
        if !call.is_connected() {
            if was_notified {
                self.wake(1);
            }
            return Err(Raised::gone());
        }
        self.lock().restore(call, count)?;
        Ok(Value::Bool(was_notified).into())
    }

    fn take_out(&self, waiter: &Arc<Waiter>) -> bool {
        let mut waiters = self.waiters();
        let found = waiters.iter().position(|other| Arc::ptr_eq(other, waiter));
        found.and_then(|at| waiters.remove(at)).is_some()
    }

    fn wake(&self, count: usize) {
        for _ in 0..count {
            let Some(waiter) = self.waiters().pop_front() else { return };
            waiter.tell(Waiting::Notified);
        }
    }

    fn notify(&self, call: &mut Invocation<'_>) -> Answer {
        let count = match call.method() {
            "notify" => call.bind(&["n"])?.next_if_given::<i64>()?.unwrap_or(1),
            _ => {
                call.bind(&[])?;
                i64::MAX
            }
        };
        if !self.lock().is_held(call) {
            return Err(Raised::runtime_error("cannot notify on un-acquired lock"));
        }
        let count = usize::try_from(count).unwrap_or(0).min(self.waiters().len());
        self.wake(count);
        Ok(Outcome::none())
    }
}

impl Waiter {
    fn tell(&self, state: Waiting) {
        *self.state.lock() = state;
        self.state.notify_all();
    }
}

impl Served for Condition {
    fn methods(&self) -> Vec<String> {
        named(&["acquire", "release", "locked", "wait", "notify", "notify_all"])
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        match call.method() {
            "wait" => self.wait(call),
            "notify" | "notify_all" => self.notify(call),
            _ => self.lock().call_common(call),
        }
    }

    fn text(&self) -> String {
        format!("<Condition({}, {})>", self.lock.text(), self.waiters().len())
    }

    fn client_gone(&self, client: ClientId, killed: bool) {
        self.lock.client_gone(client, killed);
        let gone: Vec<_> = {
            let mut waiters = self.waiters();
            let gone = waiters.iter().filter(|waiter| waiter.client == client).cloned().collect();
            waiters.retain(|waiter| waiter.client != client);
            gone
        };
        gone.iter().for_each(|waiter| waiter.tell(Waiting::Abandoned));
    }
}
