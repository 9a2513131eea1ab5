//! The one encoding of what is kept and sent: MessagePack with field names.
//!
//! A missing field takes its default; an unknown field or variant is an error. So an older program
//! that meets what it does not know stops before it applies it, and never skips a part silently.

use std::io::ErrorKind;

use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

/// Bytes that are no value of the wanted type.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {what}: {source}")]
pub struct DecodeError {
    /// The type.
    what: &'static str,
    /// What the decoder says.
    source: rmp_serde::decode::Error,
}

/// Encodes `value`.
///
/// # Panics
/// Never for the types of this crate: all of them are maps, sequences, texts and integers.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // What grows from nothing is copied again and again; most of what is encoded takes no more than this.
    let mut bytes = Vec::with_capacity(1024);
    append(&mut bytes, value);
    bytes
}

/// Encodes a value behind what there is.
///
/// # Panics
/// As [`encode`].
pub fn append<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    rmp_serde::encode::write_named(bytes, value).expect("plain data encodes");
}

/// Decodes one value that fills `bytes`.
///
/// # Errors
/// [`DecodeError`] for anything unknown, malformed or left over.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let what = std::any::type_name::<T>();
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    decoder.set_max_depth(64);
    let value = T::deserialize(&mut decoder).map_err(|source| DecodeError { what, source })?;
    // All of it was read when not even the first byte of another value follows.
    match IgnoredAny::deserialize(&mut decoder) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(error))
            if error.kind() == ErrorKind::UnexpectedEof =>
        {
            Ok(value)
        }
        Ok(_) | Err(_) => {
            let source = rmp_serde::decode::Error::Uncategorized("bytes are left over".to_owned());
            Err(DecodeError { what, source })
        }
    }
}
