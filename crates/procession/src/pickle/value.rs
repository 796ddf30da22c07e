//! Values of Python.

use num_bigint::BigInt;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use crate::pickle::error::Error;
use crate::pickle::{decode, encode};

/// The name under which serde knows [`Value`]. The serializer and the deserializer of this module
/// recognize it and pass values through; to any other format it is an enum like others.
pub(super) const TOKEN: &str = "procession::pickle::Value";

/// A value of Python.
///
/// Compared as in Rust, not as in Python: `1` is neither `True` nor `1.0`, and the order of a
/// dictionary or a set counts.
///
/// # Examples
///
/// ```
/// use procession::pickle::Value;
///
/// let value = Value::from_pickle(b"\x80\x04K\x01\x8c\x03one\x86.")?;
/// assert_eq!(value, Value::Tuple(vec![1.into(), "one".into()]));
/// # Ok::<(), procession::pickle::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename = "procession::pickle::Value")]
#[non_exhaustive]
pub enum Value {
    /// `None`.
    None,
    /// A `bool`.
    Bool(bool),
    /// An `int` that fits.
    Int(i64),
    /// An `int` that does not fit into an `i64`.
    BigInt(#[serde(with = "big_bytes")] BigInt),
    /// A `float`.
    Float(f64),
    /// A `bytes`.
    Bytes(#[serde(with = "bytes")] Vec<u8>),
    /// A `bytearray`.
    ByteArray(#[serde(with = "bytes")] Vec<u8>),
    /// A `str`.
    Str(String),
    /// A `list`.
    List(Vec<Value>),
    /// A `tuple`.
    Tuple(Vec<Value>),
    /// A `dict`: its keys and values, in order.
    Dict(Vec<(Value, Value)>),
    /// A `set`, in the order in which it was sent.
    Set(Vec<Value>),
    /// A `frozenset`, in the order in which it was sent.
    FrozenSet(Vec<Value>),
    /// A class or function, by name.
    Global(Global),
    /// Anything else: how Python makes it.
    Object(Box<Object>),
}

/// A class or function of Python, by name. Nothing looks whether there is one of that name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Global {
    /// The module, such as `multiprocessing.managers`.
    pub module: String,
    /// The name in that module, with dots in it for what is inside a class.
    pub name: String,
}

impl Global {
    /// Names a class or function.
    pub fn new(module: impl Into<String>, name: impl Into<String>) -> Self {
        Self { module: module.into(), name: name.into() }
    }

    /// Whether this is the one of that module and name.
    pub fn is(&self, module: &str, name: &str) -> bool {
        self.module == module && self.name == name
    }
}

/// How Python makes an object that is no plain value: what is called, and what is done to the
/// result. The same in all protocols.
///
/// # Examples
///
/// An exception as Python sends it:
///
/// ```
/// use procession::pickle::{Object, Value};
///
/// let error = Object::call("builtins", "ValueError", vec!["no such thing".into()]);
/// let bytes = Value::from(error.clone()).to_pickle()?;
/// let Value::Object(received) = Value::from_pickle(&bytes)? else { panic!("no instance") };
/// assert!(received.class().is_some_and(|class| class.is("builtins", "ValueError")));
/// assert_eq!(received.arguments, ["no such thing".into()]);
/// # Ok::<(), procession::pickle::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// What is called: nearly always a [`Value::Global`].
    pub callable: Value,
    /// How it is called.
    pub construct: Construct,
    /// With what it is called.
    pub arguments: Vec<Value>,
    /// What is appended to the result, if it is like a list.
    pub items: Vec<Value>,
    /// What is stored in the result, if it is like a dictionary.
    pub pairs: Vec<(Value, Value)>,
    /// What is given to `__setstate__` or, without one, put into `__dict__` and `__slots__`.
    #[serde(with = "state")]
    pub state: Option<Value>,
}

/// How the callable of an [`Object`] is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Construct {
    /// As it is: `callable(*arguments)`.
    Call,
    /// By its `__new__`: `callable.__new__(callable, *arguments, **keywords)`.
    New {
        /// The keyword arguments, if there are any.
        keywords: Vec<(Value, Value)>,
    },
}

impl Object {
    /// What calling a function or class gives, as Python writes exceptions.
    pub fn call(module: impl Into<String>, name: impl Into<String>, arguments: Vec<Value>) -> Self {
        Self::made(Global::new(module, name).into(), Construct::Call, arguments)
    }

    /// What a class's `__new__` gives, as Python writes most instances. Their attributes are the
    /// [state](Self::with_state).
    pub fn instance(
        module: impl Into<String>,
        name: impl Into<String>,
        arguments: Vec<Value>,
    ) -> Self {
        let construct = Construct::New { keywords: Vec::new() };
        Self::made(Global::new(module, name).into(), construct, arguments)
    }

    pub(super) fn made(callable: Value, construct: Construct, arguments: Vec<Value>) -> Self {
        Self { callable, construct, arguments, items: Vec::new(), pairs: Vec::new(), state: None }
    }

    /// Sets what is given to `__setstate__`.
    pub fn with_state(mut self, state: Value) -> Self {
        self.state = Some(state);
        self
    }

    /// The class or function that is called, if it is given by name.
    pub fn class(&self) -> Option<&Global> {
        match &self.callable {
            Value::Global(class) => Some(class),
            _ => None,
        }
    }

