//! `Barrier`.

use std::sync::Arc;

use crate::manager::ClientId;
use crate::manager::object::{Answer, Invocation, Outcome, Raised, Served};
use crate::manager::objects::monitor::{self, Monitor};
use crate::manager::objects::named;
use crate::pickle::Value;

/// Holds clients up until so many have come. It breaks when one of them dies or waits for too
/// long, and stays so until it is reset.
struct Barrier {
    parties: u64,
    /// Seconds to wait where a call says nothing.
    timeout: Option<f64>,
    state: Monitor<State>,
}

#[derive(Default)]
struct State {
    /// Those that wait.
    waiting: Vec<ClientId>,
    /// How often all have come, or it was reset.
    round: u64,
    /// The last round that ended because it was reset or broken, if there was one.
    broken_round: Option<u64>,
    is_broken: bool,
}

pub(super) fn make(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    let mut arguments = call.bind(&["parties", "action", "timeout"])?;
    let parties: i64 = arguments.next()?;
    let action: Option<Value> = arguments.next_if_given()?;
    if action.is_some_and(|action| action != Value::None) {
        let text = "a manager in Rust cannot call the action of a Barrier";
        return Err(Raised::type_error(text));
    }
    let timeout = monitor::seconds(&mut arguments)?;
    let parties = u64::try_from(parties).ok().filter(|parties| *parties > 0);
    let parties = parties.ok_or_else(|| Raised::value_error("parties must be > 0"))?;
    Ok(Arc::new(Barrier { parties, timeout, state: Monitor::default() }))
}

fn broken() -> Raised {
    Raised::new("threading", "BrokenBarrierError", Vec::new())
}

impl State {
    /// Lets those that wait go, with an error.
    fn end_round(&mut self) {
        self.broken_round = Some(self.round);
        self.round += 1;
        self.waiting.clear();
    }

    fn break_it(&mut self) {
        self.end_round();
        self.is_broken = true;
    }
}

impl Barrier {
    fn wait(&self, call: &mut Invocation<'_>) -> Answer {
        let timeout = monitor::seconds(&mut call.bind(&["timeout"])?)?.or(self.timeout);
        let mut state = self.state.lock();
        if state.is_broken {
            return Err(broken());
        }
        // One that is gone is not one of those that have come.
        if !call.is_connected() {
            return Err(Raised::gone());
        }
        let index = state.waiting.len() as u64;
        if index + 1 == self.parties {
            state.round += 1;
            state.waiting.clear();
            self.state.notify_all();
            return Ok(Value::Int(index as i64).into());
        }
        let round = state.round;
        state.waiting.push(call.client());
        let is_over = |state: &State| state.round != round;
        let timeout = monitor::duration(timeout);
        let (mut state, has_ended) = self.state.wait_until(state, Some(call), timeout, is_over)?;
        if !has_ended {
            state.break_it();
            self.state.notify_all();
        }
        if !has_ended || state.broken_round == Some(round) {
            return Err(broken());
        }
        Ok(Value::Int(index as i64).into())
    }

    fn attribute(&self, call: &mut Invocation<'_>) -> Answer {
        let name: String = call.bind(&["name"])?.next()?;
        let state = self.state.lock();
        Ok(match name.as_str() {
            "parties" => Outcome::of(&self.parties)?,
            "n_waiting" => Outcome::of(&state.waiting.len())?,
            "broken" => Outcome::of(&state.is_broken)?,
            _ => {
                let text = format!("'Barrier' object has no attribute '{name}'");
                return Err(Raised::builtin("AttributeError", text));
            }
        })
    }
}

impl Served for Barrier {
    fn methods(&self) -> Vec<String> {
        named(&["__getattribute__", "wait", "abort", "reset"])
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        match call.method() {
            "wait" => return self.wait(call),
            "__getattribute__" => return self.attribute(call),
            _ => {}
        }
        call.bind(&[])?;
        let mut state = self.state.lock();
        match call.method() {
            "abort" => state.break_it(),
            "reset" => {
                state.end_round();
                state.is_broken = false;
            }
            _ => return Err(call.unknown_method()),
        }
        self.state.notify_all();
        Ok(Outcome::none())
    }

    fn text(&self) -> String {
        let state = self.state.lock();
        if state.is_broken {
            return "<Barrier: broken>".to_owned();
        }
        format!("<Barrier: waiters={}/{}>", state.waiting.len(), self.parties)
    }

    fn client_gone(&self, client: ClientId, _killed: bool) {
        let mut state = self.state.lock();
        if state.waiting.contains(&client) {
            state.break_it();
        }
        drop(state);
        self.state.notify_all();
    }
}
