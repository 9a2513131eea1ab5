//! A frame: the bytes of one group commit.
//!
//! ```text
//!  0        4        8                16             20          24
//!  magic    length   sequence number  previous crc   crc         payload, padded to 8 bytes
//! ```
//!
//! The sequence number and the checksum of the frame before tell a frame of this log from one that
//! an earlier use of the file left behind. Numbers are little-endian.

use super::Record;

pub(super) const HEADER_BYTES: usize = 24;
const ALIGNMENT: usize = 8;
const MAGIC: u32 = u32::from_le_bytes(*b"NCF1");
/// Longest payload that is written and believed.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Where a frame stands in the sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// The number of the next frame.
    pub(super) sequence: u64,
    /// The checksum of the frame before.
    pub(super) crc: u32,
}

/// What stands at some place.
pub(super) enum Found {
    /// A whole frame: its records, its length with header and padding, and what follows on it.
    Whole { records: Vec<Record>, bytes: usize, next: Link, previous_crc: u32, sequence: u64 },
    /// A frame that is whole but says what this program does not know.
    Unknown { sequence: u64 },
    /// No whole frame.
    Nothing,
}

/// The bytes of a frame with `records`, and the link after it.
pub(super) fn encode(records: &[Record], link: Link) -> (Vec<u8>, Link) {
    let mut bytes = vec![0; HEADER_BYTES];
    for record in records {
        let length_at = bytes.len();
        let begin = length_at + size_of::<u32>();
        bytes.resize(begin, 0);
        domain::codec::append(&mut bytes, record);
        let length = u32_of(bytes.len() - begin);
        bytes[length_at..begin].copy_from_slice(&length.to_le_bytes());
    }
    let length = bytes.len() - HEADER_BYTES;
    bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&u32_of(length).to_le_bytes());
    bytes[8..16].copy_from_slice(&link.sequence.to_le_bytes());
    bytes[16..20].copy_from_slice(&link.crc.to_le_bytes());
    let crc = checksum(&bytes);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    (bytes, Link { sequence: link.sequence + 1, crc })
}

/// The checksum of a frame's bytes without padding: all but the checksum itself.
fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..20]);
    hasher.update(&frame[HEADER_BYTES..]);
    hasher.finalize()
}

fn u32_of(length: usize) -> u32 {
    u32::try_from(length).expect("a group commit is far below 4 GiB")
}

/// Looks at the beginning of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Found {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let parse = || -> Option<Found> {
        if word(0)? != MAGIC {
            return None;
        }
        let length = usize::try_from(word(4)?).ok()?;
        let sequence = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
        let (previous_crc, crc) = (word(16)?, word(20)?);
        if length > PAYLOAD_BYTES_MAX {
            return None;
        }
        let frame = bytes.get(..HEADER_BYTES + length)?;
        if checksum(frame) != crc {
            return None;
        }
        let Some(records) = records(&frame[HEADER_BYTES..]) else {
            return Some(Found::Unknown { sequence });
        };
        let bytes = (HEADER_BYTES + length).next_multiple_of(ALIGNMENT);
        let next = Link { sequence: sequence + 1, crc };
        Some(Found::Whole { records, bytes, next, previous_crc, sequence })
    };
    parse().unwrap_or(Found::Nothing)
}

fn records(mut payload: &[u8]) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    while !payload.is_empty() {
        let (length, rest) = payload.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let encoded = rest.get(..length)?;
        records.push(domain::codec::decode(encoded).ok()?);
        payload = &rest[length..];
    }
    Some(records)
}

/// The offset of the first whole frame at or after `from` whose sequence number is at least
/// `sequence`.
pub(super) fn find_later(bytes: &[u8], from: usize, sequence: u64) -> Option<usize> {
    let mut at = from.next_multiple_of(ALIGNMENT);
    while at + HEADER_BYTES <= bytes.len() {
        if bytes[at..at + 4] == MAGIC.to_le_bytes()
            && let Found::Whole { sequence: found, .. } | Found::Unknown { sequence: found } =
                decode(&bytes[at..])
            && found >= sequence
        {
            return Some(at);
        }
        at += ALIGNMENT;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Ballot;

    fn ballot(term: u64) -> Record {
        Record::Ballot(Ballot { term, node: 1, committed: false })
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let link = Link { sequence: 5, crc: 77 };
        let (bytes, after) = encode(&[ballot(1), ballot(2)], link);
        let Found::Whole { records, bytes: length, next, previous_crc, sequence } = decode(&bytes)
        else {
            panic!("not whole")
        };
        assert_eq!(records, [ballot(1), ballot(2)]);
        assert_eq!((length, next, previous_crc, sequence), (bytes.len(), after, 77, 5));
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_noticed() {
        let (bytes, _) = encode(&[ballot(1)], Link::default());
        let Found::Whole { bytes: _, records, .. } = decode(&bytes) else { panic!("not whole") };
        let padding = bytes.len() - HEADER_BYTES - 4 - domain::codec::encode(&records[0]).len();
        for bit in 0..(bytes.len() - padding) * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&bent), Found::Nothing), "bit {bit}");
        }
        for end in 0..bytes.len() - padding {
            assert!(matches!(decode(&bytes[..end]), Found::Nothing), "cut at {end}");
        }
    }
}
