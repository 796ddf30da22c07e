//! What a manager serves: objects that answer calls by name.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manager::host_table::Entry;
use crate::manager::object_instance::{Instance, Shareable};
use crate::manager::{ClientId, Host};
use crate::pickle::{self, Global, Object, Value};

/// An object that a manager serves.
///
/// [`shared`](crate::shared) implements it for the types of a program; this is for those whose
/// methods are known only when the program runs. Calls come from several threads at a time.
///
/// # Examples
///
/// ```
/// use procession::manager::{Answer, Invocation, Manager, Outcome, Served};
/// use procession::pickle::Value;
///
/// /// Answers every method by its name.
/// struct Parrot;
///
/// impl Served for Parrot {
///     fn methods(&self) -> Vec<String> {
///         vec!["hello".to_owned(), "goodbye".to_owned()]
///     }
///
///     fn call(&self, call: &mut Invocation<'_>) -> Answer {
///         call.bind(&[])?;
///         Ok(Outcome::Value(call.method().into()))
///     }
///
///     fn text(&self) -> String {
///         "<Parrot>".to_owned()
///     }
/// }
///
/// let manager = Manager::builder().authkey("a key").serve(|registry| {
///     registry.object("get_parrot", std::sync::Arc::new(Parrot));
/// })?;
/// manager.stop();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Served: Any + Send + Sync {
    /// The names of the methods that clients may call. They do not change.
    fn methods(&self) -> Vec<String>;

    /// Calls one of these methods. Before it does anything that may take long, it calls
    /// [`Invocation::may_block`]: nobody else is served until then.
    ///
    /// # Errors
    ///
    /// The exception that the client gets.
    fn call(&self, call: &mut Invocation<'_>) -> Answer;

    /// The object as a text, for `repr` and `str` in Python.
    fn text(&self) -> String;

    /// A copy of the object itself, if it has a value: what Python's proxies return for
    /// `_getvalue()`.
    fn value(&self) -> Option<Value> {
        None
    }

    /// A client is gone. `killed` says that it did not announce its end, although it speaks the
    /// form of this crate, in which clients do so.
    fn client_gone(&self, client: ClientId, killed: bool) {
        let _ = (client, killed);
    }
}

/// What a method of a [`Served`] object gives back.
pub type Answer = Result<Outcome, Raised>;

/// What a method has returned.
pub enum Outcome {
    /// A value, which the client gets a copy of.
    Value(Value),
    /// An object, which stays in the server: the client gets a proxy for it.
    Object {
        /// What kind of object it is. A client in Python must have registered a kind of that name.
        kind: String,
        /// The object.
        object: Arc<dyn Served>,
    },
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => f.debug_tuple("Value").field(value).finish(),
            Self::Object { kind, .. } => {
                f.debug_struct("Object").field("kind", kind).finish_non_exhaustive()
            }
        }
    }
}

impl Outcome {
    /// Nothing: `None` in Python.
    pub fn none() -> Self {
        Self::Value(Value::None)
    }

    /// An object of a type of the program, which stays in the server.
    pub fn instance<T: Shareable>(value: T) -> Self {
        Self::Object { kind: T::NAME.to_owned(), object: Arc::new(Instance::new(value)) }
    }

    /// A value of Rust, as Python knows it.
    ///
    /// # Errors
    ///
    /// A `TypeError` if the value's own `Serialize` fails.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Answer {
        pickle::to_value(value).map(Self::Value).map_err(|error| {
            Raised::type_error(format!("what the method has returned cannot be sent: {error}"))
        })
    }
}

impl From<Value> for Outcome {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

/// An exception that a client gets for a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Raised(Problem);

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Problem {
    /// The method raised this.
    Exception(Value),
    /// The server says why it did not call the method.
    Refused(String),
    /// The client is gone; nobody hears of it.
    Gone,
}

/// Under this name the state of a `RuntimeError` has what the method of a Rust object returned as
/// an error.
pub(super) const ERROR_KEY: &str = "procession_error";

impl Raised {
    /// An exception of this class, made with these arguments.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Raised;
    ///
    /// let error = Raised::new("builtins", "KeyError", vec!["no such key".into()]);
    /// assert_eq!(error.to_string(), "KeyError: 'no such key'");
    /// ```
    pub fn new(module: impl Into<String>, class: impl Into<String>, arguments: Vec<Value>) -> Self {
        Self(Problem::Exception(Object::call(module, class, arguments).into()))
    }

