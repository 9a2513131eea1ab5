//! The thread that writes.

use std::{
    collections::BTreeMap,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Instant,
};

use super::{
    Index, Record, WalOptions, Write,
    frame::{self, Link},
    recovery::Tail,
    segment::{self, Segment},
};
use crate::metrics;

/// Whether a write is on the disk before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// It is.
    Always,
    /// It is not: acknowledged writes are lost when the power goes. Only for the test that shows
    /// that the power-cut test would notice.
    #[cfg(debug_assertions)]
    NeverForTests,
}

/// Most bytes of one group commit; more waits for the next.
const FRAME_BYTES_SOFT: usize = 8 << 20;
/// Most writes of one group commit.
const WRITES_MAX: usize = 4096;

pub(super) struct Writer {
    directory: PathBuf,
    options: WalOptions,
    segment: Segment,
    link: Link,
    index: Arc<RwLock<Index>>,
    /// The newest entry that each older segment holds.
    older: BTreeMap<u64, u64>,
    failed: bool,
    syncs: telemetry::series::Histogram,
    slowest_ms: Arc<AtomicU32>,
    written: telemetry::series::Counter,
}

impl Writer {
    /// Goes on at `tail`.
    pub(super) fn open(
        directory: &Path,
        options: WalOptions,
        tail: Tail,
        index: Arc<RwLock<Index>>,
    ) -> io::Result<Writer> {
        let last = index.read().unwrap_or_else(PoisonError::into_inner).last();
        let older: BTreeMap<u64, u64> = segment::list(directory)?
            .into_iter()
            .filter(|number| *number < tail.segment)
            // Which entries they hold is not read again: they go when all is purged up to here.
            .map(|number| (number, last.map_or(0, |last| last.index)))
            .collect();
        // Segments after the tail hold no frame: a crash came between making and using them.
        for number in segment::list(directory)? {
            if number > tail.segment {
                segment::retire(directory, number, options.segment_bytes)?;
            }
        }
        let fresh = tail.segment == 0;
        let segment = if fresh {
            segment::create(directory, 1, options.segment_bytes)?
        } else {
            segment::open(directory, tail.segment, tail.end)?
        };
        let directory = directory.to_owned();
        let mut writer = Writer {
            directory,
            options,
            segment,
            link: tail.link,
            index,
            older,
            failed: false,
            syncs: metrics::SYNC.of::<&str>([]),
            slowest_ms: Arc::default(),
            written: metrics::WRITTEN.of::<&str>([]),
        };
        // What a crashed process wrote may be in the page cache only, and after a failed sync the
        // kernel takes it for clean; from here on it counts as acknowledged. So the last frame,
        // the only one that can be unsynced, is written again.
        writer.rewrite(tail)?;
        if fresh {
            let checkpoint = writer.checkpoint();
            writer.frame(&[checkpoint])?;
        }
        Ok(writer)
    }

    fn rewrite(&self, tail: Tail) -> io::Result<()> {
        let length = usize::try_from(tail.end - tail.last).map_err(io::Error::other)?;
        let mut frame = vec![0; length];
        self.segment.file.read_exact_at(&mut frame, tail.last)?;
        self.segment.file.write_all_at(&frame, tail.last)?;
        self.segment.file.sync_data()
    }

