//! Containers beside those of the standard library, and the blocks that they own.

use proptest::prelude::*;

use super::*;
use crate::shm::Pins;

fn item(bytes: &[u8]) -> Item {
    Item::new(&[bytes], &Pins::default()).unwrap()
}

/// Values of all three forms: in the word, in a parcel, apart.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![6 => 0..12_usize, 3 => 12..300_usize, 1 => 32_760..32_780_usize];
    (len, any::<u8>()).prop_map(|(len, fill)| vec![fill; len])
}

/// How many blocks a value needs for itself.
fn blocks_of(value: &[u8]) -> usize {
    usize::from(value.len() > 7)
}

#[derive(Debug, Clone)]
enum DictStep {
    Insert(u8, Vec<u8>),
    Opaque(Vec<u8>),
    ReplaceOpaque(u64, Vec<u8>),
    Extend(Vec<(u8, Vec<u8>)>),
    Take(u8),
    RemoveOpaque(u64),
    PopLast,
    Clear,
}

fn dict_step() -> impl Strategy<Value = DictStep> {
    prop_oneof![
        8 => (any::<u8>(), value()).prop_map(|(key, value)| DictStep::Insert(key % 40, value)),
        2 => value().prop_map(DictStep::Opaque),
        1 => (1..5_u64, value()).prop_map(|(number, value)| DictStep::ReplaceOpaque(number, value)),
        3 => prop::collection::vec((0..40_u8, value()), 0..12).prop_map(DictStep::Extend),
        4 => any::<u8>().prop_map(|key| DictStep::Take(key % 40)),
        1 => (1..5_u64).prop_map(DictStep::RemoveOpaque),
        2 => Just(DictStep::PopLast),
        1 => Just(DictStep::Clear),
    ]
}

/// Key bytes of all lengths, a whole word and more.
fn key(number: u8) -> Vec<u8> {
    vec![number; usize::from(number) + 1]
}

/// The bytes of a key, or the number of an opaque one.
type ModelKey = Result<Vec<u8>, u64>;

/// Entries in their order.
#[derive(Debug, Default)]
struct Model {
    entries: Vec<(ModelKey, Vec<u8>)>,
    serial: u64,
}

impl Model {
    fn insert(&mut self, key: ModelKey, value: Vec<u8>) {
        match self.entries.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key, value)),
        }
    }

    fn take(&mut self, key: &ModelKey) -> Option<Vec<u8>> {
        let at = self.entries.iter().position(|(known, _)| known == key)?;
        Some(self.entries.remove(at).1)
    }

    /// Blocks that the entries need.
    fn blocks(&self) -> usize {
        let of_key = |key: &ModelKey| match key {
            Ok(bytes) => blocks_of(bytes),
            Err(_) => 1,
        };
        self.entries.iter().map(|(key, value)| of_key(key) + blocks_of(value)).sum()
    }
}

fn run(dict: &ByteDict, model: &mut Model, step: DictStep) {
    let none = Pins::default();
    let mut guard = dict.lock();
    match step {
        DictStep::Insert(number, value) => {
            let bytes = key(number);
            let new = NewKey::Bytes { bytes: &bytes, label: b"", pins: &none };
            assert!(guard.insert(&new, item(&value)).unwrap());
            model.insert(Ok(bytes), value);
        }
        DictStep::Opaque(value) => {
            guard.insert(&NewKey::Opaque { label: b"label", pins: &none }, item(&value)).unwrap();
            model.serial += 1;
            model.insert(Err(model.serial), value);
        }
        DictStep::ReplaceOpaque(number, value) => {
            let known = model.entries.iter().any(|(key, _)| *key == Err(number));
            assert_eq!(guard.insert(&NewKey::Known(number), item(&value)).unwrap(), known);
            if known {
                model.insert(Err(number), value);
            }
        }
        DictStep::Extend(entries) => {
            let keys: Vec<_> = entries.iter().map(|(number, _)| key(*number)).collect();
            let changes = keys.iter().zip(&entries).map(|(bytes, (_, value))| Change {
                key: NewKey::Bytes { bytes, label: b"", pins: &none },
                value: item(value),
            });
            guard.extend(changes.collect()).unwrap();
            entries.into_iter().for_each(|(number, value)| model.insert(Ok(key(number)), value));
        }
        DictStep::Take(number) => {
            let taken = guard.take(Key::Bytes(&key(number))).unwrap();
            assert_eq!(taken.map(|value| value.to_vec()), model.take(&Ok(key(number))));
        }
        DictStep::RemoveOpaque(number) => {
            let removed = guard.remove(Key::Opaque(number)).unwrap();
            assert_eq!(removed, model.take(&Err(number)).is_some());
        }
        DictStep::PopLast => {
            let popped =
                guard.pop_last().unwrap().map(|(key, value)| (owned(&key), value.to_vec()));
            assert_eq!(popped, model.entries.pop());
        }
        DictStep::Clear => {
            guard.clear().unwrap();
            model.entries.clear();
        }
    }
}