    pub(super) fn builtin(class: &str, message: impl Into<String>) -> Self {
        Self::new("builtins", class, vec![Value::Str(message.into())])
    }

    /// A `TypeError`: an argument is of the wrong type, or is not one that the method takes.
    pub fn type_error(message: impl Into<String>) -> Self {
        Self::builtin("TypeError", message)
    }

    /// A `ValueError`: an argument is of the right type, but has a wrong value.
    pub fn value_error(message: impl Into<String>) -> Self {
        Self::builtin("ValueError", message)
    }

    /// A `RuntimeError`: the call makes no sense now.
    pub fn runtime_error(message: impl Into<String>) -> Self {
        Self::builtin("RuntimeError", message)
    }

    /// What a method returned as an error: a `RuntimeError` with its text for Python, from which a
    /// client in Rust gets the value itself.
    pub fn failed<E: Serialize + fmt::Display>(error: &E) -> Self {
        let message = error.to_string();
        let state = match pickle::to_value(error) {
            Ok(value) => Value::Dict(vec![(ERROR_KEY.into(), value)]),
            Err(problem) => {
                return Self::type_error(format!(
                    "the error that the method has returned cannot be sent ({problem}): {message}"
                ));
            }
        };
        let error = Object::call("builtins", "RuntimeError", vec![message.into()]);
        Self(Problem::Exception(error.with_state(state).into()))
    }

    /// The server refuses the call: a `RemoteError` in Python.
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self(Problem::Refused(message.into()))
    }

    pub(super) fn gone() -> Self {
        Self(Problem::Gone)
    }

    pub(super) fn into_problem(self) -> Problem {
        self.0
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Problem::Exception(Value::Object(object)) => {
                let name = object.class().map_or("an exception", |class| class.name.as_str());
                f.write_str(name)?;
                let texts: Vec<_> =
                    object.arguments.iter().map(crate::manager::objects::repr).collect();
                if texts.is_empty() { Ok(()) } else { write!(f, ": {}", texts.join(", ")) }
            }
            Problem::Exception(_) => f.write_str("an exception"),
            Problem::Refused(text) => f.write_str(text),
            Problem::Gone => f.write_str("the client is gone"),
        }
    }
}

impl std::error::Error for Raised {}

/// What a method is called with: arguments by place and by name.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Value>,
    pub(super) keywords: Vec<(Value, Value)>,
}

/// Who a call comes from: a thread of a client.
pub(super) type Caller = (ClientId, u64);

/// A call of a method of a [`Served`] object.
pub struct Invocation<'a> {
    host: &'a Host,
    caller: Caller,
    method: &'a str,
    arguments: Arguments,
    /// Objects to which the reply refers: they stay until the client has had time to refer to them
    /// by itself.
    lent: Vec<Arc<Entry>>,
}

impl fmt::Debug for Invocation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("caller", &self.caller)
            .field("method", &self.method)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}

impl<'a> Invocation<'a> {
    pub(super) fn new(
        host: &'a Host,
        caller: Caller,
        method: &'a str,
        arguments: Arguments,
    ) -> Self {
        Self { host, caller, method, arguments, lent: Vec::new() }
    }

    /// The name of the method.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The client that calls.
    pub fn client(&self) -> ClientId {
        self.caller.0
    }

    pub(super) fn caller(&self) -> Caller {
        self.caller
    }

    /// Lets another thread of the server see to the clients until this call is answered. To be
    /// called before anything that may take long, once or more often.
    pub fn may_block(&self) {
        self.host.server().may_block();
    }

    /// Whether the client is still connected. What waits for something asks when it is woken by
    /// [`Served::client_gone`].
    pub fn is_connected(&self) -> bool {
        self.host.server().is_connected(self.caller.0)
    }

