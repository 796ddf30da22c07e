//! Why a call of a remote object gave no result.

use std::error::Error;
use std::fmt;
use std::io;

use serde::de::DeserializeOwned;

use crate::channel::connection::{Address, EndpointError};
use crate::manager::error::CallError;
use crate::pickle::{self, Value};

/// The key in the state of an exception under which the error of a method in Rust travels.
pub(super) const ERROR_KEY: &str = "procession_error";

/// Why a call of an object in a manager gave no result.
///
/// The text from `Display` says what happened and where; what the system reported is in
/// [`source`](std::error::Error::source).
#[derive(Debug)]
#[non_exhaustive]
pub enum CallFailed {
    /// The server is there, and answered with an error: the method raised an exception or panicked,
    /// or there is no such method or object.
    Raised(Box<RemoteException>),
    /// The server closed the connection or died. Whether the call was carried out is not known.
    ServerGone {
        /// Where the server was.
        address: Address,
        /// Its process id; only servers of this crate and its Python package tell.
        pid: Option<u32>,
        /// What the system reported; `None` for the end of the stream.
        source: Option<io::Error>,
    },
    /// There is no connection with the server: nobody listens there, the keys differ, or it did not
    /// answer in time.
    NotConnected {
        /// Where the server should be.
        address: Address,
        /// What stood in the way.
        source: EndpointError,
    },
    /// The process does not know the key of the server: the proxy came in a message, which never
    /// has it. Connect to the manager first, or name the key with
    /// [`use_key`](crate::manager::use_key).
    NoKey {
        /// Where the server is.
        address: Address,
    },
    /// The object was dropped before this process referred to it. Whoever hands a proxy over must
    /// keep its own until the other process has taken it.
    ObjectGone {
        /// Where the server is.
        address: Address,
        /// The kind of the object.
        typeid: String,
        /// The object's name in the server.
        id: String,
    },
    /// The arguments cannot be written. Nothing was sent.
    Encode {
        /// What is wrong with them.
        source: pickle::Error,
    },
    /// The call was carried out, but its result is not of the type that was asked for.
    Decode {
        /// What is wrong with it.
        source: pickle::Error,
    },
    /// The server sent what no server sends.
    Protocol {
        /// Where the server is.
        address: Address,
    },
}

/// What a server says about a call that failed there.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RemoteException {
    /// The class of the exception, such as `ValueError`; with its module if it is not built in.
    pub class: String,
    /// Its text.
    pub message: String,
    /// Where it was raised, in Python's words, if the server tells.
    pub traceback: Option<String>,
    /// The exception as it came; `None` where the server sent its text alone.
    pub exception: Option<Value>,
}

impl RemoteException {
    /// Whether the exception is of this class, by its name without the module.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::RemoteException;
    /// use procession::pickle::{Object, Value};
    ///
    /// let exception = Object::call("queue", "Full", vec![]);
    /// let raised = RemoteException::from_exception(Value::from(exception));
    /// assert_eq!(raised.class, "queue.Full");
    /// assert!(raised.is("Full") && !raised.is("Empty"));
    /// ```
    pub fn is(&self, name: &str) -> bool {
        self.class.rsplit('.').next() == Some(name)
    }

    /// What an exception says that came as a value.
    pub fn from_exception(exception: Value) -> Self {
        let (class, message) = match &exception {
            Value::Object(object) => {
                let class = object.class().map(|class| match class.module.as_str() {
                    "builtins" => class.name.clone(),
                    module => format!("{module}.{}", class.name),
                });
                (class, message_of(&object.arguments))
            }
            other => (None, brief(other)),
        };
        let class = class.unwrap_or_else(|| "Exception".to_owned());
        Self { class, message, traceback: None, exception: Some(exception) }
    }

    /// What a traceback says: its last lines name the class and the message.
    pub(super) fn from_traceback(text: String) -> Self {
        let last = text.lines().rev().find(|line| !line.starts_with(' ') && !line.is_empty());
        let last = last.unwrap_or_default();
        let named = |class: &str| {
            let word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
            !class.is_empty() && class.chars().all(word)
        };
        let (class, message) = match last.split_once(": ") {
            Some((class, message)) if named(class) => (class, message),
            _ if named(last) => (last, ""),
            _ => ("RemoteError", text.trim_end()),
        };
        let (class, message) = (class.to_owned(), message.to_owned());
        Self { class, message, traceback: Some(text), exception: None }
    }

    /// The error that a method in Rust has returned, if this is one.
    fn rust_error(&self) -> Option<&Value> {
        let Some(Value::Object(exception)) = &self.exception else { return None };
        let Some(Value::Dict(state)) = &exception.state else { return None };
        let (_, error) = state.iter().find(|(key, _)| *key == Value::from(ERROR_KEY))?;
        Some(error)
    }
}

/// What `str` gives for an exception with these arguments, as far as it can be known.
fn message_of(arguments: &[Value]) -> String {
    match arguments {
        [Value::Str(text)] => text.clone(),
        [one] => brief(one),
        several => several.iter().map(brief).collect::<Vec<_>>().join(", "),
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::None => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Str(text) => format!("{text:?}"),
        other => format!("{other:?}"),
    }
}

impl CallFailed {
    /// What the server said, if it answered with an error.
    pub fn raised(&self) -> Option<&RemoteException> {
        match self {
            Self::Raised(raised) => Some(raised),
            _ => None,
        }
    }

