//! Values sent to the standard library of Python and back.

use std::collections::BTreeMap;
use std::process::ExitCode;

use procession::channel::connection::{Connection, Pickle, RecvError, SendError};
use procession::pickle::{self, BigInt, Global, Object, Value};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::{Deserialize, Serialize};

use crate::python::{FAMILIES, accept, connect, finish, newest, pythons};

mod python;

fn main() -> ExitCode {
    procession_testing::run(
        procession::init,
        procession_testing::tests![
            values_mean_the_same_in_python,
            messages_are_any_length,
            python_speaks_in_variants_of_an_enum,
            instances_arrive_as_what_makes_them,
            surrogates_are_refused_and_the_connection_goes_on,
            value_that_cannot_be_written_is_not_sent,
            any_value_comes_back_from_python_in_every_protocol
        ],
    )
}

type Values = Connection<Value, Value, Pickle>;

/// Compares what comes with what the expression in front of it gives, and sends the latter.
const COMPARE: &str = "
import collections, dataclasses, datetime, decimal, multiprocessing.managers

Point = collections.namedtuple('Point', 'x y')

@dataclasses.dataclass
class Item:
    name: str
    price: float

def serve(connection):
    while True:
        try:
            expression, received = connection.recv()
        except EOFError:
            break
        value = eval(expression)
        same = type(received) is type(value) and repr(received) == repr(value)
        connection.send((same, value))
";

fn list(items: impl IntoIterator<Item = Value>) -> Value {
    Value::List(items.into_iter().collect())
}

fn tuple(items: impl IntoIterator<Item = Value>) -> Value {
    Value::Tuple(items.into_iter().collect())
}

