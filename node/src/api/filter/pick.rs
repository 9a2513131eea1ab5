//! One value of a row, without making the row's JSON: what does not lie on the way to it is not looked at.

use std::fmt::Display;

use serde::{
    Serialize, Serializer,
    ser::{Impossible, SerializeMap, SerializeStruct},
};

/// What stands at a path, as text. JSON leaves out what has its default: that is empty here, and so is what has
/// parts of its own.
pub(super) fn text_at<T: Serialize + ?Sized>(row: &T, path: &[String]) -> String {
    row.serialize(Pick { path }).unwrap_or_default()
}

/// Looks for what stands at a path.
#[derive(Clone, Copy)]
struct Pick<'p> {
    path: &'p [String],
}

/// There is no such value.
#[derive(Debug, thiserror::Error)]
#[error("there is no value")]
struct Nothing;

impl serde::ser::Error for Nothing {
    fn custom<T: Display>(_: T) -> Nothing {
        Nothing
    }
}

type Found = Result<String, Nothing>;

impl Pick<'_> {
    fn found(self, value: impl ToString) -> Found {
        if self.path.is_empty() { Ok(value.to_string()) } else { Err(Nothing) }
    }
}

/// A message or a map, field by field.
struct Parts<'p> {
    pick: Pick<'p>,
    /// Of a map: whether the next value is the one.
    next: bool,
    found: Option<String>,
}

impl<'p> Parts<'p> {
    fn of(pick: Pick<'p>) -> Parts<'p> {
        Parts { pick, next: false, found: None }
    }

    fn look<T: Serialize + ?Sized>(&mut self, is_it: bool, value: &T) {
        if let (true, [_, rest @ ..]) = (is_it, self.pick.path) {
            self.found = value.serialize(Pick { path: rest }).ok();
        }
    }

    fn is_next(&self, key: &str) -> bool {
        self.pick.path.first().is_some_and(|step| step == key)
    }
}

impl SerializeStruct for Parts<'_> {
    type Ok = String;
    type Error = Nothing;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Nothing> {
        self.look(self.is_next(key), value);
        Ok(())
    }

    fn end(self) -> Found {
        self.found.ok_or(Nothing)
    }
}

impl SerializeMap for Parts<'_> {
    type Ok = String;
    type Error = Nothing;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Nothing> {
        self.next = self.is_next(&key.serialize(Pick { path: &[] })?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Nothing> {
        self.look(self.next, value);
        Ok(())
    }

    fn end(self) -> Found {
        self.found.ok_or(Nothing)
    }
}

/// Methods for values that are text.
macro_rules! texts {
    ($($method:ident($kind:ty);)*) => {
        $(fn $method(self, value: $kind) -> Found {
            self.found(value)
        })*
    };
}

impl<'p> Serializer for Pick<'p> {
    type Ok = String;
    type Error = Nothing;
    type SerializeSeq = Impossible<String, Nothing>;
    type SerializeTuple = Impossible<String, Nothing>;
    type SerializeTupleStruct = Impossible<String, Nothing>;
    type SerializeTupleVariant = Impossible<String, Nothing>;
    type SerializeMap = Parts<'p>;
    type SerializeStruct = Parts<'p>;
    type SerializeStructVariant = Impossible<String, Nothing>;

    texts! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
    }

    fn serialize_bytes(self, _: &[u8]) -> Found {
        Err(Nothing)
    }

    fn serialize_none(self) -> Found {
        Err(Nothing)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Found {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Found {
        Err(Nothing)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Found {
        Err(Nothing)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Found {
        self.found(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Found {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Found {
        Err(Nothing)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Nothing> {
        Err(Nothing)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Nothing> {
        Err(Nothing)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Nothing> {
        Err(Nothing)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Nothing> {
        Err(Nothing)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'p>, Nothing> {
        Ok(Parts::of(self))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'p>, Nothing> {
        Ok(Parts::of(self))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Nothing> {
        Err(Nothing)
    }
}
