//! `Semaphore` and `BoundedSemaphore`.

use std::sync::Arc;
use std::time::Duration;

use crate::manager::ClientId;
use crate::manager::object::{Answer, Invocation, Outcome, Raised, Served};
use crate::manager::objects::monitor::{self, Monitor};
use crate::manager::objects::named;
use crate::pickle::Value;

/// A number of permits. They have no owner, so a death gives none back.
struct Semaphore {
    permits: Monitor<u64>,
    /// How many there may be at most.
    bound: Option<u64>,
}

fn permits(call: &mut Invocation<'_>) -> Result<u64, Raised> {
    let value: Option<i64> = call.bind(&["value"])?.next_if_given()?;
    let text = "semaphore initial value must be >= 0";
    u64::try_from(value.unwrap_or(1)).map_err(|_| Raised::value_error(text))
}

pub(super) fn make(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    Ok(Arc::new(Semaphore { permits: Monitor::new(permits(call)?), bound: None }))
}

pub(super) fn make_bounded(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    let permits = permits(call)?;
    Ok(Arc::new(Semaphore { permits: Monitor::new(permits), bound: Some(permits) }))
}

impl Semaphore {
    fn acquire(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(&["blocking", "timeout"])?;
        let blocking = monitor::flag(&mut arguments, true)?;
        let timeout = monitor::seconds(&mut arguments)?;
        if !blocking && timeout.is_some() {
            let text = "can't specify timeout for non-blocking acquire";
            return Err(Raised::value_error(text));
        }
        let timeout = if blocking { monitor::duration(timeout) } else { Some(Duration::ZERO) };
        let permits = self.permits.lock();
        let (mut permits, taken) =
            self.permits.wait_until(permits, Some(call), timeout, |permits| *permits > 0)?;
        if taken {
            *permits -= 1;
        }
        Ok(Value::Bool(taken).into())
    }

    fn release(&self, call: &mut Invocation<'_>) -> Answer {
        let count: Option<i64> = call.bind(&["n"])?.next_if_given()?;
        let count = u64::try_from(count.unwrap_or(1)).ok().filter(|count| *count > 0);
        let count = count.ok_or_else(|| Raised::value_error("n must be one or more"))?;
        let mut permits = self.permits.lock();
        let after = permits.saturating_add(count);
        if self.bound.is_some_and(|bound| after > bound) {
            return Err(Raised::value_error("Semaphore released too many times"));
        }
        *permits = after;
        drop(permits);
        self.permits.notify(usize::try_from(count).unwrap_or(usize::MAX));
        Ok(Outcome::none())
    }
}

impl Served for Semaphore {
    fn methods(&self) -> Vec<String> {
        named(&["acquire", "release", "locked"])
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        match call.method() {
            "acquire" => self.acquire(call),
            "release" => self.release(call),
            "locked" => {
                call.bind(&[])?;
                Ok(Value::Bool(*self.permits.lock() == 0).into())
            }
            _ => Err(call.unknown_method()),
        }
    }

    fn text(&self) -> String {
        let name = if self.bound.is_some() { "BoundedSemaphore" } else { "Semaphore" };
        format!("<{name}: value={}>", *self.permits.lock())
    }

    fn client_gone(&self, _client: ClientId, _killed: bool) {
        drop(self.permits.lock());
        self.permits.notify_all();
    }
}
