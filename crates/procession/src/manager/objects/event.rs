//! `Event`.

use std::sync::Arc;

use crate::manager::ClientId;
use crate::manager::object::{Answer, Invocation, Outcome, Raised, Served};
use crate::manager::objects::monitor::{self, Monitor};
use crate::manager::objects::named;
use crate::pickle::Value;

struct Event(Monitor<State>);

#[derive(Default)]
struct State {
    is_set: bool,
    /// How often it was set: who waits is let go also if it is cleared at once.
    times: u64,
}

pub(super) fn make(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    call.bind(&[])?;
    Ok(Arc::new(Event(Monitor::default())))
}

impl Event {
    fn wait(&self, call: &mut Invocation<'_>) -> Answer {
        let timeout = monitor::duration(monitor::seconds(&mut call.bind(&["timeout"])?)?);
        let state = self.0.lock();
        let times = state.times;
        let is_ready = |state: &State| state.is_set || state.times != times;
        let (state, is_set) = self.0.wait_until(state, Some(call), timeout, is_ready)?;
        drop(state);
        Ok(Value::Bool(is_set).into())
    }
}

impl Served for Event {
    fn methods(&self) -> Vec<String> {
        named(&["is_set", "set", "clear", "wait"])
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        if call.method() == "wait" {
            return self.wait(call);
        }
        call.bind(&[])?;
        let mut state = self.0.lock();
        match call.method() {
            "is_set" => return Ok(Value::Bool(state.is_set).into()),
            "set" => {
                *state = State { is_set: true, times: state.times + 1 };
                self.0.notify_all();
            }
            "clear" => state.is_set = false,
            _ => return Err(call.unknown_method()),
        }
        Ok(Outcome::none())
    }

    fn text(&self) -> String {
        let state = if self.0.lock().is_set { "set" } else { "unset" };
        format!("<Event: {state}>")
    }

    fn client_gone(&self, _client: ClientId, _killed: bool) {
        drop(self.0.lock());
        self.0.notify_all();
    }
}