    /// The fields by name, as the derived implementation of `Deserialize` takes them.
    pub(super) fn into_fields(self) -> Vec<(Value, Value)> {
        let construct = match self.construct {
            Construct::Call => "Call".into(),
            Construct::New { keywords } => {
                let fields = Value::Dict(vec![("keywords".into(), pairs(keywords))]);
                Value::Tuple(vec!["New".into(), fields])
            }
        };
        vec![
            ("callable".into(), self.callable),
            ("construct".into(), construct),
            ("arguments".into(), Value::List(self.arguments)),
            ("items".into(), Value::List(self.items)),
            ("pairs".into(), pairs(self.pairs)),
            ("state".into(), Value::List(self.state.into_iter().collect())),
        ]
    }
}

/// Keys and values as a list of tuples.
pub(super) fn pairs(pairs: Vec<(Value, Value)>) -> Value {
    Value::List(pairs.into_iter().map(|(key, value)| Value::Tuple(vec![key, value])).collect())
}

impl Value {
    /// Writes the value as a pickle of protocol 4.
    ///
    /// # Errors
    ///
    /// [`Error::TooDeep`].
    pub fn to_pickle(&self) -> Result<Vec<u8>, Error> {
        encode::encode(self)
    }

    /// Reads a pickle of any protocol; it must be all there is in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`], [`Error::Unsupported`], [`Error::Surrogate`], [`Error::Recursive`],
    /// [`Error::TooDeep`], [`Error::TooManyCopies`].
    pub fn from_pickle(bytes: &[u8]) -> Result<Self, Error> {
        decode::decode(bytes)
    }

    /// The value that serde knows as this variant with this content.
    pub(super) fn from_variant(variant: &str, content: Self) -> Result<Self, Error> {
        Ok(match (variant, content) {
            ("BigInt", Self::Bytes(bytes)) => BigInt::from_signed_bytes_le(&bytes).into(),
            ("ByteArray", Self::Bytes(bytes)) => Self::ByteArray(bytes),
            ("Tuple", Self::List(items)) => Self::Tuple(items),
            ("Set", Self::List(items)) => Self::Set(items),
            ("FrozenSet", Self::List(items)) => Self::FrozenSet(items),
            ("Dict", pairs) => Self::Dict(Vec::deserialize(pairs)?),
            ("Global", fields) => Self::Global(Global::deserialize(fields)?),
            ("Object", fields) => Self::Object(Box::deserialize(fields)?),
            ("Bool" | "Int" | "Float" | "Bytes" | "Str" | "List", content) => content,
            _ => return Err(Error::custom(format_args!("no value of Python is a {variant}"))),
        })
    }

    /// What serde knows this value as: a variant and its content.
    pub(super) fn into_variant(self) -> (&'static str, Self) {
        match self {
            Self::None => ("None", Self::None),
            Self::Bool(_) => ("Bool", self),
            Self::Int(_) => ("Int", self),
            Self::BigInt(number) => ("BigInt", Self::Bytes(number.to_signed_bytes_le())),
            Self::Float(_) => ("Float", self),
            Self::Bytes(_) => ("Bytes", self),
            Self::ByteArray(bytes) => ("ByteArray", Self::Bytes(bytes)),
            Self::Str(_) => ("Str", self),
            Self::List(_) => ("List", self),
            Self::Tuple(items) => ("Tuple", Self::List(items)),
            Self::Dict(entries) => ("Dict", pairs(entries)),
            Self::Set(items) => ("Set", Self::List(items)),
            Self::FrozenSet(items) => ("FrozenSet", Self::List(items)),
            Self::Global(Global { module, name }) => {
                let fields = vec![("module".into(), module.into()), ("name".into(), name.into())];
                ("Global", Self::Dict(fields))
            }
            Self::Object(object) => ("Object", Self::Dict(object.into_fields())),
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<BigInt> for Value {
    /// An [`Int`](Self::Int) if it fits.
    fn from(value: BigInt) -> Self {
        i64::try_from(&value).map_or(Self::BigInt(value), Self::Int)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Str(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Str(value)
    }
}

impl From<Global> for Value {
    fn from(value: Global) -> Self {
        Self::Global(value)
    }
}

impl From<Object> for Value {
    fn from(value: Object) -> Self {
        Self::Object(Box::new(value))
    }
}

/// Bytes as such: by itself serde takes a `Vec<u8>` for a sequence of numbers.
mod bytes {
    use std::fmt;

    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_byte_buf(Bytes)
    }

    struct Bytes;

    impl<'de> Visitor<'de> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_owned())
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        // What a format without bytes makes of them.
        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = sequence.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}

/// A large number as its bytes, the lowest first, negative ones in two's complement.
mod big_bytes {
    use num_bigint::BigInt;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &BigInt, to: S) -> Result<S::Ok, S::Error> {
        super::bytes::serialize(&number.to_signed_bytes_le(), to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BigInt, D::Error> {
        super::bytes::deserialize(from).map(|bytes| BigInt::from_signed_bytes_le(&bytes))
    }
}

/// A state as a sequence of at most one: as an `Option`, a state that is `None` would be none.
mod state {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Value;

    pub(super) fn serialize<S: Serializer>(
        state: &Option<Value>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        state.as_slice().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Value>, D::Error> {
        let mut states = Vec::deserialize(from)?;
        let state = states.pop();
        if states.is_empty() { Ok(state) } else { Err(D::Error::custom("more than one state")) }
    }
}