fn owned(key: &StoredKey) -> ModelKey {
    match key.key() {
        Key::Bytes(bytes) => Ok(bytes.to_vec()),
        Key::Opaque(number) => Err(number),
    }
}

fn compare(dict: &ByteDict, model: &Model) {
    let guard = dict.lock();
    let entries = guard.entries().unwrap();
    let entries: Vec<_> = entries.iter().map(|(key, value)| (owned(key), value.to_vec())).collect();
    assert_eq!(entries, model.entries);
    assert_eq!(guard.len(), model.entries.len());
    let opaque = model.entries.iter().filter(|(key, _)| key.is_err()).count();
    assert_eq!((guard.opaque(), guard.opaque_keys().unwrap().len()), (opaque, opaque));
    for (key, value) in &model.entries {
        let key = match key {
            Ok(bytes) => Key::Bytes(bytes),
            Err(number) => Key::Opaque(*number),
        };
        assert_eq!(guard.get(key).unwrap().unwrap().to_vec(), *value);
    }
    let table = guard.blocks() - model.blocks();
    assert!(table <= 1, "{table} blocks too many");
}

#[derive(Debug, Clone)]
enum ListStep {
    Extend(Vec<Vec<u8>>),
    Set(usize, Vec<u8>),
    Remove(usize, usize),
    Take(usize),
    Reverse,
    Replace(usize, usize, Vec<Vec<u8>>),
    Clear,
}

fn list_step() -> impl Strategy<Value = ListStep> {
    let several = || prop::collection::vec(value(), 0..9);
    prop_oneof![
        6 => several().prop_map(ListStep::Extend),
        4 => (0..40_usize, value()).prop_map(|(at, value)| ListStep::Set(at, value)),
        3 => (0..40_usize, 0..40_usize).prop_map(|(start, end)| ListStep::Remove(start, end)),
        3 => (0..40_usize).prop_map(ListStep::Take),
        1 => Just(ListStep::Reverse),
        2 => (0..40_usize, 0..9_usize, several())
            .prop_map(|(at, count, new)| ListStep::Replace(at, count, new)),
        1 => Just(ListStep::Clear),
    ]
}

