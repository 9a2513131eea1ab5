//! What the log says, in memory: entries stay here until they are purged.

use std::collections::BTreeMap;

use super::Record;
use crate::types::{Ballot, LogEntry, Position};

/// The log's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) ballot: Option<Ballot>,
    pub(crate) purged: Option<Position>,
    pub(crate) committed: Option<Position>,
    entries: BTreeMap<u64, LogEntry>,
    /// Of all of them.
    bytes: usize,
}

impl Index {
    /// Takes one record into account.
    pub(crate) fn note(&mut self, record: &Record) {
        match record {
            Record::Checkpoint { ballot, purged, committed } => {
                self.ballot = *ballot;
                self.committed = *committed;
                if let Some(purged) = purged {
                    self.purge(*purged);
                }
            }
            // A checkpoint may tell of a purge whose own record comes after these entries.
            Record::Entry(entry) if self.purged.is_some_and(|p| entry.at.index <= p.index) => {}
            Record::Entry(entry) => {
                self.bytes += entry.bytes();
                let before = self.entries.insert(entry.at.index, entry.clone());
                self.forget(before);
            }
            Record::Ballot(ballot) => self.ballot = Some(*ballot),
            Record::Truncate(last) => {
                let gone = self.entries.split_off(&last.map_or(0, |last| last.index + 1));
                self.forget(gone.into_values());
            }
            Record::Purge(upto) => self.purge(*upto),
            Record::Committed(at) => self.committed = Some(*at),
        }
    }

    fn purge(&mut self, upto: Position) {
        let left = self.entries.split_off(&(upto.index + 1));
        let gone = std::mem::replace(&mut self.entries, left);
        self.forget(gone.into_values());
        self.purged = self.purged.max(Some(upto));
    }

    fn forget(&mut self, gone: impl IntoIterator<Item = LogEntry>) {
        self.bytes -= gone.into_iter().map(|entry| entry.bytes()).sum::<usize>();
    }

    /// About as many bytes as its entries take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest entry that must go for those after it to take so many bytes at most; none if all may stay.
    pub(crate) fn beyond(&self, bytes_max: usize) -> Option<u64> {
        let mut bytes = 0;
        let newest_first = self.entries.values().rev();
        let mut beyond = newest_first.skip_while(|entry| {
            bytes += entry.bytes();
            bytes <= bytes_max
        });
        beyond.next().map(|entry| entry.at.index)
    }

    /// The newest entry, or what was purged when none is left.
    pub(crate) fn last(&self) -> Option<Position> {
        self.entries.values().next_back().map(|entry| entry.at).or(self.purged)
    }

    /// Whether this very entry is in it, and was not purged.
    pub(crate) fn has(&self, at: Position) -> bool {
        self.entries.get(&at.index).is_some_and(|entry| entry.at == at)
    }

    /// The entries from `from` up to but not including `upto`.
    pub(crate) fn range(&self, from: u64, upto: u64) -> impl Iterator<Item = &LogEntry> {
        self.entries.range(from..upto.max(from)).map(|(_, entry)| entry)
    }

    /// The first index that is missing between what was purged and the newest entry.
    pub(crate) fn hole(&self) -> Option<u64> {
        let mut expected = self.purged.map(|purged| purged.index + 1);
        for index in self.entries.keys() {
            if expected.is_some_and(|expected| expected != *index) {
                return expected;
            }
            expected = Some(index + 1);
        }
        None
    }
}
