//! Values of Python as keys, and whether two are equal.

use std::hash::{Hash, Hasher};

use num_bigint::BigInt;

use crate::manager::object::Raised;
use crate::manager::objects::repr::type_name;
use crate::pickle::{Object, Value};

/// A value as a key of a dictionary: equal to another one if Python says so.
///
/// Instances of classes, about which nothing is known here, are equal if their pickles are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(Equal);

/// A value without what does not count when it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Equal {
    None,
    /// Integers, and what is equal to one: `True` is 1, and so is 1.0.
    Int(i64),
    BigInt(BigInt),
    /// The bits of any other float.
    Float(u64),
    Bytes(Vec<u8>),
    Str(String),
    List(Vec<Equal>),
    Tuple(Vec<Equal>),
    Set(Unordered),
    Dict(Unordered),
    Global(String, String),
    Object(Box<Equal>),
}

/// Parts whose order does not count.
#[derive(Debug, Clone)]
struct Unordered(Vec<Equal>);

impl Unordered {
    fn of(pairs: &[(Value, Value)]) -> Self {
        let pair = |(key, value)| Equal::Tuple(vec![Equal::of(key), Equal::of(value)]);
        Self(pairs.iter().map(|(key, value)| (key, value)).map(pair).collect())
    }
}

impl PartialEq for Unordered {
    fn eq(&self, other: &Self) -> bool {
        let mut left: Vec<&Equal> = other.0.iter().collect();
        self.0.len() == other.0.len()
            && self.0.iter().all(|part| {
                let found = left.iter().position(|other| *other == part);
                found.map(|at| left.swap_remove(at)).is_some()
            })
    }
}

impl Eq for Unordered {}

impl Hash for Unordered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The same whatever the order.
        self.0.len().hash(state);
    }
}

impl Key {
    /// The key that a value is, if it can be one.
    pub(super) fn of(value: &Value) -> Result<Self, Raised> {
        match unhashable(value) {
            Some(part) => {
                Err(Raised::type_error(format!("unhashable type: '{}'", type_name(part))))
            }
            None => Ok(Self(Equal::of(value))),
        }
    }
}

/// Whether two values are equal in Python.
pub(super) fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => one == other,
        (Value::Str(one), Value::Str(other)) => one == other,
        _ => Equal::of(one) == Equal::of(other),
    }
}

/// The part of a value on account of which it cannot be a key.
fn unhashable(value: &Value) -> Option<&Value> {
    match value {
        Value::List(_) | Value::Dict(_) | Value::Set(_) | Value::ByteArray(_) => Some(value),
        Value::Tuple(parts) => parts.iter().find_map(unhashable),
        _ => None,
    }
}

impl Equal {
    fn of(value: &Value) -> Self {
        let all = |values: &[Value]| values.iter().map(Self::of).collect::<Vec<_>>();
        match value {
            Value::None => Self::None,
            Value::Bool(value) => Self::Int((*value).into()),
            Value::Int(value) => Self::Int(*value),
            Value::BigInt(value) => Self::BigInt(value.clone()),
            Value::Float(value) => Self::of_float(*value),
            Value::Bytes(bytes) | Value::ByteArray(bytes) => Self::Bytes(bytes.clone()),
            Value::Str(text) => Self::Str(text.clone()),
            Value::List(items) => Self::List(all(items)),
            Value::Tuple(items) => Self::Tuple(all(items)),
            Value::Set(items) | Value::FrozenSet(items) => Self::Set(Unordered(all(items))),
            Value::Dict(pairs) => Self::Dict(Unordered::of(pairs)),
            Value::Global(global) => Self::Global(global.module.clone(), global.name.clone()),
            Value::Object(object) => Self::of_object(object),
        }
    }

    fn of_float(value: f64) -> Self {
        if value.fract() != 0.0 || !value.is_finite() {
            return Self::Float(value.to_bits());
        }
        match whole(value) {
            Value::BigInt(value) => Self::BigInt(value),
            Value::Int(value) => Self::Int(value),
            _ => Self::Float(value.to_bits()),
        }
    }

    fn of_object(object: &Object) -> Self {
        let parts = vec![
            Self::of(&object.callable),
            Self::Tuple(object.arguments.iter().map(Self::of).collect()),
            Self::List(object.items.iter().map(Self::of).collect()),
            Self::Dict(Unordered::of(&object.pairs)),
            object.state.as_ref().map_or(Self::None, Self::of),
        ];
        Self::Object(Box::new(Self::Tuple(parts)))
    }
}

/// A float without a fraction, as an integer.
pub(super) fn whole(value: f64) -> Value {
    const FRACTION_BITS: i32 = 52;
    let bits = value.to_bits();
    let exponent = ((bits >> FRACTION_BITS) & 0x7ff) as i32 - 1023 - FRACTION_BITS;
    let mantissa = (bits & ((1 << FRACTION_BITS) - 1)) | (1 << FRACTION_BITS);
    if value == 0.0 {
        return Value::Int(0);
    }
    let size = BigInt::from(mantissa);
    let size = if exponent < 0 { size >> -exponent } else { size << exponent };
    (if value < 0.0 { -size } else { size }).into()
}
