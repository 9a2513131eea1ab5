//! The log on disk: entries, the vote and what was committed, in the order in which they became
//! true.
//!
//! One thread writes. It takes all that waits, writes it as one checksummed frame, syncs once, and
//! then tells everybody in it. A frame is written only after the one before is on the disk, so a
//! broken frame that is followed by a whole one is damage, and a broken last frame was never
//! acknowledged. After a failed write or sync nothing is written any more: what the disk holds is
//! then unknown, and a second sync would lie.
//!
//! Frames stand in segment files that are written full of zeros beforehand and used again after
//! they are purged: a sync then has no file system metadata to write.

mod frame;
mod index;
mod recovery;
mod segment;
mod writer;

pub(crate) use index::Index;
pub use writer::SyncPolicy;

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use serde::{Deserialize, Serialize};

use crate::{
    error::DamageError,
    types::{Ballot, LogEntry, Position},
};

/// One thing that became true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// The first record of a segment: all that earlier segments said besides entries.
    Checkpoint {
        ballot: Option<Ballot>,
        purged: Option<Position>,
        committed: Option<Position>,
    },
    Entry(LogEntry),
    Ballot(Ballot),
    /// Entries after this one are no more; `None` leaves none.
    Truncate(Option<Position>),
    /// Entries up to this one are in a snapshot.
    Purge(Position),
    Committed(Position),
}

/// Called when a write is on the disk, or will never be.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Write {
    records: Vec<Record>,
    done: Done,
}

/// The sizes of the log's files.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Whether a write is synced before it is acknowledged.
    pub sync: SyncPolicy,
}

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions { segment_bytes: 16 << 20, sync: SyncPolicy::Always }
    }
}

/// The log of one node: records that are part of it at once, and durable some time later.
pub(crate) trait Journal: Send + Sync {
    /// What the log says now, whether or not it is on the disk yet.
    fn index(&self) -> RwLockReadGuard<'_, Index>;

    /// Makes `records` part of the log at once, and durable before `done` is called. Queued writes
    /// are bounded by openraft's own channels.
    fn write(&self, records: Vec<Record>, done: Done);

    /// Makes `record` part of the log with the next write. A later call replaces it.
    fn write_lazily(&self, record: Record);

    /// The slowest sync since this was asked last, milliseconds.
    fn slowest_sync_ms(&self) -> u32;

    /// Lets what waits be written, and ends. Blocks.
    fn close(&self);
}

impl dyn Journal + '_ {
    /// Writes and waits until it is on the disk.
    pub(crate) async fn write_durably(&self, records: Vec<Record>) -> io::Result<()> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.write(records, Box::new(move |result| drop(sender.send(result))));
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log's writer is gone")))
    }
}

/// The log of one node, in files.
pub(crate) struct Wal {
    index: Arc<RwLock<Index>>,
    /// What the next write takes along.
    lazy: Mutex<Option<Record>>,
    queue: Mutex<Option<mpsc::Sender<Write>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    slowest_ms: Arc<AtomicU32>,
}

impl Wal {
    /// Opens the log in `directory`, which is made if it does not exist.
    ///
    /// With `begun` the log is expected to be there: it is never taken for new when it has vanished.
    pub(crate) fn open(
        directory: &Path,
        options: WalOptions,
        begun: bool,
    ) -> Result<Wal, DamageError> {
        std::fs::create_dir_all(directory).map_err(DamageError::io(directory))?;
        let recovered = recovery::recover(directory)?;
        if begun && recovered.tail.segment == 0 {
            return Err(DamageError::Inconsistent {
                directory: directory.to_owned(),
                what: "the log is gone, though this directory was in use".to_owned(),
            });
        }
        let index = Arc::new(RwLock::new(recovered.index));
        let writer = writer::Writer::open(directory, options, recovered.tail, index.clone())
            .map_err(DamageError::io(directory))?;
        let slowest_ms = writer.slowest_ms();
        let (queue, writes) = mpsc::channel();
        let writer = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || writer.run(&writes))
            .map_err(DamageError::io(directory))?;
        let (queue, writer) = (Mutex::new(Some(queue)), Mutex::new(Some(writer)));
        Ok(Wal { index, lazy: Mutex::new(None), queue, writer, slowest_ms })
    }
}

impl Journal for Wal {
    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut records: Vec<Record>, done: Done) {
        // Behind the records: what was committed must not come before the entries it speaks of.
        records.extend(lock(&self.lazy).take());
        {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            records.iter().for_each(|record| index.note(record));
        }
        let queue = lock(&self.queue);
        let refused = match &*queue {
            Some(sender) => sender.send(Write { records, done }).err().map(|error| error.0),
            None => Some(Write { records, done }),
        };
        if let Some(write) = refused {
            (write.done)(Err(io::Error::other("the log is closed")));
        }
    }

    fn write_lazily(&self, record: Record) {
        *lock(&self.lazy) = Some(record);
    }

    fn slowest_sync_ms(&self) -> u32 {
        self.slowest_ms.swap(0, Ordering::Relaxed)
    }

    fn close(&self) {
        drop(lock(&self.queue).take());
        if let Some(writer) = lock(&self.writer).take() {
            // A writer that panicked has told its callers already.
            let _ = writer.join();
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
