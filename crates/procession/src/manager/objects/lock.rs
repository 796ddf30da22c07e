//! `Lock` and `RLock`.

use std::sync::Arc;
use std::time::Duration;

use crate::manager::ClientId;
use crate::manager::object::{Answer, Caller, Invocation, Outcome, Raised, Served};
use crate::manager::objects::monitor::{self, Monitor};
use crate::manager::objects::named;
use crate::pickle::Value;

/// A lock. Its owner is a thread of a client.
///
/// When a client is killed that has it, it is let go of. A client that ends as it should may have
/// left a `Lock` to somebody else; an `RLock`, which nobody else can release, is let go of.
pub(super) struct Lock {
    state: Monitor<State>,
    /// Whether the owner can take it several times, and only the owner can release it.
    is_reentrant: bool,
}

#[derive(Default)]
struct State {
    owner: Option<Caller>,
    /// How often the owner has taken it.
    count: u64,
}

pub(super) fn make_lock(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    call.bind(&[])?;
    Ok(Arc::new(Lock::new(false)))
}

pub(super) fn make_rlock(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    call.bind(&[])?;
    Ok(Arc::new(Lock::new(true)))
}

impl Lock {
    pub(super) fn new(is_reentrant: bool) -> Self {
        Self { state: Monitor::default(), is_reentrant }
    }

    /// Takes the lock, once more if it is this thread's; false if the time is over before that.
    fn acquire(&self, call: &Invocation<'_>, timeout: Option<Duration>) -> Result<bool, Raised> {
        let mut state = self.state.lock();
        if self.is_reentrant && state.owner == Some(call.caller()) {
            state.count += 1;
            return Ok(true);
        }
        let is_free = |state: &State| state.owner.is_none();
        let (mut state, taken) = self.state.wait_until(state, Some(call), timeout, is_free)?;
        if taken {
            *state = State { owner: Some(call.caller()), count: 1 };
        }
        Ok(taken)
    }

    fn release(&self, call: &Invocation<'_>) -> Result<(), Raised> {
        let mut state = self.state.lock();
        if self.is_reentrant && state.owner != Some(call.caller()) {
            return Err(Raised::runtime_error("cannot release un-acquired lock"));
        }
        if state.owner.is_none() {
            return Err(Raised::runtime_error("release unlocked lock"));
        }
        state.count -= 1;
        if state.count == 0 {
            state.owner = None;
            self.state.notify(1);
        }
        Ok(())
    }

    /// Whether the caller has it; of a lock that anybody may release, whether anybody has it.
    pub(super) fn is_held(&self, call: &Invocation<'_>) -> bool {
        let owner = self.state.lock().owner;
        if self.is_reentrant { owner == Some(call.caller()) } else { owner.is_some() }
    }

    /// Lets go of it wholly, and returns how often it was taken.
    pub(super) fn release_all(&self) -> u64 {
        let count = std::mem::take(&mut *self.state.lock()).count;
        self.state.notify(1);
        count
    }

    /// Takes it as often as before [`release_all`](Self::release_all).
    pub(super) fn restore(&self, call: &Invocation<'_>, count: u64) -> Result<(), Raised> {
        self.acquire(call, None)?;
        self.state.lock().count = count;
        Ok(())
    }

    /// The methods that it has in common with a condition.
    pub(super) fn call_common(&self, call: &mut Invocation<'_>) -> Answer {
        match call.method() {
            "acquire" => {
                let timeout = timeout(call)?;
                let taken = self.acquire(call, timeout)?;
                Ok(Value::Bool(taken).into())
            }
            "release" => {
                call.bind(&[])?;
                self.release(call)?;
                Ok(Outcome::none())
            }
            "locked" => {
                call.bind(&[])?;
                Ok(Value::Bool(self.state.lock().owner.is_some()).into())
            }
            _ => Err(call.unknown_method()),
        }
    }
}

/// How long to wait for a lock; `None` for as long as it takes.
fn timeout(call: &mut Invocation<'_>) -> Result<Option<Duration>, Raised> {
    let mut arguments = call.bind(&["blocking", "timeout"])?;
    let blocking = monitor::flag(&mut arguments, true)?;
    let seconds = monitor::seconds(&mut arguments)?.filter(|seconds| *seconds != -1.0);
    match seconds {
        Some(_) if !blocking => {
            Err(Raised::value_error("can't specify a timeout for a non-blocking call"))
        }
        None if !blocking => Ok(Some(Duration::ZERO)),
        Some(seconds) if seconds < 0.0 => {
            Err(Raised::value_error("timeout value must be a non-negative number"))
        }
        seconds => Ok(monitor::duration(seconds)),
    }
}

impl Served for Lock {
    fn methods(&self) -> Vec<String> {
        named(&["acquire", "release", "locked"])
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        self.call_common(call)
    }

    fn text(&self) -> String {
        let name = if self.is_reentrant { "RLock" } else { "Lock" };
        let state = if self.state.lock().owner.is_some() { "locked" } else { "unlocked" };
        format!("<{state} {name}>")
    }

    fn client_gone(&self, client: ClientId, killed: bool) {
        let mut state = self.state.lock();
        let is_owner = state.owner.is_some_and(|owner| owner.0 == client);
        if is_owner && (killed || self.is_reentrant) {
            *state = State::default();
        }
        drop(state);
        self.state.notify_all();
    }
}
