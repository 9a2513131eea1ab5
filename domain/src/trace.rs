//! Which trace something belongs to, as W3C's Trace Context has it: carried along, and decided by nobody.

use std::fmt;

use newtype_uuid::GenericUuid;
use serde::{Deserialize, Serialize};

use crate::operation::Operation;

/// A place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64, bool)", into = "(u64, u64, u64, bool)")]
pub struct Trace {
    /// The trace; never 0.
    pub id: TraceId,
    /// The span that others are children of; never 0.
    pub span: u64,
    /// Whether its spans are told.
    pub sampled: bool,
}

/// The identity of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<(u64, u64, u64, bool)> for Trace {
    fn from((high, low, span, sampled): (u64, u64, u64, bool)) -> Trace {
        Trace { id: TraceId(u128::from(high) << 64 | u128::from(low)), span, sampled }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of a number")]
impl From<Trace> for (u64, u64, u64, bool) {
    fn from(trace: Trace) -> (u64, u64, u64, bool) {
        ((trace.id.0 >> 64) as u64, trace.id.0 as u64, trace.span, trace.sampled)
    }
}

impl Trace {
    /// Reads a `traceparent`: `00-TRACE-SPAN-FLAGS` in hexadecimal.
    #[must_use]
    pub fn parse(text: &str) -> Option<Trace> {
        let hex = |text: &str, digits: usize| {
            let fits = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
            fits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
        };
        let mut parts = text.split('-');
        let version = hex(parts.next()?, 2)?;
        let id = hex(parts.next()?, 32).filter(|id| *id != 0)?;
        let span = u64::try_from(hex(parts.next()?, 16)?).ok().filter(|span| *span != 0)?;
        let flags = hex(parts.next()?, 2)?;
        // Later versions may say more; the first says no more.
        let is_known = version != 0xff && (version != 0 || parts.next().is_none());
        is_known.then_some(Trace { id: TraceId(id), span, sampled: flags & 1 == 1 })
    }

    /// The place of an operation's step of this number, below this place of the operation.
    #[must_use]
    pub fn step(self, number: usize) -> Trace {
        Trace { span: self.span.wrapping_add(number as u64 + 1).max(1), ..self }
    }
}

impl fmt::Display for Trace {
    /// As a `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.id, self.span, u8::from(self.sampled))
    }
}

impl Operation {
    /// The operation's own place: its children's parent. It follows from the operation's id and from when it was
    /// accepted, or taken up again, so that every node knows it. What nobody's call asked for, as a failover, is a trace of its own that is told.
    #[must_use]
    pub fn place_in_trace(&self) -> Trace {
        let id = self.id.as_untyped_uuid();
        let span = (id.as_u64_pair().1 ^ self.accepted_ms).max(1);
        let own = Trace { id: TraceId(id.as_u128()), span, sampled: true };
        self.trace.map_or(own, |asked| Trace { span, ..asked })
    }

    /// The same, as a part of another.
    #[must_use]
    pub(crate) fn part_of(self, whole: &Operation) -> Operation {
        Operation { parent: Some(whole.id), trace: Some(whole.place_in_trace()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_told() {
        let known = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(Trace::parse(known).unwrap().to_string(), known);
        let read: (u64, u64, u64, bool) = Trace::parse(known).unwrap().into();
        assert_eq!(Trace::from(read).to_string(), known);
        for (text, is_good) in [
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", true),
            // A later version, with more behind it.
            ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false),
            ("00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01", false),
            ("00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("", false),
        ] {
            assert_eq!(Trace::parse(text).is_some(), is_good, "{text}");
        }
    }
}