fn run_list(list: &ByteList, model: &mut Vec<Vec<u8>>, step: ListStep) {
    let mut guard = list.lock();
    match step {
        ListStep::Extend(values) => {
            guard.extend(values.iter().map(|value| item(value)).collect()).unwrap();
            model.extend(values);
        }
        ListStep::Set(at, value) => {
            assert_eq!(guard.set(at, item(&value)).unwrap(), at < model.len());
            if let Some(place) = model.get_mut(at) {
                *place = value;
            }
        }
        ListStep::Remove(start, end) => {
            guard.remove(start..end).unwrap();
            let end = end.min(model.len());
            model.drain(start.min(end)..end);
        }
        ListStep::Take(at) => {
            let taken = guard.take(at).unwrap().map(|value| value.to_vec());
            assert_eq!(taken, (at < model.len()).then(|| model.remove(at)));
        }
        ListStep::Reverse => {
            guard.rearrange((0..model.len()).rev().map(Element::Kept).collect()).unwrap();
            model.reverse();
        }
        ListStep::Replace(at, count, new) => {
            let start = at.min(model.len());
            let end = (start + count).min(model.len());
            let mut elements: Vec<_> = (0..model.len()).map(Element::Kept).collect();
            elements.splice(start..end, new.iter().map(|value| Element::New(item(value))));
            // A position that is named again, or that there is not, is left out.
            elements.extend([Element::Kept(model.len()), Element::Kept(0)]);
            if (start..end).contains(&0) {
                elements.pop();
            }
            guard.rearrange(elements).unwrap();
            model.splice(start..end, new);
        }
        ListStep::Clear => {
            guard.clear().unwrap();
            model.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn dict_does_what_a_vector_of_pairs_does(steps in prop::collection::vec(dict_step(), 1..120)) {
        let dict = ByteDict::new().unwrap();
        let mut model = Model::default();
        for step in steps {
            run(&dict, &mut model, step);
            compare(&dict, &model);
        }
        dict.lock().clear().unwrap();
        prop_assert_eq!(dict.lock().blocks(), 0);
    }

    #[test]
    fn list_does_what_a_vector_does(steps in prop::collection::vec(list_step(), 1..80)) {
        let list = ByteList::new().unwrap();
        let mut model = Vec::new();
        for step in steps {
            run_list(&list, &mut model, step);
            let guard = list.lock();
            let values = guard.values().unwrap();
            let values: Vec<_> = values.iter().map(|value| value.to_vec()).collect();
            prop_assert_eq!(&values, &model);
            let needed: usize = model.iter().map(|value| blocks_of(value)).sum();
            prop_assert!(guard.blocks() - needed <= 1);
        }
        list.lock().clear().unwrap();
        prop_assert_eq!(list.lock().blocks(), 0);
    }
}

#[test]
fn versions_tell_what_changed() {
    let none = Pins::default();
    let dict = ByteDict::new().unwrap();
    let mut guard = dict.lock();
    let versions = |guard: &DictGuard<'_>| (guard.version(), guard.keys_version());
    let new = NewKey::Bytes { bytes: b"key", label: b"", pins: &none };
    let empty = versions(&guard);
    guard.insert(&new, item(b"1")).unwrap();
    let one = versions(&guard);
    assert!(empty.0 != one.0 && empty.1 != one.1);
    guard.insert(&new, item(b"2")).unwrap();
    let replaced = versions(&guard);
    assert!(one.0 != replaced.0 && one.1 == replaced.1);
    assert!(!guard.remove(Key::Bytes(b"other")).unwrap());
    assert_eq!(versions(&guard), replaced);
}

#[test]
fn label_is_that_of_the_first() {
    let none = Pins::default();
    let dict = ByteDict::new().unwrap();
    for label in [b"first", b"other"] {
        let key = NewKey::Bytes { bytes: b"key", label, pins: &none };
        dict.lock().insert(&key, item(b"value")).unwrap();
    }
    let keys = dict.lock().keys().unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!((keys[0].key(), keys[0].label()), (Key::Bytes(b"key"), &b"first"[..]));
}

#[test]
fn key_is_not_found_by_the_beginning_of_another_with_its_label() {
    let none = Pins::default();
    let dict = ByteDict::new().unwrap();
    let key = NewKey::Bytes { bytes: b"ab", label: b"cd", pins: &none };
    dict.lock().insert(&key, item(b"value")).unwrap();
    assert!(!dict.lock().contains(Key::Bytes(b"abcd")).unwrap());
    assert!(!dict.lock().contains(Key::Bytes(b"a")).unwrap());
    assert!(dict.lock().contains(Key::Bytes(b"ab")).unwrap());
}

#[test]
fn values_keep_what_they_name() {
    let outer: Dict<String, List<u32>> = Dict::new().unwrap();
    let inner = List::new().unwrap();
    inner.push(&7).unwrap();
    outer.insert("inner", &inner).unwrap();
    drop(inner);
    let found = outer.get("inner").unwrap().unwrap();
    assert_eq!(found.to_vec().unwrap(), [7]);
    outer.clear().unwrap();
    drop(outer);
    assert_eq!(found.to_vec().unwrap(), [7]);
}

#[test]
fn popping_to_the_last_and_filling_again_keeps_every_key() {
    let dict: Dict<u32, u32> = Dict::new().unwrap();
    for round in 0..50 {
        for number in 0..20 {
            dict.insert(&number, &round).unwrap();
        }
        for number in (round % 20..20).rev() {
            assert_eq!(dict.pop().unwrap(), Some((number, round)));
        }
        assert_eq!(dict.len() as u32, round % 20);
    }
}
