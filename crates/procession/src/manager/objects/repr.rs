//! Values as Python shows them.

use std::fmt::Write;

use crate::pickle::Value;

/// The text that `repr` gives in Python for plain values; something like it for instances.
pub(in crate::manager) fn repr(value: &Value) -> String {
    let mut text = String::new();
    // Writing to a `String` does not fail.
    let _ = write_value(&mut text, value);
    text
}

/// The name of a value's class.
pub(super) fn type_name(value: &Value) -> &str {
    match value {
        Value::None => "NoneType",
        Value::Bool(_) => "bool",
        Value::Int(_) | Value::BigInt(_) => "int",
        Value::Float(_) => "float",
        Value::Bytes(_) => "bytes",
        Value::ByteArray(_) => "bytearray",
        Value::Str(_) => "str",
        Value::List(_) => "list",
        Value::Tuple(_) => "tuple",
        Value::Dict(_) => "dict",
        Value::Set(_) => "set",
        Value::FrozenSet(_) => "frozenset",
        Value::Global(_) => "type",
        Value::Object(object) => object.class().map_or("object", |class| class.name.as_str()),
    }
}

fn write_value(out: &mut String, value: &Value) -> std::fmt::Result {
    match value {
        Value::None => out.write_str("None"),
        Value::Bool(true) => out.write_str("True"),
        Value::Bool(false) => out.write_str("False"),
        Value::Int(value) => write!(out, "{value}"),
        Value::BigInt(value) => write!(out, "{value}"),
        Value::Float(value) => write_float(out, *value),
        Value::Bytes(bytes) => write_bytes(out, bytes),
        Value::ByteArray(bytes) => {
            out.write_str("bytearray(")?;
            write_bytes(out, bytes)?;
            out.write_char(')')
        }
        Value::Str(text) => write_str(out, text),
        Value::List(items) => write_all(out, ["[", "]"], items),
        Value::Tuple(items) if items.len() == 1 => write_all(out, ["(", ",)"], items),
        Value::Tuple(items) => write_all(out, ["(", ")"], items),
        Value::Set(items) if items.is_empty() => out.write_str("set()"),
        Value::Set(items) => write_all(out, ["{", "}"], items),
        Value::FrozenSet(items) if items.is_empty() => out.write_str("frozenset()"),
        Value::FrozenSet(items) => write_all(out, ["frozenset({", "})"], items),
        Value::Dict(pairs) => {
            out.write_char('{')?;
            for (at, (key, value)) in pairs.iter().enumerate() {
                out.write_str(if at > 0 { ", " } else { "" })?;
                write_value(out, key)?;
                out.write_str(": ")?;
                write_value(out, value)?;
            }
            out.write_char('}')
        }
        Value::Global(global) => write!(out, "<{}.{}>", global.module, global.name),
        Value::Object(object) => {
            write!(out, "<{} object>", object.class().map_or("an", |class| class.name.as_str()))
        }
    }
}

fn write_all(out: &mut String, [begin, end]: [&str; 2], items: &[Value]) -> std::fmt::Result {
    out.write_str(begin)?;
    for (at, item) in items.iter().enumerate() {
        out.write_str(if at > 0 { ", " } else { "" })?;
        write_value(out, item)?;
    }
    out.write_str(end)
}

fn write_float(out: &mut String, value: f64) -> std::fmt::Result {
    if value.is_nan() {
        return out.write_str("nan");
    }
    let size = value.abs();
    if value.is_infinite() || size == 0.0 || (1e-4..1e16).contains(&size) {
        return write!(out, "{value:?}");
    }
    // Python has at least two digits in the exponent, and its sign.
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    write!(out, "{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// The quotes around a text: those that need not be escaped, if possible.
fn quote_for(has_single: bool, has_double: bool) -> char {
    if has_single && !has_double { '"' } else { '\'' }
}

fn write_str(out: &mut String, text: &str) -> std::fmt::Result {
    let quote = quote_for(text.contains('\''), text.contains('"'));
    out.write_char(quote)?;
    for char in text.chars() {
        match char {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            char if char == quote => write!(out, "\\{char}")?,
            char if char.is_control() => write!(out, "\\x{:02x}", u32::from(char))?,
            char => out.write_char(char)?,
        }
    }
    out.write_char(quote)
}

fn write_bytes(out: &mut String, bytes: &[u8]) -> std::fmt::Result {
    let quote = quote_for(bytes.contains(&b'\''), bytes.contains(&b'"'));
    write!(out, "b{quote}")?;
    for byte in bytes {
        match byte {
            b'\\' => out.write_str("\\\\")?,
            b'\n' => out.write_str("\\n")?,
            b'\r' => out.write_str("\\r")?,
            b'\t' => out.write_str("\\t")?,
            byte if char::from(*byte) == quote => write!(out, "\\{quote}")?,
            b' '..=b'~' => out.write_char(char::from(*byte))?,
            byte => write!(out, "\\x{byte:02x}")?,
        }
    }
    out.write_char(quote)
}
