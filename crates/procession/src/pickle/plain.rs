//! Recognizes plain values that are written as calls: by protocols before 4, and by managers.

use std::mem;

use crate::pickle::value::{Construct, Global, Object, Value};

/// The value itself if the object is a plain one that an older protocol has no instruction for;
/// the object in the form that newer protocols give it otherwise.
pub(super) fn simplify(mut object: Object) -> Value {
    let bare = object.items.is_empty() && object.pairs.is_empty();
    if object.construct != Construct::Call || !bare {
        return object.into();
    }
    let Value::Global(Global { module, name }) = &object.callable else { return object.into() };
    let plain = match (module.as_str(), name.as_str()) {
        ("copyreg", "_reconstructor") => return reconstructed(object),
        _ if object.state.is_some() => None,
        // How managers send what a view of a dictionary shows.
        ("builtins", "list") => take_list(&mut object.arguments).map(Value::List),
        ("builtins", "set") => take_list(&mut object.arguments).map(Value::Set),
        ("builtins", "frozenset") => take_list(&mut object.arguments).map(Value::FrozenSet),
        ("builtins", "bytes") if object.arguments.is_empty() => Some(Value::Bytes(Vec::new())),
        ("builtins", "bytearray") => take_bytes(&mut object.arguments).map(Value::ByteArray),
        ("_codecs", "encode") => latin_1(&object.arguments).map(Value::Bytes),
        _ => None,
    };
    plain.unwrap_or_else(|| object.into())
}

fn take_list(arguments: &mut [Value]) -> Option<Vec<Value>> {
    match arguments {
        [Value::List(items)] => Some(mem::take(items)),
        _ => None,
    }
}

fn take_bytes(arguments: &mut [Value]) -> Option<Vec<u8>> {
    match arguments {
        [] => Some(Vec::new()),
        [Value::Bytes(bytes)] => Some(mem::take(bytes)),
        _ => latin_1(arguments),
    }
}

/// Bytes as a text of the characters of the same numbers, the name of that encoding behind it.
fn latin_1(arguments: &[Value]) -> Option<Vec<u8>> {
    match arguments {
        [Value::Str(text), Value::Str(encoding)]
            if matches!(encoding.as_str(), "latin1" | "latin-1") =>
        {
            text.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect()
        }
        _ => None,
    }
}

/// How protocols 0 and 1 make an instance: `_reconstructor(class, object, None)`.
fn reconstructed(mut object: Object) -> Value {
    let is_usual = match object.arguments.as_slice() {
        [Value::Global(_), Value::Global(base), Value::None] => base.is("builtins", "object"),
        _ => false,
    };
    if is_usual {
        object.callable = object.arguments.swap_remove(0);
        object.arguments.clear();
        object.construct = Construct::New { keywords: Vec::new() };
    }
    object.into()
}
