//! The log as openraft sees it.

use std::{fmt::Debug, io, ops::Bound, ops::RangeBounds, sync::Arc};

use futures_util::{Stream, stream};
use openraft::{
    OptionalSend, RaftLogReader,
    alias::{LogIdOf, VoteOf},
    storage::{IOFlushed, LogState, RaftLogStorage},
};

use crate::{
    types::{Entry, LogEntry, TypeConfig},
    wal::{Journal, Record},
};

/// Bytes of entries that one replication request carries at most, and that one step of applying
/// loads: gRPC refuses messages over 4 MiB, and a node that catches up must not load its whole log.
const READ_BYTES_MAX: usize = 2 << 20;

/// The log of one node.
#[derive(Clone)]
pub(crate) struct Log(pub(crate) Arc<dyn Journal>);

impl Log {
    /// Entries from `from` on, at most `bytes_max` but at least one.
    fn read(&self, from: u64, upto: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let index = self.0.index();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in index.range(from, upto) {
            bytes += entry.bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone().into_entry()?);
        }
        Ok(entries)
    }

    fn last_index(&self) -> Option<u64> {
        self.0.index().last().map(|last| last.index)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let upto = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(upto) => *upto,
        Bound::Unbounded => u64::MAX,
    };
    (from, upto)
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, upto) = bounds(&range);
        self.read(from, upto, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES_MAX)
    }

    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, upto) = bounds(&range);
        let upto = upto.min(self.last_index().map_or(0, |last| last + 1));
        let pieces = stream::try_unfold((self.clone(), from), move |(log, from)| async move {
            if from >= upto {
                return Ok(None);
            }
            let entries = log.read(from, upto, READ_BYTES_MAX)?;
            // openraft would take what is missing for applied.
            let Some(last) = entries.last() else {
                return Err(io::Error::other(format!("entry {from} is missing from the log")));
            };
            let next = last.log_id.index + 1;
            Ok(Some((stream::iter(entries.into_iter().map(Ok)), (log, next))))
        });
        futures_util::TryStreamExt::try_flatten(pieces)
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<TypeConfig>>> {
        Ok(self.0.index().ballot.map(Into::into))
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let index = self.0.index();
        Ok(LogState {
            last_purged_log_id: index.purged.map(Into::into),
            last_log_id: index.last().map(Into::into),
        })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<TypeConfig>) -> io::Result<()> {
        self.0.write_durably(vec![Record::Ballot((*vote).into())]).await
    }

    /// Written with the next batch and not synced for itself: it only saves a restarted node from
    /// waiting for a leader before it serves stale reads.
    async fn save_committed(&mut self, committed: Option<LogIdOf<TypeConfig>>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.0.write_lazily(Record::Committed(committed.into()));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<TypeConfig>>> {
        let index = self.0.index();
        let reached = index.committed.filter(|committed| Some(*committed) <= index.last());
        Ok(reached.map(Into::into))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(|entry| Record::Entry(LogEntry::of(entry))).collect();
        self.0.write(records, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<TypeConfig>>) -> io::Result<()> {
        if last.map(|last| last.index) >= self.last_index() {
            return Ok(());
        }
        self.0.write_durably(vec![Record::Truncate(last.map(Into::into))]).await
    }

    async fn purge(&mut self, upto: LogIdOf<TypeConfig>) -> io::Result<()> {
        self.0.write(vec![Record::Purge(upto.into())], Box::new(|_| ()));
        Ok(())
    }
}
