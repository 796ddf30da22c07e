//! Values of Python to values of Rust.

use std::vec;

use num_bigint::BigInt;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer as _, Error as _, IntoDeserializer, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::pickle::error::Error;
use crate::pickle::value::{Object, TOKEN, Value};

impl<'de> IntoDeserializer<'de, Error> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for Value {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::None => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Int(value) => visitor.visit_i64(value),
            Self::BigInt(value) => visit_big_int(&value, visitor),
            Self::Float(value) => visitor.visit_f64(value),
            Self::Bytes(bytes) | Self::ByteArray(bytes) => visitor.visit_byte_buf(bytes),
            Self::Str(text) => visitor.visit_string(text),
            Self::List(items) | Self::Tuple(items) | Self::Set(items) | Self::FrozenSet(items) => {
                visit_items(items, visitor)
            }
            Self::Dict(pairs) => visit_pairs(pairs, visitor),
            Self::Global(global) => {
                let words = format!("{}.{} itself", global.module, global.name);
                Err(Error::invalid_type(Unexpected::Other(&words), &visitor))
            }
            Self::Object(object) => visit_object(*object, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::None => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Bytes(bytes) | Self::ByteArray(bytes) => {
                let mut access = SeqDeserializer::new(bytes.into_iter());
                let value = visitor.visit_seq(&mut access)?;
                access.end()?;
                Ok(value)
            }
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == TOKEN {
            let (variant, content) = self.into_variant();
            return visitor.visit_enum(Itself { variant, content });
        }
        match self {
            Self::Str(variant) => visitor.visit_enum(variant.into_deserializer()),
            Self::Tuple(items) | Self::List(items) => {
                let mut items = items.into_iter();
                match items.next() {
                    Some(Self::Str(variant)) => visitor.visit_enum(Tagged { variant, items }),
                    _ => Err(Error::custom("a tuple that stands for an enum begins with a str")),
                }
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string
        bytes byte_buf unit unit_struct map struct identifier
    }
}

fn visit_big_int<'de, V: Visitor<'de>>(number: &BigInt, visitor: V) -> Result<V::Value, Error> {
    if let Ok(number) = u64::try_from(number) {
        visitor.visit_u64(number)
    } else if let Ok(number) = i128::try_from(number) {
        visitor.visit_i128(number)
    } else if let Ok(number) = u128::try_from(number) {
        visitor.visit_u128(number)
    } else {
        let words = format!("an int of {} bits", number.bits());
        Err(Error::invalid_type(Unexpected::Other(&words), &visitor))
    }
}

fn visit_items<'de, V: Visitor<'de>>(
    items: impl IntoIterator<Item = Value>,
    visitor: V,
) -> Result<V::Value, Error> {
    let mut access = SeqDeserializer::new(items.into_iter());
    let value = visitor.visit_seq(&mut access)?;
    access.end()?;
    Ok(value)
}

fn visit_pairs<'de, V: Visitor<'de>>(
    pairs: Vec<(Value, Value)>,
    visitor: V,
) -> Result<V::Value, Error> {
    let mut access = MapDeserializer::new(pairs.into_iter());
    let value = visitor.visit_map(&mut access)?;
    access.end()?;
    Ok(value)
}

/// What an instance holds: its items if it is like a list or a dictionary, or else its attributes.
fn visit_object<'de, V: Visitor<'de>>(object: Object, visitor: V) -> Result<V::Value, Error> {
    if !object.items.is_empty() {
        return visit_items(object.items, visitor);
    }
    if !object.pairs.is_empty() {
        return visit_pairs(object.pairs, visitor);
    }
    if let Some(Value::Dict(attributes)) = object.state {
        return visit_pairs(attributes, visitor);
    }
    let words = match object.class() {
        Some(class) => format!("a {}.{}", class.module, class.name),
        None => "an instance of an unnamed class".to_owned(),
    };
    Err(Error::invalid_type(Unexpected::Other(&words), &visitor))
}

/// A `Value` as the enum that it is.
struct Itself {
    variant: &'static str,
    content: Value,
}

impl<'de> de::EnumAccess<'de> for Itself {
    type Error = Error;
    type Variant = Content;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Content), Error> {
        let variant: de::value::StrDeserializer<'_, Error> = self.variant.into_deserializer();
        Ok((seed.deserialize(variant)?, Content(self.content)))
    }
}

/// The content of a variant of `Value`: of none, or one.
struct Content(Value);

impl<'de> VariantAccess<'de> for Content {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_any(visitor)
    }
}

/// An enum as a tuple of the variant's name and what is in it.
struct Tagged {
    variant: String,
    items: vec::IntoIter<Value>,
}

impl<'de> de::EnumAccess<'de> for Tagged {
    type Error = Error;
    type Variant = Contents;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Contents), Error> {
        let variant: de::value::StringDeserializer<Error> = self.variant.into_deserializer();
        Ok((seed.deserialize(variant)?, Contents(self.items)))
    }
}

/// What follows the name of a variant.
struct Contents(vec::IntoIter<Value>);

impl Contents {
    fn only(mut self) -> Result<Value, Error> {
        match (self.0.next(), self.0.len()) {
            (Some(value), 0) => Ok(value),
            (first, more) => {
                let count = more + usize::from(first.is_some());
                Err(Error::invalid_length(count, &"one value behind the name of a variant"))
            }
        }
    }
}

impl<'de> VariantAccess<'de> for Contents {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.0.len() {
            0 => Ok(()),
            count => Err(Error::invalid_length(count, &"nothing behind the name of a variant")),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.only()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        visit_items(self.0, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.only()?.deserialize_any(visitor)
    }
}
