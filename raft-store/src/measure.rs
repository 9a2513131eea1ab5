//! How fast the log is by itself, for benchmarks.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    types::{LogEntry, Payload, Position},
    wal::{Journal, Record, Wal, WalOptions},
};

/// Appends entries of so many bytes to a new log in `directory`, so many together, each time waiting until they are
/// on the disk. The answer is how many entries a second were.
///
/// # Errors
/// When the log cannot be made or written.
pub fn appended_per_s(
    directory: &Path,
    entry_bytes: usize,
    together: u64,
    lasting: Duration,
) -> io::Result<f64> {
    /// Entries that stay in the log before the older ones are let go, as after a snapshot.
    const KEPT: u64 = 10_000;
    let wal = Wal::open(directory, WalOptions::default(), false).map_err(io::Error::other)?;
    let payload = Bytes::from(vec![b'x'; entry_bytes]);
    let at = |index| Position { term: 1, node: 1, index };
    let (begun, mut index, mut purged) = (Instant::now(), 0, 0);
    while begun.elapsed() < lasting {
        let mut records: Vec<Record> = (index + 1..=index + together)
            .map(|index| {
                let payload = Payload::Proposal(payload.clone());
                Record::Entry(LogEntry { at: at(index), payload })
            })
            .collect();
        index += together;
        if index - purged > 2 * KEPT {
            purged = index - KEPT;
            records.push(Record::Purge(at(purged)));
        }
        let (done, written) = std::sync::mpsc::channel();
        wal.write(records, Box::new(move |result| drop(done.send(result))));
        written.recv().map_err(io::Error::other)??;
    }
    Ok(index as f64 / begun.elapsed().as_secs_f64())
}
