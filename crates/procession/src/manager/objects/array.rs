//! `Array`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::manager::object::{Answer, Invocation, Outcome, Raised, Served};
use crate::manager::objects::list::items_of;
use crate::manager::objects::slice::{self, Place};
use crate::manager::objects::{named, repr};
use crate::pickle::{BigInt, Object, Value};

/// Numbers of one type, whose count does not change.
struct Array {
    code: Code,
    items: Mutex<Vec<Value>>,
}

/// The type of an array's numbers, as Python writes it.
#[derive(Clone, Copy)]
struct Code(char);

pub(super) fn make(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    let mut arguments = call.bind(&["typecode", "sequence", "lock"])?;
    let code = Code::of(arguments.next()?)?;
    let items = items_of(arguments.next()?)?;
    let items = items.into_iter().map(|item| code.check(item)).collect::<Result<_, _>>()?;
    Ok(Arc::new(Array { code, items: Mutex::new(items) }))
}

impl Code {
    fn of(code: char) -> Result<Self, Raised> {
        let text = "bad typecode (must be b, B, h, H, i, I, l, L, q, Q, f or d)";
        if "bBhHiIlLqQfd".contains(code) { Ok(Self(code)) } else { Err(Raised::value_error(text)) }
    }

    /// The number as the array keeps it, if it can.
    fn check(self, value: Value) -> Result<Value, Raised> {
        let number = match (self.0, value) {
            ('f', Value::Float(number)) => return Ok(Value::Float(f64::from(number as f32))),
            ('d', value @ Value::Float(_)) => return Ok(value),
            (_, Value::Int(number)) => BigInt::from(number),
            (_, Value::Bool(value)) => BigInt::from(u8::from(value)),
            (_, Value::BigInt(number)) => number,
            _ => return Err(Raised::type_error("an array holds numbers of its type")),
        };
        if matches!(self.0, 'f' | 'd') {
            let number: f64 = number.to_string().parse().unwrap_or(f64::INFINITY);
            return self.check(Value::Float(number));
        }
        let value = Value::from(number);
        match self.bytes_of(&value) {
            Some(_) => Ok(value),
            None => {
                let text =
                    format!("{} does not fit into an array of type {}", repr(&value), self.0);
                Err(Raised::builtin("OverflowError", text))
            }
        }
    }

    /// The number as it lies in memory, if there is room for it.
    fn bytes_of(self, value: &Value) -> Option<Vec<u8>> {
        let number: i128 = match value {
            Value::Float(number) if self.0 == 'f' => {
                return Some((*number as f32).to_ne_bytes().to_vec());
            }
            Value::Float(number) => return Some(number.to_ne_bytes().to_vec()),
            Value::Int(number) => (*number).into(),
            Value::BigInt(number) => number.try_into().ok()?,
            _ => return None,
        };
        Some(match self.0 {
            'b' => i8::try_from(number).ok()?.to_ne_bytes().to_vec(),
            'B' => u8::try_from(number).ok()?.to_ne_bytes().to_vec(),
            'h' => i16::try_from(number).ok()?.to_ne_bytes().to_vec(),
            'H' => u16::try_from(number).ok()?.to_ne_bytes().to_vec(),
            'i' => i32::try_from(number).ok()?.to_ne_bytes().to_vec(),
            'I' => u32::try_from(number).ok()?.to_ne_bytes().to_vec(),
            'l' | 'q' => i64::try_from(number).ok()?.to_ne_bytes().to_vec(),
            _ => u64::try_from(number).ok()?.to_ne_bytes().to_vec(),
        })
    }

    /// An array of these numbers, as managers of Python send it.
    fn array_of<'a>(self, items: impl IntoIterator<Item = &'a Value>) -> Value {
        let bytes = items.into_iter().filter_map(|item| self.bytes_of(item)).flatten().collect();
        Object::call("array", "array", vec![self.0.to_string().into(), Value::Bytes(bytes)]).into()
    }
}

impl Array {
    fn items(&self) -> MutexGuard<'_, Vec<Value>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get_item(&self, call: &mut Invocation<'_>) -> Answer {
        let place: Value = call.bind(&["index"])?.next()?;
        let items = self.items();
        Ok(match Place::of(&place)? {
            Place::One(place) => {
                let at = slice::index(place, items.len());
                let text = "array index out of range";
                items[at.ok_or_else(|| Raised::builtin("IndexError", text))?].clone().into()
            }
            Place::Slice(slice) => {
                let chosen = slice.indices(items.len());
                self.code.array_of(chosen.iter().map(|at| &items[*at])).into()
            }
        })
    }

    fn set_item(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(&["index", "value"])?;
        let (place, value): (Value, Value) = (arguments.next()?, arguments.next()?);
        let Place::One(place) = Place::of(&place)? else {
            return Err(Raised::type_error("one number of an array is set at a time"));
        };
        let value = self.code.check(value)?;
        let mut items = self.items();
        let at = slice::index(place, items.len());
        let text = "array assignment index out of range";
        let at = at.ok_or_else(|| Raised::builtin("IndexError", text))?;
        items[at] = value;
        Ok(Outcome::none())
    }
}

impl Served for Array {
    fn methods(&self) -> Vec<String> {
        named(&["__len__", "__getitem__", "__setitem__"])
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        match call.method() {
            "__getitem__" => self.get_item(call),
            "__setitem__" => self.set_item(call),
            "__len__" => {
                call.bind(&[])?;
                Outcome::of(&self.items().len())
            }
            _ => Err(call.unknown_method()),
        }
    }

    fn text(&self) -> String {
        format!("array('{}', {})", self.code.0, repr(&Value::List(self.items().clone())))
    }

    fn value(&self) -> Option<Value> {
        Some(self.code.array_of(self.items().iter()))
    }
}