    /// Whether the method itself raised an exception of this class, by its name without the module.
    ///
    /// That there is no such method also ends in a `KeyError`; of that the server sends the text alone.
    pub(super) fn is(&self, name: &str) -> bool {
        self.raised().is_some_and(|raised| raised.exception.is_some() && raised.is(name))
    }
}

impl From<CallError> for CallFailed {
    fn from(error: CallError) -> Self {
        match error {
            CallError::ServerGone { address, pid, source } => {
                Self::ServerGone { address, pid: Some(pid), source }
            }
            CallError::Protocol { address, .. } => Self::Protocol { address },
            // Calls of the client that are used here go on by themselves.
            CallError::Interrupted => Self::ServerGone {
                address: Address::Unnamed,
                pid: None,
                source: Some(io::ErrorKind::Interrupted.into()),
            },
        }
    }
}

impl fmt::Display for RemoteException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.class)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raised(raised) => raised.fmt(f),
            Self::ServerGone { address, pid: Some(pid), .. } => write!(
                f,
                "the manager at {address} (process {pid}) has closed the connection or died"
            ),
            Self::ServerGone { address, pid: None, .. } => {
                write!(f, "the manager at {address} has closed the connection or died")
            }
            Self::NotConnected { address, source } => {
                write!(f, "cannot connect to the manager at {address}: {source}")
            }
            Self::NoKey { address } => write!(
                f,
                "this process does not know the key of the manager at {address}: connect to it \
                 before using a proxy that came in a message"
            ),
            Self::ObjectGone { address, typeid, id } => write!(
                f,
                "the manager at {address} has no {typeid} {id} any more: the proxy that was handed \
                 over was dropped too early"
            ),
            Self::Encode { source } => write!(f, "the arguments cannot be sent: {source}"),
            Self::Decode { source } => write!(f, "the result is of another type: {source}"),
            Self::Protocol { address } => {
                write!(f, "the manager at {address} sent what is no reply")
            }
        }
    }
}

impl Error for CallFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::ServerGone { source: Some(source), .. } => Some(source),
            Self::NotConnected { source, .. } => Some(source),
            Self::Encode { source } | Self::Decode { source } => Some(source),
            _ => None,
        }
    }
}

/// Why a method that can fail by itself gave no result: its own error, or that of the call.
///
/// # Examples
///
/// ```
/// use procession::manager::ProxyError;
/// use procession::manager::proxies::Empty;
///
/// fn describe(error: ProxyError<Empty>) -> String {
///     match error {
///         ProxyError::Failed(Empty) => "nothing to do".to_owned(),
///         ProxyError::Call(failed) => format!("no answer: {failed}"),
///     }
/// }
/// assert_eq!(describe(ProxyError::Failed(Empty)), "nothing to do");
/// ```
#[derive(Debug)]
pub enum ProxyError<E> {
    /// The method was carried out and returned this error.
    Failed(E),
    /// The call itself failed.
    Call(CallFailed),
}

impl<E: DeserializeOwned> ProxyError<E> {
    /// Takes the error of the method out of the reply, if it is one.
    pub(super) fn of(failed: CallFailed) -> Self {
        match failed.raised().and_then(RemoteException::rust_error) {
            Some(error) => match pickle::from_value(error.clone()) {
                Ok(error) => Self::Failed(error),
                Err(source) => Self::Call(CallFailed::Decode { source }),
            },
            None => Self::Call(failed),
        }
    }
}

impl<E> ProxyError<E> {
    /// Takes exceptions of the class `name` for the method's own error `error`.
    pub(super) fn where_raised(failed: CallFailed, name: &str, error: E) -> Self {
        if failed.is(name) { Self::Failed(error) } else { Self::Call(failed) }
    }
}

impl<E> From<CallFailed> for ProxyError<E> {
    fn from(failed: CallFailed) -> Self {
        Self::Call(failed)
    }
}

impl<E: fmt::Display> fmt::Display for ProxyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Call(failed) => failed.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for ProxyError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => error.source(),
            Self::Call(failed) => failed.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pickle::Object;

    #[test]
    fn traceback_names_class_and_message() {
        let text = "Traceback (most recent call last):\n  File \"x.py\", line 1, in f\n    g()\n\
                    KeyError: 'gone'\n";
        let raised = RemoteException::from_traceback(text.to_owned());
        assert_eq!((raised.class.as_str(), raised.message.as_str()), ("KeyError", "'gone'"));
        assert_eq!(raised.traceback.as_deref(), Some(text));
        let raised = RemoteException::from_traceback("queue.Empty\n".to_owned());
        assert_eq!((raised.class.as_str(), raised.message.as_str()), ("queue.Empty", ""));
        assert!(raised.is("Empty"));
        let raised = RemoteException::from_traceback("it did not work: at all".to_owned());
        assert_eq!(raised.class, "RemoteError");
        assert_eq!(raised.message, "it did not work: at all");
    }

    #[test]
    fn error_of_a_method_in_rust_comes_back_as_it_was() {
        let state = Value::Dict(vec![(ERROR_KEY.into(), Value::Tuple(vec![1.into(), 2.into()]))]);
        let exception = Object::call("builtins", "RuntimeError", vec!["too much".into()]);
        let exception = Value::from(exception.with_state(state));
        let failed =
            || CallFailed::Raised(Box::new(RemoteException::from_exception(exception.clone())));
        assert_eq!(failed().to_string(), "RuntimeError: too much");
        assert!(matches!(ProxyError::<(u8, u8)>::of(failed()), ProxyError::Failed((1, 2))));
        let other = ProxyError::<String>::of(failed());
        assert!(matches!(other, ProxyError::Call(CallFailed::Decode { .. })));
    }
}
