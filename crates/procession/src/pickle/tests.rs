//! What becomes of which value, and that bad input is an error.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::thread;

use serde::{Deserialize, Serialize};

use super::*;

fn list(items: impl IntoIterator<Item = Value>) -> Value {
    Value::List(items.into_iter().collect())
}

fn tuple(items: impl IntoIterator<Item = Value>) -> Value {
    Value::Tuple(items.into_iter().collect())
}

fn dict(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Dict(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

/// A pickle of protocol 4 of these instructions.
fn read(instructions: &[u8]) -> Result<Value, Error> {
    Value::from_pickle(&[b"\x80\x04", instructions, b"."].concat())
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    name: String,
    price: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Order {
    Cancel,
    Add(Item),
    Move(u8, i8),
    Pay { amount: u64 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(u16);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Pair(bool, char);

/// Both directions.
#[track_caller]
fn assert_becomes<T>(rust: T, python: Value)
where
    T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(to_value(&rust).unwrap(), python);
    assert_eq!(from_slice::<T>(&to_vec(&rust).unwrap()).unwrap(), rust);
}

#[test]
fn values_of_rust_are_the_usual_ones_in_python() {
    assert_becomes(true, true.into());
    assert_becomes(-3_i8, (-3).into());
    assert_becomes(2.5_f32, 2.5.into());
    assert_becomes('ß', "ß".into());
    assert_becomes("text".to_owned(), "text".into());
    assert_becomes((), Value::None);
    assert_becomes(Unit, Value::None);
    assert_becomes(None::<u8>, Value::None);
    assert_becomes(Some(4_u8), 4.into());
    assert_becomes(Wrapped(5), 5.into());
    assert_becomes(vec![1, 2], list([1.into(), 2.into()]));
    assert_becomes((1, "a".to_owned()), tuple([1.into(), "a".into()]));
    assert_becomes(Pair(true, 'x'), tuple([true.into(), "x".into()]));
    assert_becomes(BTreeMap::from([("a".to_owned(), 1)]), dict([("a", 1.into())]));
    assert_becomes(BTreeSet::from([1, 2]), list([1.into(), 2.into()]));
    assert_becomes(serde_bytes::ByteBuf::from(b"raw"), Value::Bytes(b"raw".to_vec()));
    let item = Item { name: "bolt".to_owned(), price: None };
    assert_becomes(item, dict([("name", "bolt".into()), ("price", Value::None)]));
}

#[test]
fn variants_are_texts_and_tuples() {
    let item = Item { name: "bolt".to_owned(), price: Some(0.5) };
    let fields = dict([("name", "bolt".into()), ("price", 0.5.into())]);
    assert_becomes(Order::Cancel, "Cancel".into());
    assert_becomes(Order::Add(item), tuple(["Add".into(), fields]));
    assert_becomes(Order::Move(1, -1), tuple(["Move".into(), 1.into(), (-1).into()]));
    let amount = dict([("amount", 9.into())]);
    assert_becomes(Order::Pay { amount: 9 }, tuple(["Pay".into(), amount]));

    assert_eq!(from_value::<Order>(list(["Cancel".into()])), Ok(Order::Cancel));
    for wrong in [
        tuple([]),
        tuple([1.into()]),
        tuple(["Cancel".into(), 1.into()]),
        tuple(["Add".into()]),
        tuple(["Move".into(), 1.into()]),
        tuple(["Move".into(), 1.into(), 2.into(), 3.into()]),
        "Return".into(),
        7.into(),
    ] {
        let result = from_value::<Order>(wrong.clone());
        assert!(matches!(result, Err(Error::Mismatch(_))), "{wrong:?} became {result:?}");
    }
}

#[test]
fn integers_of_every_width_come_back() {
    assert_becomes(i64::MIN, i64::MIN.into());
    assert_becomes(u64::MAX, BigInt::from(u64::MAX).into());
    assert_becomes(i128::MIN, BigInt::from(i128::MIN).into());
    assert_becomes(u128::MAX, BigInt::from(u128::MAX).into());
    for number in [0, 1, -1, 255, 256, -128, 65_535, 65_536, 1 << 31, -(1 << 31), i64::MAX] {
        assert_eq!(from_slice::<i64>(&to_vec(&number).unwrap()), Ok(number));
        assert_eq!(from_slice::<i128>(&to_vec(&number).unwrap()), Ok(number.into()));
    }
    let huge = Value::from(BigInt::from(1) << 200);
    assert_eq!(Value::from_pickle(&huge.to_pickle().unwrap()).as_ref(), Ok(&huge));
    let error = from_value::<u128>(huge).unwrap_err().to_string();
    assert!(error.contains("an int of 201 bits"), "{error}");
    assert!(from_value::<u8>(300.into()).is_err());
    assert_eq!(from_value::<f64>(3.into()), Ok(3.0));
}

#[test]
fn collections_are_taken_for_each_other_where_nothing_is_lost() {
    let items = || vec![1.into(), 2.into()];
    let deque = Object { items: items(), ..Object::call("collections", "deque", vec![]) };
    for collection in [
        Value::List(items()),
        Value::Tuple(items()),
        Value::Set(items()),
        Value::FrozenSet(items()),
        Value::Bytes(vec![1, 2]),
        Value::ByteArray(vec![1, 2]),
        deque.into(),
    ] {
        assert_eq!(from_value::<Vec<u8>>(collection.clone()), Ok(vec![1, 2]), "{collection:?}");
        assert_eq!(from_value::<(u8, u8)>(collection.clone()), Ok((1, 2)), "{collection:?}");
        assert_eq!(from_value::<HashSet<u8>>(collection), Ok(HashSet::from([1, 2])));
    }
    assert!(from_value::<(u8, u8)>(Value::Tuple(vec![1.into(); 3])).is_err());
    assert!(from_value::<(u8, u8)>(Value::Bytes(vec![1; 3])).is_err());
}

#[test]
fn instances_with_attributes_become_structs() {
    let item = Item { name: "bolt".to_owned(), price: Some(0.5) };
    let fields = [("name".into(), "bolt".into()), ("price".into(), 0.5.into())];
    let attributes = Value::Dict(fields.to_vec());
    let instance = Object::instance("shop", "Item", vec![]).with_state(attributes);
    assert_eq!(from_value(instance.into()), Ok(item.clone()));
    let mut ordered = Object::call("collections", "OrderedDict", vec![]);
    ordered.pairs = fields.to_vec();
    assert_eq!(from_value(ordered.into()), Ok(item));

    let error = Object::call("builtins", "KeyError", vec!["x".into()]);
    let words = from_value::<Item>(error.into()).unwrap_err().to_string();
    assert!(words.contains("a builtins.KeyError"), "{words}");
    let class = Value::from(Global::new("shop", "Item"));
    let words = from_value::<Item>(class).unwrap_err().to_string();
    assert!(words.contains("shop.Item itself"), "{words}");
}

/// One value, as CPython 3.11 writes it in each protocol.
const BY_PROTOCOL: [&[u8]; 6] = [
    b"((lp0\nI01\naNaI-2\naL1180591620717411303424L\naF1.5\na(dp1\nV\xe9\\u000a\\u005c\np2\n\
      c_codecs\nencode\np3\n(V\\u0000\xff\np4\nVlatin1\np5\ntp6\nRp7\nsc__builtin__\nset\np8\n\
      ((lp9\nI7\natp10\nRp11\nc__builtin__\nfrozenset\np12\n((lp13\nI8\natp14\nRp15\n\
      c__builtin__\nbytearray\np16\n(g3\n(Vab\np17\ng5\ntp18\nRp19\ntp20\nRp21\n\
      c__builtin__\nbytes\np22\n(tRp23\nccopy_reg\n_reconstructor\np24\n(cshop\nP\np25\n\
      c__builtin__\nobject\np26\nNtp27\nRp28\n(dp29\nVx\np30\nI1\nsbtp31\n.",
    b"(]q\x00(I01\nNJ\xfe\xff\xff\xffL1180591620717411303424L\nG?\xf8\x00\x00\x00\x00\x00\x00e}\
      q\x01X\x04\x00\x00\x00\xc3\xa9\n\\q\x02c_codecs\nencode\nq\x03(X\x03\x00\x00\x00\x00\xc3\
      \xbfq\x04X\x06\x00\x00\x00latin1q\x05tq\x06Rq\x07sc__builtin__\nset\nq\x08(]q\tK\x07atq\n\
      Rq\x0bc__builtin__\nfrozenset\nq\x0c(]q\rK\x08atq\x0eRq\x0fc__builtin__\nbytearray\nq\x10\
      (h\x03(X\x02\x00\x00\x00abq\x11h\x05tq\x12Rq\x13tq\x14Rq\x15c__builtin__\nbytes\nq\x16)R\
      q\x17ccopy_reg\n_reconstructor\nq\x18(cshop\nP\nq\x19c__builtin__\nobject\nq\x1aNtq\x1bR\
      q\x1c}q\x1dX\x01\x00\x00\x00xq\x1eK\x01sbtq\x1f.",
    b"\x80\x02(]q\x00(\x88NJ\xfe\xff\xff\xff\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@G?\xf8\x00\
      \x00\x00\x00\x00\x00e}q\x01X\x04\x00\x00\x00\xc3\xa9\n\\q\x02c_codecs\nencode\nq\x03X\x03\
      \x00\x00\x00\x00\xc3\xbfq\x04X\x06\x00\x00\x00latin1q\x05\x86q\x06Rq\x07sc__builtin__\n\
      set\nq\x08]q\tK\x07a\x85q\nRq\x0bc__builtin__\nfrozenset\nq\x0c]q\rK\x08a\x85q\x0eRq\x0f\
      c__builtin__\nbytearray\nq\x10h\x03X\x02\x00\x00\x00abq\x11h\x05\x86q\x12Rq\x13\x85q\x14R\
      q\x15c__builtin__\nbytes\nq\x16)Rq\x17cshop\nP\nq\x18)\x81q\x19}q\x1aX\x01\x00\x00\x00x\
      q\x1bK\x01sbtq\x1c.",
    b"\x80\x03(]q\x00(\x88NJ\xfe\xff\xff\xff\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@G?\xf8\x00\
      \x00\x00\x00\x00\x00e}q\x01X\x04\x00\x00\x00\xc3\xa9\n\\q\x02C\x02\x00\xffq\x03scbuiltins\n\
      set\nq\x04]q\x05K\x07a\x85q\x06Rq\x07cbuiltins\nfrozenset\nq\x08]q\tK\x08a\x85q\nRq\x0b\
      cbuiltins\nbytearray\nq\x0cC\x02abq\r\x85q\x0eRq\x0fC\x00q\x10cshop\nP\nq\x11)\x81q\x12}\
      q\x13X\x01\x00\x00\x00xq\x14K\x01sbtq\x15.",
    b"\x80\x04\x95|\x00\x00\x00\x00\x00\x00\x00(]\x94(\x88NJ\xfe\xff\xff\xff\x8a\t\x00\x00\x00\
      \x00\x00\x00\x00\x00@G?\xf8\x00\x00\x00\x00\x00\x00e}\x94\x8c\x04\xc3\xa9\n\\\x94C\x02\x00\
      \xff\x94s\x8f\x94(K\x07\x90(K\x08\x91\x94\x8c\x08builtins\x94\x8c\tbytearray\x94\x93\x94C\
      \x02ab\x94\x85\x94R\x94C\x00\x94\x8c\x04shop\x94\x8c\x01P\x94\x93\x94)\x81\x94}\x94\x8c\
      \x01x\x94K\x01sbt\x94.",
    b"\x80\x05\x95f\x00\x00\x00\x00\x00\x00\x00(]\x94(\x88NJ\xfe\xff\xff\xff\x8a\t\x00\x00\x00\
      \x00\x00\x00\x00\x00@G?\xf8\x00\x00\x00\x00\x00\x00e}\x94\x8c\x04\xc3\xa9\n\\\x94C\x02\x00\
      \xff\x94s\x8f\x94(K\x07\x90(K\x08\x91\x94\x96\x02\x00\x00\x00\x00\x00\x00\x00ab\x94C\x00\
      \x94\x8c\x04shop\x94\x8c\x01P\x94\x93\x94)\x81\x94}\x94\x8c\x01x\x94K\x01sbt\x94.",
];

#[test]
fn every_protocol_says_the_same() {
    let expected = tuple([
        list([
            true.into(),
            Value::None,
            (-2).into(),
            BigInt::from(1_u128 << 70).into(),
            1.5.into(),
        ]),
        dict([("é\n\\", Value::Bytes(b"\x00\xff".to_vec()))]),
        Value::Set(vec![7.into()]),
        Value::FrozenSet(vec![8.into()]),
        Value::ByteArray(b"ab".to_vec()),
        Value::Bytes(Vec::new()),
        Object::instance("shop", "P", vec![]).with_state(dict([("x", 1.into())])).into(),
    ]);
    for (protocol, bytes) in BY_PROTOCOL.iter().enumerate() {
        let value = Value::from_pickle(bytes);
        assert_eq!(value.as_ref(), Ok(&expected), "protocol {protocol}");
        assert_eq!(from_value(value.unwrap()).as_ref(), Ok(&expected), "by way of serde");
    }
}

#[test]
fn part_of_a_pickle_is_an_error_wherever_it_ends() {
    for bytes in BY_PROTOCOL {
        for end in 0..bytes.len() {
            let result = Value::from_pickle(&bytes[..end]);
            assert!(matches!(result, Err(Error::Malformed { .. })), "{result:?} up to {end}");
        }
        let longer = [bytes, b"N"].concat();
        assert!(matches!(Value::from_pickle(&longer), Err(Error::Malformed { .. })));
    }
}

#[test]
fn malformed_pickles_are_errors() {
    for wrong in [
        &b""[..],                                 // nothing
        b"0",                                     // pops nothing
        b"(N0a",                                  // appends nothing to nothing
        b"e",                                     // no mark
        b"(e",                                    // appends to nothing
        b"NN",                                    // one too many
        b"(N",                                    // the mark is never popped
        b"]N}e",                                  // the same
        b"N(Ke",                                  // appends to None
        b"}(Nu",                                  // a key without a value
        b"NNN\x93",                               // names that are none
        b"NNR",                                   // arguments that are none
        b"N)N\x92",                               // keywords that are none
        b"Nb",                                    // a state for nothing
        b"]Nb",                                   // a state for a list
        b"N)RNbNb",                               // two states
        b"h\x00",                                 // nothing in the memo
        b"Nr\xff\xff\xff\xff",                    // far beyond the memo
        b"Np-1\n",                                // a negative number
        b"X\xff\xff\xff\x7fabc",                  // 2 GiB announced
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffa", // 16 EiB announced
        b"X\x01\x00\x00\x00\xff",                 // no UTF-8
        b"V\\u12\n",                              // half an escape
        b"V\\U00110000\n",                        // no character
        b"I\n",                                   // no digit
        b"I1_0\n",                                // not only digits
        b"F1,5\n",                                // no number
        b"S'a'\n",                                // written by Python 2 only
        b"\x00",                                  // no instruction
    ] {
        let result = read(wrong);
        let is_error = matches!(result, Err(Error::Malformed { .. }));
        assert!(is_error, "{} gives {result:?}", wrong.escape_ascii());
    }
    let digits = |count| [b"L", "7".repeat(count).as_bytes(), b"L\n"].concat();
    assert!(read(&digits(4300)).is_ok());
    assert!(read(&digits(4301)).is_err(), "reading digits takes the square of their time");
}

#[test]
fn what_only_python_can_resolve_is_refused() {
    for foreign in [
        &b"P1\n"[..],           // a persistent id
        b"NQ",                  // the same
        b"\x82\x01",            // a registered extension
        b"\x97",                // a buffer sent apart
        b"\x80\x06N",           // a protocol of the future
        b"cshop\nitem\n)R)R0N", // sets the state of something by a call
    ] {
        let result = read(foreign);
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
    }
}

#[test]
fn surrogates_are_a_clear_error() {
    for text in [&b"\x8c\x03\xed\xb2\x80"[..], b"\x8c\x05ab\xed\xa0\x80", b"V\\ud800\n"] {
        let error = read(text).unwrap_err();
        assert_eq!(error, Error::Surrogate { at: 2 });
        assert!(error.to_string().contains("surrogate"), "{error}");
    }
}

#[test]
fn values_that_contain_themselves_are_refused() {
    assert_eq!(read(b"]q\x00h\x00a"), Err(Error::Recursive));
    assert_eq!(read(b"}q\x00Nh\x00s"), Err(Error::Recursive));
    assert_eq!(read(b"]q\x00(h\x00tq\x010h\x01a"), Err(Error::Recursive));
    assert_eq!(read(b"cshop\nP\n)\x81q\x00h\x00b"), Err(Error::Recursive));
}

#[test]
fn shared_parts_are_copied() {
    let twice = list([list([1.into()]), list([1.into()])]);
    assert_eq!(read(b"]]q\x00K\x01aah\x00a").as_ref(), Ok(&twice));
    // Filled after it was referred to.
    assert_eq!(read(b"]]q\x00ah\x00ah\x00K\x01a0"), Ok(twice));
}

#[test]
fn copies_have_a_limit() {
    // A list of 2**30 lists, in 30 instructions.
    let step = &b"](h\x00h\x00eq\x000".repeat(30);
    let laughs = [&b"]q\x000"[..], step, b"h\x00"].concat();
    assert_eq!(read(&laughs), Err(Error::TooManyCopies));
    // A long text in many places, and a short one in very many.
    let text = [&b"X\xff\xff\x0f\x00"[..], &vec![b'x'; 0x0f_ffff], b"q\x00"].concat();
    let places = |count| [b"](", &text[..], &b"h\x00".repeat(count), b"e"].concat();
    assert!(read(&places(50)).is_ok());
    assert_eq!(read(&places(200)), Err(Error::TooManyCopies));
    let many = [&b"](\x8c\x08repeatedq\x00"[..], &b"h\x00".repeat(1_500_000), b"e"].concat();
    assert!(matches!(read(&many), Ok(Value::List(texts)) if texts.len() == 1_500_001));
}

#[test]
fn depth_has_a_limit_that_any_stack_has_room_for() {
    let nested = |levels: usize| (1..levels).fold(list([]), |inner, _| list([inner]));
    let test = move || {
        let deepest = nested(MAX_DEPTH);
        let bytes = deepest.to_pickle().unwrap();
        assert_eq!(Value::from_pickle(&bytes).as_ref(), Ok(&deepest));
        assert_eq!(from_slice::<Value>(&bytes).as_ref(), Ok(&deepest));
        assert_eq!(to_vec(&deepest).as_ref(), Ok(&bytes));
        assert_eq!(nested(MAX_DEPTH + 1).to_pickle(), Err(Error::TooDeep));
        let deeper = [b"]".repeat(MAX_DEPTH + 1), b"a".repeat(MAX_DEPTH)].concat();
        assert_eq!(read(&deeper), Err(Error::TooDeep));
        // Each list holds the one before, all of which have been resolved already.
        let step = |at: u8| [b"]h", &[at][..], b"aq", &[at + 1][..], b"a"].concat();
        let tower: Vec<u8> = (0..255).flat_map(step).collect();
        assert_eq!(read(&[&b"]]q\x00a"[..], &tower].concat()), Err(Error::TooDeep));
    };
    // The stack that threads of Rust have by default.
    thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn values_travel_through_other_formats_too() {
    let mut object = Object::call("shop", "make", vec![Value::ByteArray(vec![1])]);
    object.pairs.push((1.into(), Value::FrozenSet(vec![2.5.into()])));
    object.construct = Construct::New { keywords: vec![("key".into(), Value::None)] };
    object.state = Some(Value::None);
    let value = tuple([
        Value::from(object),
        Value::Dict(vec![(Value::Bytes(vec![0, 255]), BigInt::from(-3).pow(99).into())]),
        Value::Set(vec!["text".into(), true.into()]),
        list([Global::new("shop", "Item").into()]),
    ]);
    let bytes = postcard::to_allocvec(&value).unwrap();
    assert_eq!(postcard::from_bytes::<Value>(&bytes).as_ref(), Ok(&value));
    assert_eq!(to_value(&value).as_ref(), Ok(&value));
    assert_eq!(from_value::<Value>(value.clone()).as_ref(), Ok(&value));
    assert_eq!(Value::from_pickle(&value.to_pickle().unwrap()), Ok(value));
}