fn dict(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Dict(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

fn power_of_two(exponent: u32, sign: i32) -> Value {
    (BigInt::from(2).pow(exponent) * sign).into()
}

fn numbers_and_texts() -> Vec<(&'static str, Value)> {
    vec![
        ("None", Value::None),
        ("True", true.into()),
        ("False", false.into()),
        ("0", 0.into()),
        ("-1", (-1).into()),
        ("255", 255.into()),
        ("65536", 65536.into()),
        ("2**31", power_of_two(31, 1)),
        ("-2**31", power_of_two(31, -1)),
        ("2**63", power_of_two(63, 1)),
        ("-2**63", i64::MIN.into()),
        ("2**64", power_of_two(64, 1)),
        ("2**200", power_of_two(200, 1)),
        ("-2**200", power_of_two(200, -1)),
        ("2**3000", power_of_two(3000, 1)),
        ("1.5", 1.5.into()),
        ("-0.0", (-0.0).into()),
        ("float('inf')", f64::INFINITY.into()),
        ("float('nan')", f64::NAN.into()),
        ("''", "".into()),
        (r"'\x00\n\\\xe9\u20ac\U0001f600'", "\0\n\\é€😀".into()),
        ("'long ' * 100", "long ".repeat(100).into()),
        ("b''", Value::Bytes(vec![])),
        (r"b'\x00\xff'", Value::Bytes(vec![0, 255])),
        ("bytearray(b'ab')", Value::ByteArray(b"ab".to_vec())),
    ]
}

fn collections() -> Vec<(&'static str, Value)> {
    let nested = dict([("a", list([tuple([1.into()]), dict([]), tuple([])]))]);
    let mut ordered = Object::call("collections", "OrderedDict", vec![]);
    ordered.pairs.push(("a".into(), 1.into()));
    let mut deque = Object::call("collections", "deque", vec![]);
    deque.items.push(1.into());
    vec![
        ("[]", list([])),
        ("[1, 'a', None]", list([1.into(), "a".into(), Value::None])),
        ("()", tuple([])),
        ("(1,)", tuple([1.into()])),
        ("(1, 2)", tuple([1.into(), 2.into()])),
        ("(1, 2, 3)", tuple([1.into(), 2.into(), 3.into()])),
        ("(1, 2, 3, 4)", tuple([1.into(), 2.into(), 3.into(), 4.into()])),
        (
            "{2: 'a', None: 0.5}",
            Value::Dict(vec![(2.into(), "a".into()), (Value::None, 0.5.into())]),
        ),
        ("{'a': [(1,), {}, ()]}", nested),
        ("set()", Value::Set(vec![])),
        ("{7}", Value::Set(vec![7.into()])),
        ("frozenset({'a'})", Value::FrozenSet(vec!["a".into()])),
        ("list(range(30_000))", list((0..30_000).map(Value::Int))),
        ("collections.OrderedDict(a=1)", ordered.into()),
        ("collections.deque([1])", deque.into()),
    ]
}

fn objects() -> Vec<(&'static str, Value)> {
    let address = tuple(["localhost".into(), 6000.into()]);
    let token = tuple(["dict".into(), address, "7f00".into()]);
    let token = Object::instance("multiprocessing.managers", "Token", vec![]).with_state(token);
    let attributes = dict([("x", 1.into())]);
    let namespace =
        Object::instance("multiprocessing.managers", "Namespace", vec![]).with_state(attributes);
    vec![
        ("len", Global::new("builtins", "len").into()),
        ("KeyError('x')", Object::call("builtins", "KeyError", vec!["x".into()]).into()),
        ("complex(1, 2)", Object::call("builtins", "complex", vec![1.0.into(), 2.0.into()]).into()),
        ("multiprocessing.managers.Token('dict', ('localhost', 6000), '7f00')", token.into()),
        ("multiprocessing.managers.Namespace(x=1)", namespace.into()),
    ]
}

#[track_caller]
fn assert_same(received: &Value, expected: &Value, what: &str) {
    // Their bytes, as a NaN is not equal to itself.
    let same = received.to_pickle().unwrap() == expected.to_pickle().unwrap();
    assert!(same, "{what}: {received:?}, not {expected:?}");
}

fn values_mean_the_same_in_python() {
    let cases = [numbers_and_texts(), collections(), objects()].concat();
    // Each comes together with us in one of the ways; `connection_python` goes through all.
    let ways = FAMILIES.map(|family| [connect, accept].map(|join| (family, join))).concat();
    for (python, (family, join)) in pythons().zip(ways.into_iter().cycle()) {
        let (child, connection) = join(python, COMPARE, family, ["a key"; 2]);
        let connection = connection.unwrap().pickles::<(&str, Value), (bool, Value)>();
        for (expression, value) in &cases {
            connection.send(&(expression, value.clone())).unwrap();
            let (same, received) = connection.recv().unwrap();
            assert!(same, "{python} takes it for something else than {expression}");
            assert_same(&received, value, expression);
        }
        drop(connection);
        assert_eq!(finish(child), "");
    }
}

/// Sends back what comes.
const ECHO: &str = "
def serve(connection):
    while True:
        try:
            connection.send(connection.recv())
        except EOFError:
            break
";

fn messages_are_any_length() {
    let (child, connection) = connect(newest(), ECHO, "AF_UNIX", ["a key"; 2]);
    let connection: Values = connection.unwrap().pickles();
    for length in [0_usize, 1, 16_384, 65_536, 1 << 20] {
        // A pickle is somewhat longer than the bytes in it.
        for length in (length..length + 2).chain(length.saturating_sub(16)..length) {
            for value in [Value::Bytes(vec![b'x'; length]), "x".repeat(length).into()] {
                std::thread::scope(|scope| {
                    scope.spawn(|| connection.send(&value).unwrap());
                    assert!(connection.recv().unwrap() == value, "{length} bytes differ");
                });
            }
        }
    }
    drop(connection);
    assert_eq!(finish(child), "");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Request {
    Stock,
    Price(String),
    Buy { name: String, count: u32 },
}

#[derive(Debug, PartialEq, Deserialize)]
enum Reply {
    #[serde(rename = "#RETURN")]
    Return(Value),
    #[serde(rename = "#ERROR")]
    Error(Value),
}

fn python_speaks_in_variants_of_an_enum() {
    const SHOP: &str = "
def answer(request):
    if request == 'Stock':
        return ['bolt']
    if request[0] == 'Price':
        return {'bolt': 0.5}[request[1]]
    return (request[1]['name'], request[1]['count'])

def serve(connection):
    while True:
        try:
            reply = ('#RETURN', answer(connection.recv()))
        except KeyError as error:
            reply = ('#ERROR', error)
        except EOFError:
            break
        connection.send(reply)
";
    let (child, connection) = connect(newest(), SHOP, "AF_UNIX", ["a key"; 2]);
    let connection = connection.unwrap().pickles::<Request, Reply>();
    let ask = |request| {
        connection.send(&request).unwrap();
        connection.recv().unwrap()
    };
    assert_eq!(ask(Request::Stock), Reply::Return(list(["bolt".into()])));
    assert_eq!(ask(Request::Price("bolt".to_owned())), Reply::Return(0.5.into()));
    let missing = Object::call("builtins", "KeyError", vec!["nut".into()]);
    assert_eq!(ask(Request::Price("nut".to_owned())), Reply::Error(missing.into()));
    let bought = ask(Request::Buy { name: "bolt".to_owned(), count: 3 });
    assert_eq!(bought, Reply::Return(tuple(["bolt".into(), 3.into()])));
    drop(connection);
    assert_eq!(finish(child), "");
}

fn instances_arrive_as_what_makes_them() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Item {
        name: String,
        price: f64,
    }
    for python in pythons() {
        let (child, connection) = connect(python, COMPARE, "AF_UNIX", ["a key"; 2]);
        let connection = connection.unwrap().pickles::<(&str, Value), (bool, Value)>();
        let ask = |expression, value| {
            connection.send(&(expression, value)).unwrap();
            connection.recv().unwrap()
        };
        // Sent as Python would send them: it makes the same instances of that.
        let point = Object::instance("__main__", "Point", vec![1.into(), 2.into()]);
        assert_eq!(ask("Point(1, 2)", point.clone().into()), (true, point.into()));
        let attributes = dict([("name", "bolt".into()), ("price", 0.5.into())]);
        let item = Object::instance("__main__", "Item", vec![]).with_state(attributes);
        let (same, received) = ask("Item('bolt', 0.5)", item.clone().into());
        assert_eq!((same, &received), (true, &item.into()));
        let item = Item { name: "bolt".to_owned(), price: 0.5 };
        assert_eq!(pickle::from_value::<Item>(received), Ok(item));
        drop(connection);
        assert_eq!(finish(child), "");
    }
}

fn surrogates_are_refused_and_the_connection_goes_on() {
    const PROGRAM: &str = r"
def serve(connection):
    connection.send('\ud800')
    connection.send('next')
";
    let (child, connection) = connect(newest(), PROGRAM, "AF_UNIX", ["a key"; 2]);
    let connection = connection.unwrap().pickles::<(), String>();
    match connection.recv() {
        Err(RecvError::Deserialize(words)) => assert!(words.contains("surrogate"), "{words}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(connection.recv().unwrap(), "next");
    assert_eq!(finish(child), "");
}

fn value_that_cannot_be_written_is_not_sent() {
    let (child, connection) = connect(newest(), ECHO, "AF_UNIX", ["a key"; 2]);
    let connection: Values = connection.unwrap().pickles();
    let deep = (0..pickle::MAX_DEPTH).fold(list([]), |inner, _| list([inner]));
    let error = connection.send(&deep).unwrap_err();
    assert!(matches!(error, SendError::Serialize(_)), "{error}");
    connection.send(&1.into()).unwrap();
    assert_eq!(connection.recv().unwrap(), 1.into());
    drop(connection);
    assert_eq!(finish(child), "");
}

/// What may be a key or in a set. Nothing that is equal to something of another type, as 1 and 1.0.
fn hashable() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        any::<i64>().prop_map(Value::Int),
        any::<i8>().prop_map(|number| i64::from(number).into()),
        any::<Vec<u8>>().prop_map(|bytes| BigInt::from_signed_bytes_le(&bytes).into()),
        any::<String>().prop_map(Value::Str),
        any::<Vec<u8>>().prop_map(Value::Bytes),
    ];
    plain.prop_recursive(2, 8, 3, |inner| {
        let items = || prop::collection::vec(inner.clone(), 0..3);
        prop_oneof![
            items().prop_map(Value::Tuple),
            items().prop_map(|items| Value::FrozenSet(sorted(items))),
        ]
    })
}

/// Each once, in an order that only depends on what they are.
fn sorted(items: Vec<Value>) -> Vec<Value> {
    let by_bytes: BTreeMap<_, _> =
        items.into_iter().map(|item| (item.to_pickle().unwrap(), item)).collect();
    by_bytes.into_values().collect()
}

fn pairs(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<(Value, Value)>> {
    prop::collection::vec((hashable(), value), 0..4).prop_map(|pairs| {
        let by_bytes: BTreeMap<_, _> =
            pairs.into_iter().map(|pair| (pair.0.to_pickle().unwrap(), pair)).collect();
        by_bytes.into_values().collect()
    })
}

fn attributes(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::collection::btree_map("attribute_[a-z]", value, 1..3).prop_map(|attributes| {
        Value::Dict(attributes.into_iter().map(|(name, value)| (name.into(), value)).collect())
    })
}

/// Instances of classes that any Python has, in the form in which it sends them itself.
fn object(value: impl Strategy<Value = Value> + Clone + 'static) -> BoxedStrategy<Object> {
    let items = || prop::collection::vec(value.clone(), 0..3);
    prop_oneof![
        (items(), attributes(value.clone())).prop_map(|(arguments, state)| {
            Object::call("builtins", "ValueError", arguments).with_state(state)
        }),
        attributes(value.clone()).prop_map(|state| {
            Object::instance("multiprocessing.managers", "Namespace", vec![]).with_state(state)
        }),
        pairs(value.clone()).prop_map(|pairs| Object {
            pairs,
            ..Object::call("collections", "OrderedDict", vec![])
        }),
        items().prop_map(|items| Object { items, ..Object::call("collections", "deque", vec![]) }),
    ]
    .boxed()
}

fn value() -> impl Strategy<Value = Value> {
    use proptest::num::f64::{INFINITE, NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    let floats = POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO | INFINITE;
    let names = prop::sample::select(vec!["len", "print", "ValueError"]);
    let plain = prop_oneof![
        4 => hashable(),
        1 => Just(Value::None),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => floats.prop_map(Value::Float),
        1 => any::<Vec<u8>>().prop_map(Value::ByteArray),
        1 => names.prop_map(|name| Global::new("builtins", name).into()),
        1 => prop::collection::vec(hashable(), 0..5).prop_map(|items| Value::Set(sorted(items))),
    ];
    plain.prop_recursive(4, 40, 5, |inner| {
        let items = || prop::collection::vec(inner.clone(), 0..5);
        prop_oneof![
            items().prop_map(Value::List),
            items().prop_map(Value::Tuple),
            pairs(inner.clone()).prop_map(Value::Dict),
            object(inner.clone()).prop_map(Value::from),
        ]
    })
}

/// The same with every set in order, as Python has its own.
fn in_order(value: Value) -> Value {
    let all = |items: Vec<Value>| items.into_iter().map(in_order).collect::<Vec<_>>();
    let both = |pairs: Vec<(Value, Value)>| {
        pairs.into_iter().map(|(key, value)| (in_order(key), in_order(value))).collect::<Vec<_>>()
    };
    match value {
        Value::List(items) => Value::List(all(items)),
        Value::Tuple(items) => Value::Tuple(all(items)),
        Value::Set(items) => Value::Set(sorted(all(items))),
        Value::FrozenSet(items) => Value::FrozenSet(sorted(all(items))),
        Value::Dict(pairs) => Value::Dict(both(pairs)),
        Value::Object(object) => Value::from(Object {
            callable: object.callable,
            construct: object.construct,
            arguments: all(object.arguments),
            items: all(object.items),
            pairs: both(object.pairs),
            state: object.state.map(in_order),
        }),
        plain => plain,
    }
}

fn any_value_comes_back_from_python_in_every_protocol() {
    /// Loads a pickle and dumps it in the protocol that the byte in front of it says.
    const PROGRAM: &str = "
import pickle
def serve(connection):
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            break
        connection.send_bytes(pickle.dumps(pickle.loads(message[1:]), message[0]))
";
    let (child, connection) = connect(newest(), PROGRAM, "AF_UNIX", ["a key"; 2]);
    let connection = connection.unwrap();
    let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&(value(), 0..=5_u8), |(value, protocol)| {
        let bytes = value.to_pickle().unwrap();
        prop_assert_eq!(&Value::from_pickle(&bytes).unwrap(), &value, "without Python");
        prop_assert_eq!(&pickle::from_value::<Value>(value.clone()).unwrap(), &value);
        connection.send(&[&[protocol], &bytes[..]].concat()).unwrap();
        let received = Value::from_pickle(&connection.recv().unwrap());
        prop_assert_eq!(in_order(received.unwrap()), value, "protocol {}", protocol);
        Ok(())
    });
    drop(connection);
    assert_eq!(finish(child), "");
    outcome.unwrap();
}
