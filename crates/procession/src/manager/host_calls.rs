//! What requests to a manager mean.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::channel::connection::Address;
use crate::manager::host_table::{Entry, Table, number_of};
use crate::manager::host_threads::Threads;
use crate::manager::object::{
    Arguments, Caller, Invocation, Outcome, Problem, Raised, Served, Token,
};
use crate::manager::registry::{Kind, Registry};
use crate::manager::{After, Call, ClientId, Handler, Properly, Server, Worker};
use crate::pickle::Value;
use crate::process::panics;

/// Numbers of objects have so many bits, and begin anywhere: one that was meant for another
/// manager is not taken for one of this.
const NUMBER_BITS: u32 = 48;

/// What the threads of a manager share: its objects, and what can be made.
pub(super) struct Host {
    server: Server,
    registry: Registry,
    table: Mutex<Table>,
    /// The number of the next object.
    next: AtomicU64,
    /// Numbers of those that there are always, by name.
    existing: HashMap<String, u64>,
    /// What a reply to a thread of a client refers to, until the thread's next request.
    lent: Mutex<HashMap<Caller, Vec<Arc<Entry>>>>,
    pub(super) threads: Threads,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// A reply that is to be written.
enum Message {
    Return(Value),
    Proxy(Arc<Entry>),
    Error(Value),
    /// Why there is no value, in words.
    Refused(String),
}

impl Message {
    fn of(result: Result<Value, Raised>) -> Self {
        match result {
            Ok(value) => Self::Return(value),
            Err(raised) => match raised.into_problem() {
                Problem::Exception(exception) => Self::Error(exception),
                Problem::Refused(text) => Self::Refused(text),
                Problem::Gone => Self::Refused("the client is gone".to_owned()),
            },
        }
    }

