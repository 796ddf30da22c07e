//! Values of Rust to values of Python.

use serde::Serialize;
use serde::ser::{self, Error as _};

use crate::pickle::error::Error;
use crate::pickle::value::{TOKEN, Value};

/// The serializer.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToValue;

impl ser::Serializer for ToValue {
    type Ok = Value;
    type Error = Error;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Pairs;
    type SerializeStruct = Pairs;
    type SerializeStructVariant = Pairs;

    fn serialize_bool(self, value: bool) -> Result<Value, Error> {
        Ok(value.into())
    }

    fn serialize_i8(self, value: i8) -> Result<Value, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<Value, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<Value, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<Value, Error> {
        Ok(value.into())
    }

    fn serialize_i128(self, value: i128) -> Result<Value, Error> {
        Ok(num_bigint::BigInt::from(value).into())
    }

    fn serialize_u8(self, value: u8) -> Result<Value, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<Value, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<Value, Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<Value, Error> {
        match i64::try_from(value) {
            Ok(value) => self.serialize_i64(value),
            Err(_) => self.serialize_u128(value.into()),
        }
    }

    fn serialize_u128(self, value: u128) -> Result<Value, Error> {
        Ok(num_bigint::BigInt::from(value).into())
    }

    fn serialize_f32(self, value: f32) -> Result<Value, Error> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Value, Error> {
        Ok(value.into())
    }

    fn serialize_char(self, value: char) -> Result<Value, Error> {
        Ok(value.to_string().into())
    }

    fn serialize_str(self, value: &str) -> Result<Value, Error> {
        Ok(value.into())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, Error> {
        Ok(Value::Bytes(value.to_owned()))
    }

    fn serialize_none(self) -> Result<Value, Error> {
        Ok(Value::None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, Error> {
        Ok(Value::None)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Value, Error> {
        Ok(Value::None)
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Value, Error> {
        // The only one of `Value` without content is `None`.
        Ok(if name == TOKEN { Value::None } else { variant.into() })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<Value, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, Error> {
        let content = value.serialize(self)?;
        if name == TOKEN {
            return Value::from_variant(variant, content);
        }
        Ok(Value::Tuple(vec![variant.into(), content]))
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Items, Error> {
        Ok(Items { items: Vec::new(), finish: Value::List })
    }

    fn serialize_tuple(self, _len: usize) -> Result<Items, Error> {
        Ok(Items { items: Vec::new(), finish: Value::Tuple })
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Items, Error> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Items, Error> {
        Ok(Items { items: vec![variant.into()], finish: Value::Tuple })
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Pairs, Error> {
        Ok(Pairs { variant: None, key: None, pairs: Vec::new() })
    }

    fn serialize_struct(self, _name: &'static str, len: usize) -> Result<Pairs, Error> {
        self.serialize_map(Some(len))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Pairs, Error> {
        Ok(Pairs { variant: Some(variant), key: None, pairs: Vec::new() })
    }
}

/// A list or tuple in the making.
#[derive(Debug)]
pub(super) struct Items {
    items: Vec<Value>,
    finish: fn(Vec<Value>) -> Value,
}

impl Items {
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.items.push(value.serialize(ToValue)?);
        Ok(())
    }

    fn finish(self) -> Value {
        (self.finish)(self.items)
    }
}

/// Serde has a trait for each kind of sequence, with the same two methods.
macro_rules! sequences {
    ($($kind:ident by $method:ident),+) => {$(
        impl ser::$kind for Items {
            type Ok = Value;
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.add(value)
            }

            fn end(self) -> Result<Value, Error> {
                Ok(self.finish())
            }
        }
    )+};
}

sequences!(
    SerializeSeq by serialize_element,
    SerializeTuple by serialize_element,
    SerializeTupleStruct by serialize_field,
    SerializeTupleVariant by serialize_field
);

/// A dictionary in the making.
#[derive(Debug)]
pub(super) struct Pairs {
    /// The variant of an enum that it is the content of.
    variant: Option<&'static str>,
    /// A key whose value is still to come.
    key: Option<Value>,
    pairs: Vec<(Value, Value)>,
}

impl Pairs {
    fn add<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
        self.pairs.push((key.into(), value.serialize(ToValue)?));
        Ok(())
    }

    fn finish(self) -> Value {
        let dict = Value::Dict(self.pairs);
        match self.variant {
            Some(variant) => Value::Tuple(vec![variant.into(), dict]),
            None => dict,
        }
    }
}

impl ser::SerializeMap for Pairs {
    type Ok = Value;
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key = Some(key.serialize(ToValue)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let key = self.key.take().ok_or_else(|| Error::custom("a value without a key"))?;
        self.pairs.push((key, value.serialize(ToValue)?));
        Ok(())
    }

    fn end(self) -> Result<Value, Error> {
        Ok(self.finish())
    }
}

/// Likewise for what has names.
macro_rules! structures {
    ($($kind:ident),+) => {$(
        impl ser::$kind for Pairs {
            type Ok = Value;
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.add(key, value)
            }

            fn end(self) -> Result<Value, Error> {
                Ok(self.finish())
            }
        }
    )+};
}

structures!(SerializeStruct, SerializeStructVariant);
