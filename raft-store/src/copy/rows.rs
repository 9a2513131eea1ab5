//! Keys and values of the copy. Each value is preceded by a checksum over key and value.

use domain::{Revision, codec, event::RowKey, id::Digest};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What a row is.
pub(super) enum Key {
    /// The one summary.
    Summary,
    /// A row of the state.
    Row(RowKey),
    /// Remembered requests that follow each other: the first one's log index.
    Requests(u64),
    /// Events that follow each other: the first one's revision, and how many they are.
    Events(Revision, u32),
}

impl Key {
    pub(super) const ROWS: &[u8] = b"r";
    pub(super) const REQUESTS: &[u8] = b"q";
    pub(super) const EVENTS: &[u8] = b"e";
    pub(super) const EVENTS_END: &[u8] = b"f";

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Key::Summary => b"s".to_vec(),
            Key::Row(key) => [Key::ROWS, &codec::encode(key)].concat(),
            Key::Requests(first) => [Key::REQUESTS, &first.to_be_bytes()].concat(),
            Key::Events(first, count) => {
                [Key::EVENTS, &first.as_u64().to_be_bytes(), &count.to_be_bytes()].concat()
            }
        }
    }

    /// The first request of a key's bytes.
    pub(super) fn first_request(bytes: &[u8]) -> Option<u64> {
        let index = bytes.strip_prefix(Key::REQUESTS)?.first_chunk::<8>()?;
        Some(u64::from_be_bytes(*index))
    }

    /// How many events a key's bytes speak of.
    pub(super) fn event_count(bytes: &[u8]) -> Option<u32> {
        let count = bytes.strip_prefix(Key::EVENTS)?.last_chunk::<4>()?;
        Some(u32::from_be_bytes(*count))
    }
}

/// The encoded value behind its checksum.
pub(super) fn seal<T: Serialize>(key: &Key, value: &T) -> Vec<u8> {
    let encoded = codec::encode(value);
    [&checksum(&key.bytes(), &encoded), encoded.as_slice()].concat()
}

pub(super) fn unseal<T: DeserializeOwned>(key: &Key, sealed: &[u8]) -> Result<T, String> {
    unseal_raw(&key.bytes(), sealed)
}

pub(super) fn unseal_raw<T: DeserializeOwned>(key: &[u8], sealed: &[u8]) -> Result<T, String> {
    codec::decode(checked(key, sealed)?).map_err(|error| error.to_string())
}

fn checked<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], String> {
    let (crc, value) = sealed.split_first_chunk::<4>().ok_or("a value is cut")?;
    if checksum(key, value) != *crc {
        return Err("a checksum does not match".to_owned());
    }
    Ok(value)
}

/// The same for values that are much alike and are seldom read: compressed.
pub(super) struct Packer(zstd::bulk::Compressor<'static>);

impl Packer {
    pub(super) fn new() -> Packer {
        // Both fail only without memory.
        Packer(zstd::bulk::Compressor::new(PACKED_LEVEL).expect("a compressor can be made"))
    }

    pub(super) fn seal<T: Serialize>(&mut self, key: &Key, value: &T) -> Vec<u8> {
        let encoded = codec::encode(value);
        let packed = self.0.compress(&encoded).expect("what lies in memory is compressed");
        [&checksum(&key.bytes(), &packed), packed.as_slice()].concat()
    }
}

/// The fastest.
const PACKED_LEVEL: i32 = 1;

pub(super) fn unseal_packed<T: DeserializeOwned>(key: &[u8], sealed: &[u8]) -> Result<T, String> {
    let packed = checked(key, sealed)?;
    let encoded = zstd::decode_all(packed).map_err(|error| error.to_string())?;
    codec::decode(&encoded).map_err(|error| error.to_string())
}

fn checksum(key: &[u8], encoded: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(encoded);
    hasher.finalize().to_le_bytes()
}

/// A hash of a set of rows that is kept up to date row by row: the exclusive or of their digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint(Digest);

impl Default for Fingerprint {
    fn default() -> Fingerprint {
        Fingerprint(Digest::ZERO)
    }
}

impl Fingerprint {
    /// Adds the row if it is not in the set, and removes it if it is.
    pub(super) fn toggle(&mut self, key: &[u8], value: &[u8]) {
        let digest = Digest::of(&[key, value]);
        let mut bytes = *self.0.as_bytes();
        bytes.iter_mut().zip(digest.as_bytes()).for_each(|(mine, theirs)| *mine ^= theirs);
        self.0 = Digest::from_bytes(bytes);
    }
}
