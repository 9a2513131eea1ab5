//! Logs that are damaged while nobody has them open.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Bytes of half a write.
const TORN_BYTES: usize = 300;
/// Frames that there must be to damage one in the middle: the last one alone may be cut.
const FRAMES_MIN: usize = 4;

/// What begins a frame: these bytes, the payload's length and the frame's number, little-endian, and two
/// checksums.
const MAGIC: &[u8] = b"NCF1";
const HEADER_BYTES: usize = 24;
const ALIGNMENT: usize = 8;

/// A bit that was flipped.
pub struct Flipped {
    segment: PathBuf,
    offset: u64,
    was: u8,
}

impl Flipped {
    pub(crate) fn flip(log: &Path) -> Result<Option<Flipped>> {
        let Segment { path, frames, .. } = Segment::newest(log)?;
        if frames.len() < FRAMES_MIN {
            return Ok(None);
        }
        let offset = (frames[frames.len() / 2] + HEADER_BYTES) as u64;
        let mut byte = [0];
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[byte[0] ^ 0x10], offset)?;
        file.sync_all()?;
        Ok(Some(Flipped { segment: path, offset, was: byte[0] }))
    }

    /// Takes it back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn mend(self) -> Result<()> {
        let file = OpenOptions::new().write(true).open(&self.segment)?;
        file.write_all_at(&[self.was], self.offset)?;
        Ok(file.sync_all()?)
    }
}

/// Writes noise behind the end of a log.
pub(crate) fn tear_tail(log: &Path) -> Result<usize> {
    let Segment { path, end, .. } = Segment::newest(log)?;
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(1..)).take(TORN_BYTES).collect();
    let file = OpenOptions::new().write(true).open(&path)?;
    file.write_all_at(&noise, end as u64)?;
    file.sync_all()?;
    Ok(TORN_BYTES)
}

/// A file of the log.
struct Segment {
    path: PathBuf,
    /// Where each frame begins.
    frames: Vec<usize>,
    /// Where the last one ends.
    end: usize,
    /// The number of the frame after the last.
    next: u64,
}

impl Segment {
    fn newest(log: &Path) -> Result<Segment> {
        let mut newest: Option<Segment> = None;
        for file in std::fs::read_dir(log)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "wal") {
                let segment = Segment::read(path)?;
                if newest.as_ref().is_none_or(|newest| newest.next < segment.next) {
                    newest = Some(segment);
                }
            }
        }
        newest.with_context(|| format!("{} holds nothing", log.display()))
    }

    /// Walks from frame to frame. A file is used again: what has another number was left behind.
    fn read(path: PathBuf) -> Result<Segment> {
        let bytes = std::fs::read(&path)?;
        let mut segment = Segment { path, frames: Vec::new(), end: 0, next: 0 };
        while let Some(header) = bytes.get(segment.end..segment.end + HEADER_BYTES) {
            let sequence = u64::from_le_bytes(header[8..16].try_into()?);
            let follows = segment.frames.is_empty() || sequence == segment.next;
            if &header[..4] != MAGIC || !follows {
                break;
            }
            let length = usize::try_from(u32::from_le_bytes(header[4..8].try_into()?))?;
            segment.frames.push(segment.end);
            segment.end += (HEADER_BYTES + length).next_multiple_of(ALIGNMENT);
            segment.next = sequence + 1;
        }
        Ok(segment)
    }
}
