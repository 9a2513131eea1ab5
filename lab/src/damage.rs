//! Logs that are damaged while nobody has them open.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Bytes of half a write.
const TORN_BYTES: usize = 300;
/// Least that a segment must hold to be damaged in its middle: more than its last frame.
const USED_BYTES_MIN: u64 = 4 << 10;

/// A bit that was flipped.
pub struct Flipped {
    segment: PathBuf,
    offset: u64,
}

impl Flipped {
    pub(crate) fn flip(log: &Path) -> Result<Option<Flipped>> {
        let (segment, used) = newest(log)?;
        if used < USED_BYTES_MIN {
            return Ok(None);
        }
        let flipped = Flipped { segment, offset: used / 2 };
        flipped.toggle()?;
        Ok(Some(flipped))
    }

    /// Takes it back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn mend(self) -> Result<()> {
        self.toggle()
    }

    fn toggle(&self) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.segment)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.offset)?;
        file.write_all_at(&[byte[0] ^ 0x10], self.offset)?;
        Ok(file.sync_all()?)
    }
}

/// Writes noise behind the end of a log.
pub(crate) fn tear_tail(log: &Path) -> Result<usize> {
    let (segment, used) = newest(log)?;
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(1..)).take(TORN_BYTES).collect();
    let file = File::options().write(true).open(&segment)?;
    file.write_all_at(&noise, used)?;
    file.sync_all()?;
    Ok(TORN_BYTES)
}

/// The newest segment, and where its zeros begin.
fn newest(log: &Path) -> Result<(PathBuf, u64)> {
    let mut segments = Vec::new();
    for file in std::fs::read_dir(log)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            segments.push(path);
        }
    }
    segments.sort();
    // The next one is made before it is used.
    for segment in segments.into_iter().rev() {
        let bytes = std::fs::read(&segment)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            return Ok((segment, last as u64 + 1));
        }
    }
    None.with_context(|| format!("{} holds nothing", log.display()))
}
