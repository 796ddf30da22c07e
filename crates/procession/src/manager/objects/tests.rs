//! Values as Python compares, orders and shows them.

use std::cmp::Ordering;

use crate::manager::objects::key::{Key, equal};
use crate::manager::objects::order::compare;
use crate::manager::objects::repr;
use crate::manager::objects::slice::{self, Place};
use crate::pickle::{BigInt, Object, Value};

fn tuple(values: Vec<Value>) -> Value {
    Value::Tuple(values)
}

#[test]
fn numbers_are_one_key_if_they_are_equal_whatever_their_type() {
    let large = Value::from(BigInt::from(1_u128 << 70));
    for (one, other) in [
        (Value::Int(1), Value::Bool(true)),
        (Value::Int(1), Value::Float(1.0)),
        (Value::Float(-0.0), Value::Bool(false)),
        (large.clone(), Value::Float((1_u128 << 70) as f64)),
        (Value::Int(-(1 << 40)), Value::Float(-((1_u64 << 40) as f64))),
        (tuple(vec![1.into(), "a".into()]), tuple(vec![1.0.into(), "a".into()])),
    ] {
        assert!(equal(&one, &other), "{one:?} and {other:?}");
        assert_eq!(Key::of(&one).unwrap(), Key::of(&other).unwrap());
    }
    for (one, other) in [
        (Value::Int(1), Value::from("1")),
        (Value::Float(0.5), Value::Int(0)),
        (large, Value::Int(0)),
        (Value::from("a"), Value::Bytes(b"a".to_vec())),
        (Value::List(vec![]), tuple(vec![])),
    ] {
        assert!(!equal(&one, &other), "{one:?} and {other:?}");
    }
}

#[test]
fn order_counts_in_sequences_and_not_in_sets_and_dicts() {
    let numbers = || vec![Value::Int(1), Value::Int(2), Value::Int(3)];
    let turned = || numbers().into_iter().rev().collect::<Vec<_>>();
    assert!(equal(&Value::Set(numbers()), &Value::FrozenSet(turned())));
    assert!(!equal(&Value::List(numbers()), &Value::List(turned())));
    let pairs =
        |keys: Vec<Value>| Value::Dict(keys.into_iter().map(|key| (key.clone(), key)).collect());
    assert!(equal(&pairs(numbers()), &pairs(turned())));
    assert!(!equal(&pairs(numbers()), &pairs(vec![1.into(), 2.into()])));
    assert_eq!(
        Key::of(&Value::FrozenSet(numbers())).unwrap(),
        Key::of(&Value::FrozenSet(turned())).unwrap()
    );
}

#[test]
fn what_changes_is_no_key() {
    let nested = tuple(vec![1.into(), tuple(vec![Value::List(vec![])])]);
    for value in [Value::List(vec![]), Value::Dict(vec![]), Value::Set(vec![]), nested] {
        let error = Key::of(&value).unwrap_err().to_string();
        assert!(error.starts_with("TypeError: \"unhashable type: '"), "{error}");
    }
}

#[test]
fn values_are_ordered_as_in_python() {
    let less = |one: Value, other: Value| compare(&one, &other).unwrap() == Some(Ordering::Less);
    assert!(less(1.into(), 1.5.into()));
    assert!(less(Value::Float(-1.5), Value::Int(-1)));
    assert!(less(Value::Int(i64::MAX), Value::Float(9.3e18)));
    assert!(less(Value::Int(5), Value::Float(f64::INFINITY)));
    assert!(less("a".into(), "b".into()));
    assert!(less(tuple(vec![1.into(), "a".into()]), tuple(vec![1.into(), "b".into()])));
    assert!(less(Value::List(vec![1.into()]), Value::List(vec![1.into(), 2.into()])));
    assert_eq!(compare(&1.into(), &f64::NAN.into()), Ok(None));
    let error = compare(&1.into(), &"a".into()).unwrap_err().to_string();
    assert!(error.contains("'int' and 'str'"), "{error}");
}

#[test]
fn texts_are_those_of_python() {
    for (value, expected) in [
        (Value::None, "None"),
        (Value::Float(1.0), "1.0"),
        (Value::Float(1e16), "1e+16"),
        (Value::Float(1e-5), "1e-05"),
        (Value::Float(f64::NAN), "nan"),
        (Value::Float(f64::NEG_INFINITY), "-inf"),
        ("it's".into(), "\"it's\""),
        ("both ' and \"\n".into(), "'both \\' and \"\\n'"),
        (Value::Bytes(vec![0, b'a', 0xff]), "b'\\x00a\\xff'"),
        (Value::ByteArray(vec![b'a']), "bytearray(b'a')"),
        (tuple(vec![1.into()]), "(1,)"),
        (tuple(vec![]), "()"),
        (Value::Set(vec![]), "set()"),
        (Value::FrozenSet(vec![1.into()]), "frozenset({1})"),
        (Value::Dict(vec![("a".into(), Value::List(vec![true.into()]))]), "{'a': [True]}"),
    ] {
        assert_eq!(repr(&value), expected);
    }
}

#[test]
fn slices_are_those_of_python() {
    let slice = |begin: Option<i64>, end: Option<i64>, step: Option<i64>| {
        let parts = [begin, end, step].map(|part| part.map_or(Value::None, Value::Int));
        match Place::of(&Object::call("builtins", "slice", parts.to_vec()).into()) {
            Ok(Place::Slice(slice)) => slice,
            _ => panic!("no slice"),
        }
    };
    // What `list(range(5))[slice]` is in Python.
    for (begin, end, step, expected) in [
        (None, None, None, vec![0, 1, 2, 3, 4]),
        (Some(1), Some(-1), None, vec![1, 2, 3]),
        (Some(-2), None, None, vec![3, 4]),
        (Some(3), Some(1), None, vec![]),
        (None, None, Some(-1), vec![4, 3, 2, 1, 0]),
        (None, None, Some(2), vec![0, 2, 4]),
        (Some(10), Some(-10), Some(-2), vec![4, 2, 0]),
        (Some(1), None, Some(i64::MAX), vec![1]),
        (Some(i64::MIN), Some(i64::MAX), Some(3), vec![0, 3]),
    ] {
        let slice = slice(begin, end, step);
        assert_eq!(slice.indices(5), expected, "{begin:?}:{end:?}:{step:?}");
        if slice.is_simple() {
            assert_eq!(slice.range(5).collect::<Vec<_>>(), expected);
        }
    }
    assert_eq!(slice::index(-1, 3), Some(2));
    assert_eq!(slice::index(-4, 3), None);
    assert_eq!(slice::bounded(-10, 3), 0);
}