    /// A function of the server has no exceptions, only words.
    fn of_function(result: Result<Value, Raised>) -> Self {
        result.map_or_else(|raised| Self::Refused(raised.to_string()), Self::Return)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    pub(super) fn new(server: Server, registry: Registry, seed: u64) -> Self {
        let mut host = Self {
            server,
            registry,
            table: Mutex::default(),
            next: AtomicU64::new((seed >> (u64::BITS - NUMBER_BITS)).max(1)),
            existing: HashMap::new(),
            lent: Mutex::default(),
            threads: Threads::default(),
        };
        for (name, object) in host.registry.existing() {
            let entry = host.entry(name, object.clone(), false);
            host.existing.insert(name.clone(), entry.number);
            lock(&host.table).keep(entry);
        }
        host
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    fn entry(&self, kind: &str, object: Arc<dyn Served>, is_builtin: bool) -> Arc<Entry> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let methods = object.methods();
        Arc::new(Entry { number, kind: kind.to_owned(), object, methods, is_builtin })
    }

    fn find(&self, ident: &Value) -> Result<Arc<Entry>, Raised> {
        let number = match ident {
            Value::Str(ident) => number_of(ident),
            _ => None,
        };
        number
            .and_then(|number| lock(&self.table).find(number))
            .ok_or_else(|| Raised::refused(format!("KeyError: there is no object {ident:?}")))
    }

    /// The object of this manager for which a value is a proxy.
    pub(super) fn object_of_proxy(&self, value: &Value) -> Option<Arc<Entry>> {
        let token = Token::of_proxy(value)?;
        if !is_same_place(&token.address, &address_value(self.server.address())) {
            return None;
        }
        let number = number_of(&token.ident)?;
        lock(&self.table).find(number)
    }

    fn respond(&self, call: &Call<'_>, request: &[u8]) -> (Message, After) {
        let otherwise = if call.is_first() { After::Close } else { After::Serve };
        let request = match Value::from_pickle(request) {
            Ok(Value::Tuple(parts)) => <[Value; 4]>::try_from(parts).ok(),
            Ok(_) => None,
            Err(error) => return (Message::Refused(error.to_string()), otherwise),
        };
        let Some([ident, Value::Str(name), arguments, Value::Dict(keywords)]) = request else {
            let text = "a request is a tuple of an ident, a name, arguments and keywords";
            return (Message::Refused(text.to_owned()), otherwise);
        };
        let (Value::Tuple(positional) | Value::List(positional)) = arguments else {
            let text = "the arguments of a request are a tuple";
            return (Message::Refused(text.to_owned()), otherwise);
        };
        let arguments = Arguments { positional, keywords };
        if call.is_first() || (call.is_ours() && ident == Value::None) {
            return self.call_function(call, &name, arguments);
        }
        (self.call_method(call, &ident, &name, arguments), After::Serve)
    }

    fn call_method(
        &self,
        call: &Call<'_>,
        ident: &Value,
        name: &str,
        arguments: Arguments,
    ) -> Message {
        let caller = (call.client(), call.thread());
        // The client has what the reply before this one referred to, if it wants it.
        let lent = lock(&self.lent).remove(&caller);
        drop(lent);
        let entry = match self.find(ident) {
            Ok(entry) => entry,
            Err(raised) => return Message::of(Err(raised)),
        };
        if !entry.methods.iter().any(|method| method == name) {
            return self.call_fallback(&entry, name);
        }
        let mut invocation = Invocation::new(self, caller, name, arguments);
        let outcome =
            panics::catch(|| entry.object.call(&mut invocation)).unwrap_or_else(|report| {
                Err(Raised::runtime_error(format!("{}.{name} {report}", entry.kind)))
            });
        let lent = invocation.into_lent();
        if !lent.is_empty() {
            lock(&self.lent).insert(caller, lent);
        }
        match outcome {
            Ok(Outcome::Object { kind, object }) => match self.add(call, &kind, object, false) {
                Ok(entry) => Message::Proxy(entry),
                Err(raised) => Message::of(Err(raised)),
            },
            Ok(Outcome::Value(value)) => Message::Return(value),
            Err(raised) => Message::of(Err(raised)),
        }
    }

    /// What every object has, whatever its methods are.
    fn call_fallback(&self, entry: &Entry, name: &str) -> Message {
        if !entry.is_builtin {
            self.server.may_block();
        }
        let result = panics::catch(|| match name {
            "__str__" | "__repr__" => Ok(entry.object.text().into()),
            "#GETVALUE" => entry.object.value().ok_or_else(|| {
                Raised::refused(format!("TypeError: a {} has no value to copy", entry.kind))
            }),
            _ => {
                let (kind, methods) = (&entry.kind, entry.methods.join(", "));
                let text = format!("AttributeError: {kind} has no method {name:?}, but {methods}");
                Err(Raised::refused(text))
            }
        });
        Message::of(result.unwrap_or_else(|report| {
            Err(Raised::runtime_error(format!("{}.{name} {report}", entry.kind)))
        }))
    }

    /// Takes an object in, with one reference of the client.
    fn add(
        &self,
        call: &Call<'_>,
        kind: &str,
        object: Arc<dyn Served>,
        is_builtin: bool,
    ) -> Result<Arc<Entry>, Raised> {
        let entry = self.entry(kind, object, is_builtin);
        let mut table = lock(&self.table);
        if !self.server.refer(holder(call), entry.number) {
            return Err(Raised::gone());
        }
        table.insert(entry.clone());
        Ok(entry)
    }

    /// Calls a function of the server itself.
    fn call_function(&self, call: &Call<'_>, name: &str, arguments: Arguments) -> (Message, After) {
        let after = match name {
            "shutdown" => After::Stop,
            "accept_connection" => After::Serve,
            _ => After::Close,
        };
        if name == "create" {
            return (Message::of_function(self.create(call, arguments)), after);
        }
        let caller = (call.client(), call.thread());
        let mut invocation = Invocation::new(self, caller, name, arguments);
        let result = match name {
            "dummy" | "shutdown" => invocation.bind(&[]).map(|_| Value::None),
            "accept_connection" => invocation.bind(&["name"]).map(|_| Value::None),
            "number_of_objects" => invocation.bind(&[]).map(|_| {
                Value::Int(i64::try_from(self.server.all_references().len()).unwrap_or(i64::MAX))
            }),
            "debug_info" => invocation.bind(&[]).map(|_| self.debug_info().into()),
            "get_methods" => self.get_methods(&mut invocation),
            "incref" => self.ident(&mut invocation).and_then(|number| self.incref(call, number)),
            "decref" => self.ident(&mut invocation).and_then(|number| self.decref(call, number)),
            _ => Err(Raised::refused(format!("AssertionError: {name:?} unrecognized"))),
        };
        // What was refused changes nothing.
        let after = if result.is_err() { After::Close } else { after };
        (Message::of_function(result), after)
    }

    fn create(&self, call: &Call<'_>, mut arguments: Arguments) -> Result<Value, Raised> {
        let unknown = |name: &str| Raised::refused(format!("KeyError: {name:?} is not registered"));
        if arguments.positional.is_empty() {
            return Err(Raised::type_error("the name of a kind is missing"));
        }
        let Value::Str(name) = arguments.positional.remove(0) else {
            return Err(Raised::type_error("the name of a kind is no str"));
        };
        let (kind, is_builtin) = self.registry.find(&name).ok_or_else(|| unknown(&name))?;
        let entry = match kind {
            Kind::Existing(_) => self.refer_to_existing(call, &name, arguments)?,
            Kind::New(make) => {
                if !is_builtin {
                    self.server.may_block();
                }
                let caller = (call.client(), call.thread());
                let mut invocation = Invocation::new(self, caller, &name, arguments);
                let object = panics::catch(|| make(&mut invocation)).unwrap_or_else(|report| {
                    Err(Raised::runtime_error(format!("making a {name} {report}")))
                })?;
                self.add(call, &name, object, is_builtin)?
            }
        };
        Ok(Value::Tuple(vec![entry.ident().into(), exposed(&entry)]))
    }

    fn refer_to_existing(
        &self,
        call: &Call<'_>,
        name: &str,
        arguments: Arguments,
    ) -> Result<Arc<Entry>, Raised> {
        let caller = (call.client(), call.thread());
        Invocation::new(self, caller, name, arguments).bind(&[])?;
        let number = self.existing[name];
        let mut table = lock(&self.table);
        table.restore(number);
        if !self.server.refer(holder(call), number) {
            return Err(Raised::gone());
        }
        table.find(number).ok_or_else(Raised::gone)
    }

    fn ident(&self, invocation: &mut Invocation<'_>) -> Result<u64, Raised> {
        let ident: Value = invocation.bind(&["ident"])?.next()?;
        Ok(self.find(&ident)?.number)
    }

    fn get_methods(&self, invocation: &mut Invocation<'_>) -> Result<Value, Raised> {
        let token: Value = invocation.bind(&["token"])?.next()?;
        let token = Token::parse(&token).ok_or_else(|| Raised::type_error("that is no token"))?;
        Ok(exposed(&*self.find(&token.ident.into())?))
    }

    fn incref(&self, call: &Call<'_>, number: u64) -> Result<Value, Raised> {
        let mut table = lock(&self.table);
        if !self.server.refer_to_known(holder(call), number) {
            let restored = table.restore(number) && self.server.refer(holder(call), number);
            if !restored {
                return Err(Raised::refused("KeyError: the object is gone"));
            }
        }
        Ok(Value::None)
    }

    fn decref(&self, call: &Call<'_>, number: u64) -> Result<Value, Raised> {
        if self.server.give_up(holder(call), number, 1) {
            self.released(&[number]);
        }
        Ok(Value::None)
    }

    fn debug_info(&self) -> String {
        let mut references = self.server.all_references();
        references.sort_unstable();
        let lines = references.into_iter().filter_map(|(number, count)| {
            let entry = lock(&self.table).find(number)?;
            let text: String = entry.object.text().chars().take(75).collect();
            Some(format!("  {number:x}:       refcount={count}\n    {text}"))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn write(&self, message: Message) -> Vec<u8> {
        let (kind, payload) = match message {
            Message::Return(value) => ("#RETURN", value),
            Message::Error(exception) => ("#ERROR", exception),
            Message::Refused(text) => ("#TRACEBACK", text.into()),
            Message::Proxy(entry) => {
                let address = address_value(self.server.address());
                let token = Token { kind: entry.kind.clone(), address, ident: entry.ident() };
                ("#PROXY", Value::Tuple(vec![exposed(&entry), token.into_value()]))
            }
        };
        Value::Tuple(vec![kind.into(), payload]).to_pickle().unwrap_or_else(|error| {
            let text = format!("the result cannot be sent: {error}");
            let reply = Value::Tuple(vec!["#UNSERIALIZABLE".into(), text.into()]);
            reply.to_pickle().expect("two short texts can be written")
        })
    }
}

impl Handler for Host {
    fn request(&self, call: &Call<'_>, request: &[u8], reply: &mut Vec<u8>) -> After {
        let (message, after) = self.respond(call, request);
        *reply = self.write(message);
        after
    }

    fn restore(&self, call: &Call<'_>, object: u64) -> bool {
        let mut table = lock(&self.table);
        table.restore(object) && self.server.refer(holder(call), object)
    }

    fn released(&self, objects: &[u64]) {
        let dropped: Vec<_> = {
            let mut table = lock(&self.table);
            let unused = objects.iter().filter(|object| self.server.references(**object) == 0);
            unused.filter_map(|object| table.release(*object)).collect()
        };
        if dropped.iter().any(|entry| !entry.is_builtin) {
            self.server.may_block();
        }
        // A destructor of the program's may panic; that is no reason for the server to end.
        for entry in dropped {
            if let Err(report) = panics::catch(|| drop(entry)) {
                tracing::error!("the end of a shared object {report}");
            }
        }
    }

    fn gone(&self, client: ClientId, properly: Properly) {
        lock(&self.lent).retain(|caller, _| caller.0 != client);
        let entries = lock(&self.table).all();
        for entry in entries {
            entry.object.client_gone(client, properly == Properly::No);
        }
    }

    fn work(&self, worker: Worker) {
        self.threads.start(&self.server, worker);
    }
}

/// To whom a reference belongs: nobody knows that of clients that speak Python's form.
fn holder(call: &Call<'_>) -> Option<ClientId> {
    call.is_ours().then(|| call.client())
}

fn exposed(entry: &Entry) -> Value {
    Value::Tuple(entry.methods.iter().map(|name| name.as_str().into()).collect())
}

/// An address as Python has it.
fn address_value(address: &Address) -> Value {
    match address {
        Address::Tcp(place) => {
            Value::Tuple(vec![place.ip().to_string().into(), Value::Int(i64::from(place.port()))])
        }
        Address::Unix(path) => path.to_string_lossy().into_owned().into(),
        Address::Abstract(name) => Value::Bytes([&[0], name.as_slice()].concat()),
        Address::Unnamed => Value::None,
    }
}

/// Whether two addresses may be of the same manager, whose host has several names.
fn is_same_place(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Tuple(one), Value::Tuple(other)) => one.last() == other.last(),
        (Value::Str(one), Value::Bytes(other)) => one.as_bytes() == other.as_slice(),
        (one, other) => one == other,
    }
}