    /// Takes the arguments, as a method in Python does whose parameters have these names.
    ///
    /// # Errors
    ///
    /// A `TypeError` if there are too many, or one that the method does not have.
    pub fn bind(&mut self, names: &'static [&'static str]) -> Result<Bound, Raised> {
        let Arguments { positional, keywords } = std::mem::take(&mut self.arguments);
        if positional.len() > names.len() {
            let (most, given) = (names.len(), positional.len());
            let message = format!("{}() takes {most} arguments, {given} were given", self.method);
            return Err(Raised::type_error(message));
        }
        let mut values: Vec<Option<Value>> = positional.into_iter().map(Some).collect();
        values.resize_with(names.len(), || None);
        for (name, value) in keywords {
            let place = match &name {
                Value::Str(name) => names.iter().position(|known| known == name),
                _ => None,
            };
            let problem = match place {
                Some(place) if values[place].is_none() => {
                    values[place] = Some(value);
                    continue;
                }
                Some(_) => "got two values for",
                None => "has no",
            };
            let name = crate::manager::objects::repr(&name);
            return Err(Raised::type_error(format!("{}() {problem} argument {name}", self.method)));
        }
        Ok(Bound { method: self.method.to_owned(), names, values, next: 0 })
    }

    pub(super) fn take_arguments(&mut self) -> Arguments {
        std::mem::take(&mut self.arguments)
    }

    /// That there is no such method.
    pub fn unknown_method(&self) -> Raised {
        Raised::refused(format!("AttributeError: there is no method {:?}", self.method))
    }

    pub(super) fn host(&self) -> &'a Host {
        self.host
    }

    pub(super) fn lend(&mut self, entries: &[Arc<Entry>]) {
        self.lent.extend_from_slice(entries);
    }

    pub(super) fn into_lent(self) -> Vec<Arc<Entry>> {
        self.lent
    }
}

/// The arguments of a call, to be taken one after the other in the order of the parameters.
#[derive(Debug)]
pub struct Bound {
    method: String,
    names: &'static [&'static str],
    values: Vec<Option<Value>>,
    next: usize,
}

impl Bound {
    fn take(&mut self) -> (Option<Value>, &'static str) {
        let at = self.next;
        self.next += 1;
        (self.values.get_mut(at).and_then(Option::take), self.names.get(at).copied().unwrap_or("?"))
    }

    /// The next argument.
    ///
    /// # Errors
    ///
    /// A `TypeError` if it was not given or is no `T`.
    #[expect(clippy::should_implement_trait, reason = "each argument has its own type")]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<T, Raised> {
        match self.take() {
            (Some(value), name) => self.convert(value, name),
            (None, name) => {
                let message = format!("{}() needs an argument {name:?}", self.method);
                Err(Raised::type_error(message))
            }
        }
    }

    /// The next argument, or `None` if it was not given.
    ///
    /// # Errors
    ///
    /// A `TypeError` if it is no `T`.
    pub fn next_if_given<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Raised> {
        match self.take() {
            (Some(value), name) => self.convert(value, name).map(Some),
            (None, _) => Ok(None),
        }
    }

    fn convert<T: DeserializeOwned>(&self, value: Value, name: &str) -> Result<T, Raised> {
        pickle::from_value(value).map_err(|error| {
            Raised::type_error(format!("{}() argument {name:?}: {error}", self.method))
        })
    }
}

/// What a token says: which object of which server is meant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: String,
    pub(super) address: Value,
    pub(super) ident: String,
}

impl Token {
    /// As every Python writes and reads it.
    pub(super) fn into_value(self) -> Value {
        let parts = vec![self.kind.into(), self.address, self.ident.into()];
        let token = Object::instance("multiprocessing.managers", "Token", Vec::new());
        token.with_state(Value::Tuple(parts)).into()
    }

    /// The token that a value is, in any of the forms in which Python writes it.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        let Value::Object(object) = value else { return None };
        let parts = match &object.state {
            Some(Value::Tuple(parts)) => parts,
            None => &object.arguments,
            Some(_) => return None,
        };
        match parts.as_slice() {
            [Value::Str(kind), address, Value::Str(ident)] if is_named(object, "Token") => {
                Some(Self { kind: kind.clone(), address: address.clone(), ident: ident.clone() })
            }
            _ => None,
        }
    }

    /// The token of the proxy that a value is.
    pub(super) fn of_proxy(value: &Value) -> Option<Self> {
        match value {
            Value::Object(object) if is_named(object, "RebuildProxy") => {
                object.arguments.get(1).and_then(Self::parse)
            }
            _ => None,
        }
    }
}

/// Whether an object is made by the class or function of a module of managers that has this name;
/// Python writes it as such, or as an attribute of the module.
fn is_named(object: &Object, expected: &str) -> bool {
    match &object.callable {
        Value::Global(Global { module, name }) => name == expected && module.ends_with(".managers"),
        Value::Object(getter) => {
            getter.class().is_some_and(|class| class.name == "getattr")
                && getter.arguments.get(1) == Some(&Value::Str(expected.to_owned()))
        }
        _ => false,
    }
}
