//! Writes values, as protocol 4.
//!
//! Nothing is put into the memo, as a tree refers to nothing twice; there are no frames, which are
//! only a hint for readers of files.

use num_bigint::BigInt;

use crate::pickle::MAX_DEPTH;
use crate::pickle::error::Error;
use crate::pickle::graph::BYTE_ARRAY_HEIGHT;
use crate::pickle::op;
use crate::pickle::value::{Construct, Global, Object, Value};

const PROTOCOL: u8 = 4;

/// Writes a value with all that belongs to a pickle.
pub(super) fn encode(value: &Value) -> Result<Vec<u8>, Error> {
    let mut out = vec![op::PROTO, PROTOCOL];
    write(&mut out, value, MAX_DEPTH)?;
    out.push(op::STOP);
    Ok(out)
}

/// Writes a value that may have so many levels.
fn write(out: &mut Vec<u8>, value: &Value, levels: usize) -> Result<(), Error> {
    let below = levels.checked_sub(1).ok_or(Error::TooDeep)?;
    match value {
        Value::None => out.push(op::NONE),
        Value::Bool(true) => out.push(op::NEWTRUE),
        Value::Bool(false) => out.push(op::NEWFALSE),
        Value::Int(number) => write_int(out, *number)?,
        Value::BigInt(number) => write_big_int(out, number)?,
        Value::Float(number) => {
            out.push(op::BINFLOAT);
            out.extend(number.to_be_bytes());
        }
        Value::Bytes(bytes) => write_bytes(out, bytes),
        Value::ByteArray(bytes) => {
            if levels < BYTE_ARRAY_HEIGHT {
                return Err(Error::TooDeep);
            }
            write_byte_array(out, bytes);
        }
        Value::Str(text) => write_str(out, text),
        Value::List(items) => {
            out.push(op::EMPTY_LIST);
            write_items(out, items, op::APPENDS, below)?;
        }
        Value::Tuple(items) => write_tuple(out, items, below)?,
        Value::Dict(pairs) => {
            out.push(op::EMPTY_DICT);
            write_pairs(out, pairs, below)?;
        }
        Value::Set(items) => {
            out.push(op::EMPTY_SET);
            write_items(out, items, op::ADDITEMS, below)?;
        }
        Value::FrozenSet(items) => {
            out.push(op::MARK);
            write_all(out, items, below)?;
            out.push(op::FROZENSET);
        }
        Value::Global(global) => write_global(out, global),
        Value::Object(object) => write_object(out, object, below)?,
    }
    Ok(())
}

fn write_int(out: &mut Vec<u8>, number: i64) -> Result<(), Error> {
    if let Ok(number) = u8::try_from(number) {
        out.extend([op::BININT1, number]);
    } else if let Ok(number) = u16::try_from(number) {
        out.push(op::BININT2);
        out.extend(number.to_le_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        out.push(op::BININT);
        out.extend(number.to_le_bytes());
    } else {
        write_big_int(out, &number.into())?;
    }
    Ok(())
}

fn write_big_int(out: &mut Vec<u8>, number: &BigInt) -> Result<(), Error> {
    let bytes = number.to_signed_bytes_le();
    if let Ok(length) = u8::try_from(bytes.len()) {
        out.extend([op::LONG1, length]);
    } else {
        let length = i32::try_from(bytes.len()).map_err(|_| Error::TooLarge)?;
        out.push(op::LONG4);
        out.extend(length.to_le_bytes());
    }
    out.extend(bytes);
    Ok(())
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_counted(out, [op::SHORT_BINBYTES, op::BINBYTES, op::BINBYTES8], bytes);
}

fn write_str(out: &mut Vec<u8>, text: &str) {
    let codes = [op::SHORT_BINUNICODE, op::BINUNICODE, op::BINUNICODE8];
    write_counted(out, codes, text.as_bytes());
}

/// Writes bytes behind their number, with the instruction for a number of 1, 4 or 8 bytes.
fn write_counted(out: &mut Vec<u8>, [short, medium, long]: [u8; 3], bytes: &[u8]) {
    out.reserve(bytes.len() + 9);
    if let Ok(length) = u8::try_from(bytes.len()) {
        out.extend([short, length]);
    } else if let Ok(length) = u32::try_from(bytes.len()) {
        out.push(medium);
        out.extend(length.to_le_bytes());
    } else {
        out.push(long);
        out.extend((bytes.len() as u64).to_le_bytes());
    }
    out.extend(bytes);
}

/// Only protocol 5 has an instruction for it.
fn write_byte_array(out: &mut Vec<u8>, bytes: &[u8]) {
    write_global(out, &Global::new("builtins", "bytearray"));
    write_bytes(out, bytes);
    out.extend([op::TUPLE1, op::REDUCE]);
}

fn write_global(out: &mut Vec<u8>, global: &Global) {
    write_str(out, &global.module);
    write_str(out, &global.name);
    out.push(op::STACK_GLOBAL);
}

fn write_all(out: &mut Vec<u8>, values: &[Value], levels: usize) -> Result<(), Error> {
    values.iter().try_for_each(|value| write(out, value, levels))
}

/// Adds items to what was written before.
fn write_items(out: &mut Vec<u8>, items: &[Value], code: u8, levels: usize) -> Result<(), Error> {
    if items.is_empty() {
        return Ok(());
    }
    out.push(op::MARK);
    write_all(out, items, levels)?;
    out.push(code);
    Ok(())
}

/// Adds keys and values to what was written before.
fn write_pairs(out: &mut Vec<u8>, pairs: &[(Value, Value)], levels: usize) -> Result<(), Error> {
    if pairs.is_empty() {
        return Ok(());
    }
    out.push(op::MARK);
    for (key, value) in pairs {
        write(out, key, levels)?;
        write(out, value, levels)?;
    }
    out.push(op::SETITEMS);
    Ok(())
}

fn write_tuple(out: &mut Vec<u8>, items: &[Value], levels: usize) -> Result<(), Error> {
    let code = match items.len() {
        0 => op::EMPTY_TUPLE,
        1 => op::TUPLE1,
        2 => op::TUPLE2,
        3 => op::TUPLE3,
        _ => {
            out.push(op::MARK);
            op::TUPLE
        }
    };
    write_all(out, items, levels)?;
    out.push(code);
    Ok(())
}

fn write_object(out: &mut Vec<u8>, object: &Object, levels: usize) -> Result<(), Error> {
    let below = levels.checked_sub(1).ok_or(Error::TooDeep)?;
    write(out, &object.callable, levels)?;
    write_tuple(out, &object.arguments, below)?;
    match &object.construct {
        Construct::Call => out.push(op::REDUCE),
        Construct::New { keywords } if keywords.is_empty() => out.push(op::NEWOBJ),
        Construct::New { keywords } => {
            out.push(op::EMPTY_DICT);
            write_pairs(out, keywords, below)?;
            out.push(op::NEWOBJ_EX);
        }
    }
    write_items(out, &object.items, op::APPENDS, levels)?;
    write_pairs(out, &object.pairs, levels)?;
    if let Some(state) = &object.state {
        write(out, state, levels)?;
        out.push(op::BUILD);
    }
    Ok(())
}