    /// Writes until the last sender is gone.
    pub(super) fn run(mut self, writes: &mpsc::Receiver<Write>) {
        while let Ok(first) = writes.recv() {
            let mut batch = gather(first, writes);
            let result = self.commit(&mut batch);
            for write in batch {
                (write.done)(match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                });
            }
        }
    }

    fn commit(&mut self, batch: &mut [Write]) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other(
                "an earlier write failed; what the disk holds is unknown",
            ));
        }
        let result = self.write(batch);
        if let Err(error) = &result {
            self.failed = true;
            tracing::error!(directory = %self.directory.display(), %error, "cannot write the log; this node stops");
        }
        result
    }

    /// Writes a batch: one frame, or several when a single write carries very much.
    fn write(&mut self, batch: &mut [Write]) -> io::Result<()> {
        let records = batch.iter_mut().flat_map(|write| std::mem::take(&mut write.records));
        let records: Vec<Record> = records.collect();
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|record| {
                bytes += weight_bytes(record);
                bytes <= FRAME_BYTES_SOFT
            });
            let (frame, after) = rest.split_at(fits.count().max(1));
            self.frame(frame)?;
            rest = after;
        }
        self.retire_purged(&records)
    }

    /// The slowest sync, milliseconds; whoever looks sets it back.
    pub(super) fn slowest_ms(&self) -> Arc<AtomicU32> {
        self.slowest_ms.clone()
    }

    /// Writes one frame and syncs it.
    fn frame(&mut self, records: &[Record]) -> io::Result<()> {
        let (mut bytes, mut after) = frame::encode(records, self.link);
        if bytes.len() > frame::PAYLOAD_BYTES_MAX {
            return Err(io::Error::other("a record is longer than a frame may be"));
        }
        if self.segment.end + bytes.len() as u64 > self.segment.capacity && self.segment.end > 0 {
            self.rotate(bytes.len() as u64)?;
            let mut with_checkpoint = vec![self.checkpoint()];
            with_checkpoint.extend_from_slice(records);
            (bytes, after) = frame::encode(&with_checkpoint, self.link);
        }
        let begun = Instant::now();
        self.segment.file.write_all_at(&bytes, self.segment.end)?;
        match self.options.sync {
            SyncPolicy::Always => self.segment.file.sync_data()?,
            #[cfg(debug_assertions)]
            SyncPolicy::NeverForTests => {}
        }
        let took = begun.elapsed();
        self.syncs.record(took.as_secs_f64());
        let took_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        self.slowest_ms.fetch_max(took_ms, Ordering::Relaxed);
        self.written.increment(bytes.len() as u64);
        self.segment.end += bytes.len() as u64;
        self.link = after;
        Ok(())
    }

    /// Begins the next segment, long enough for a frame of `bytes`.
    fn rotate(&mut self, bytes: u64) -> io::Result<()> {
        const CHECKPOINT_BYTES: u64 = 1024;
        let last = self.index.read().unwrap_or_else(PoisonError::into_inner).last();
        self.older.insert(self.segment.number, last.map_or(0, |last| last.index));
        let capacity = self.options.segment_bytes.max(bytes + CHECKPOINT_BYTES);
        self.segment = segment::create(&self.directory, self.segment.number + 1, capacity)?;
        Ok(())
    }

    /// What earlier segments say besides entries. The index may be ahead of the disk: everything in
    /// it that is, is in a write that comes right after, in the same order.
    fn checkpoint(&self) -> Record {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        Record::Checkpoint {
            ballot: index.ballot,
            purged: index.purged,
            committed: index.committed,
        }
    }

    /// Gives up segments all of whose entries are purged.
    fn retire_purged(&mut self, records: &[Record]) -> io::Result<()> {
        let purged = records.iter().filter_map(|record| match record {
            Record::Purge(upto) => Some(upto.index),
            Record::Checkpoint { .. }
            | Record::Entry(_)
            | Record::Ballot(_)
            | Record::Truncate(_)
            | Record::Committed(_) => None,
        });
        let Some(purged) = purged.max() else { return Ok(()) };
        while let Some((number, newest)) = self.older.first_key_value().map(|(n, e)| (*n, *e)) {
            if newest > purged {
                break;
            }
            segment::retire(&self.directory, number, self.options.segment_bytes)?;
            self.older.remove(&number);
        }
        segment::sync_directory(&self.directory)
    }
}

/// About how many bytes a record takes.
fn weight_bytes(record: &Record) -> usize {
    match record {
        Record::Entry(entry) => match &entry.payload {
            crate::types::Payload::Proposal(bytes) => bytes.len() + 64,
            crate::types::Payload::Blank | crate::types::Payload::Members(_) => 1024,
        },
        Record::Checkpoint { .. }
        | Record::Ballot(_)
        | Record::Truncate(_)
        | Record::Purge(_)
        | Record::Committed(_) => 64,
    }
}

/// All that waits, up to the bounds of one group commit.
fn gather(first: Write, writes: &mpsc::Receiver<Write>) -> Vec<Write> {
    let weight = |write: &Write| write.records.iter().map(weight_bytes).sum::<usize>();
    let mut bytes = weight(&first);
    let mut batch = vec![first];
    while bytes < FRAME_BYTES_SOFT && batch.len() < WRITES_MAX {
        let Ok(write) = writes.try_recv() else { break };
        bytes += weight(&write);
        batch.push(write);
    }
    batch
}
