//! Which of two values of Python is less.

use std::cmp::Ordering;

use num_bigint::BigInt;

use crate::manager::object::Raised;
use crate::manager::objects::key::{equal, whole};
use crate::manager::objects::repr::type_name;
use crate::pickle::Value;

/// Compares two values of Python, as far as that is known without Python: numbers, texts, bytes,
/// and lists and tuples of these.
///
/// `None` where one is not a number. An error where Python has one, and for other classes.
pub(super) fn compare(one: &Value, other: &Value) -> Result<Option<Ordering>, Raised> {
    match (one, other) {
        (Value::Str(one), Value::Str(other)) => Ok(Some(one.cmp(other))),
        (
            Value::Bytes(one) | Value::ByteArray(one),
            Value::Bytes(other) | Value::ByteArray(other),
        ) => Ok(Some(one.cmp(other))),
        (Value::List(one), Value::List(other)) | (Value::Tuple(one), Value::Tuple(other)) => {
            let differing = one.iter().zip(other).find(|(one, other)| !equal(one, other));
            match differing {
                Some((one, other)) => compare(one, other),
                None => Ok(Some(one.len().cmp(&other.len()))),
            }
        }
        _ => match (Number::of(one), Number::of(other)) {
            (Some(one), Some(other)) => Ok(one.compare(&other)),
            _ => Err(Raised::type_error(format!(
                "'<' not supported between instances of '{}' and '{}' here",
                type_name(one),
                type_name(other)
            ))),
        },
    }
}

enum Number {
    Int(BigInt),
    Float(f64),
}

impl Number {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Int(u8::from(*value).into())),
            Value::Int(value) => Some(Self::Int((*value).into())),
            Value::BigInt(value) => Some(Self::Int(value.clone())),
            Value::Float(value) => Some(Self::Float(*value)),
            _ => None,
        }
    }

    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => Some(one.cmp(other)),
            (Self::Float(one), Self::Float(other)) => one.partial_cmp(other),
            (Self::Int(one), Self::Float(other)) => with_float(one, *other),
            (Self::Float(one), Self::Int(other)) => with_float(other, *one).map(Ordering::reverse),
        }
    }
}

/// Compares without rounding.
fn with_float(one: &BigInt, other: f64) -> Option<Ordering> {
    if other.is_nan() {
        return None;
    }
    if other.is_infinite() {
        return Some(if other > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = match whole(other.floor()) {
        Value::BigInt(floor) => floor,
        Value::Int(floor) => floor.into(),
        _ => return None,
    };
    let beyond = if other.fract() == 0.0 { Ordering::Equal } else { Ordering::Less };
    Some(one.cmp(&floor).then(beyond))
}
