//! Reading the log back.

use std::path::Path;

use super::{
    Index, Record,
    frame::{self, Found, Link},
    segment,
};
use crate::error::DamageError;

/// Where writing goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tail {
    /// The newest segment; 0 when there is none.
    pub(super) segment: u64,
    /// The beginning of its last whole frame.
    pub(super) last: u64,
    /// The end of its last whole frame.
    pub(super) end: u64,
    pub(super) link: Link,
}

pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) tail: Tail,
}

/// Reads every segment. A broken end of the newest frame is cut: it was never acknowledged, since
/// nothing was written after it. Anything else that is broken is damage.
pub(super) fn recover(directory: &Path) -> Result<Recovered, DamageError> {
    let numbers = segment::list(directory).map_err(DamageError::io(directory))?;
    let mut index = Index::default();
    let mut tail = Tail::default();
    let mut started = false;
    for number in &numbers {
        let path = segment::path(directory, *number);
        let bytes = std::fs::read(&path).map_err(DamageError::io(&path))?;
        let damaged = |offset: usize, what: &str| DamageError::Damaged {
            file: path.clone(),
            offset: offset as u64,
            what: what.to_owned(),
        };
        let mut at = 0;
        while let Found::Whole { records, bytes: length, next, previous_crc, sequence } =
            frame::decode(&bytes[at..])
        {
            let first = at == 0;
            if !started {
                if !first || !matches!(records.first(), Some(Record::Checkpoint { .. })) {
                    return Err(damaged(at, "the oldest segment does not begin with a checkpoint"));
                }
            } else if sequence < tail.link.sequence {
                // Left behind by an earlier use of the file.
                break;
            } else if sequence > tail.link.sequence || previous_crc != tail.link.crc {
                return Err(damaged(at, "a frame before this one is missing"));
            }
            started = true;
            records.iter().for_each(|record| index.note(record));
            let last = at as u64;
            at += length;
            tail = Tail { segment: *number, last, end: at as u64, link: next };
        }
        if let Found::Unknown { sequence } = frame::decode(&bytes[at..])
            && (!started || sequence >= tail.link.sequence)
        {
            let what = "a frame says what this program does not know; a newer one wrote it";
            return Err(damaged(at, what));
        }
        // While nothing whole was read, any whole frame further on shows that the beginning is lost.
        let wanted = if started { tail.link.sequence } else { 0 };
        if let Some(later) = frame::find_later(&bytes, at, wanted) {
            let what = format!("a broken frame is followed by a whole one at byte {later}");
            return Err(damaged(at, &what));
        }
        let cut =
            bytes.get(at..at + frame::HEADER_BYTES).is_some_and(|header| header[..4] != [0; 4]);
        if cut && tail.segment == *number {
            tracing::info!(file = %path.display(), offset = at, "the log ends here; what follows was never acknowledged");
        }
    }
    if let Some(missing) = index.hole() {
        let what = format!("entry {missing} is missing from the log");
        return Err(DamageError::Inconsistent { directory: directory.to_owned(), what });
    }
    Ok(Recovered { index, tail })
}
