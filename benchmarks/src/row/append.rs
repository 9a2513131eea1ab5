//! Row 12: the log by itself, beside a plain file that is written and synced.

use std::{fs::File, os::unix::fs::FileExt, path::Path, time::Instant};

use anyhow::Result;

use crate::{
    book::{Aim, Book},
    field::Extent,
};

/// Bytes of an entry.
const ENTRY_BYTES: usize = 256;
/// Entries that are written together.
const TOGETHER: [u64; 3] = [1, 16, 256];

/// Measures the row.
pub(crate) fn measure(extent: &Extent, book: &mut Book) -> Result<()> {
    let lasting = extent.lasting.counted / 2;
    for together in TOGETHER {
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..extent.rounds {
            let directory = tempfile::Builder::new().prefix("nc-log").tempdir_in("/tmp")?;
            let at = directory.path();
            ours.push(raft_store::measure::appended_per_s(
                &at.join("log"),
                ENTRY_BYTES,
                together,
                lasting,
            )?);
            plain.push(plain_file(&at.join("plain"), together, lasting)?);
        }
        let case = format!("{together} entries of {ENTRY_BYTES} bytes together");
        let figures = (ours, plain);
        book.beside(12, &case, "entries per s", figures, "plain file", Aim::TimesAtLeast(0.9));
    }
    Ok(())
}

/// Bytes of the plain file. It is written beforehand and then from its beginning again and again, as the log's
/// segments are: no sync has anything of the file system's to write.
const FILE_BYTES: usize = 16 << 20;

/// Writes to a plain file.
fn plain_file(path: &Path, together: u64, lasting: std::time::Duration) -> Result<f64> {
    let file = File::create(path)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0)?;
    file.sync_all()?;
    let bytes = vec![b'x'; ENTRY_BYTES * usize::try_from(together)?];
    let (begun, mut entries, mut at) = (Instant::now(), 0, 0);
    while begun.elapsed() < lasting {
        if at + bytes.len() > FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&bytes, at as u64)?;
        at += bytes.len();
        file.sync_data()?;
        entries += together;
    }
    Ok(entries as f64 / begun.elapsed().as_secs_f64())
}
