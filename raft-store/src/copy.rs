//! The copy of the state and its history in sled.
//!
//! Written behind the applies by a thread of its own, which never holds them up: it takes the newest
//! view and catches up from the view it wrote last. It is never the only copy. Whatever is wrong
//! with it (sled refuses or panics, a checksum, a missing row) ends in making it again, so it may
//! fail in any way a disk and sled can.

mod pace;
mod rows;
mod writer;

pub(crate) use writer::{Copier, WAIT};

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use domain::{
    Revision, codec,
    event::{Change, Event},
    request::Remembered,
    state::{Loader, Meta, Record},
};
use serde::{Deserialize, Serialize};

use crate::{snapshot::Header, view::View};
use rows::{Fingerprint, Key};

/// What the copy says of itself; written in the same batch as what it speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Summary {
    header: Header,
    meta: Meta,
    fingerprint: Fingerprint,
    /// Events of the ring.
    events: u64,
}

/// Why a copy is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("there is none")]
    Absent,
    #[error("sled panicked")]
    Panicked,
    #[error(transparent)]
    Sled(#[from] sled::Error),
    #[error("{0}")]
    Wrong(String),
}

/// Opens the copy.
pub(crate) fn open(directory: &Path) -> Result<sled::Db, CopyError> {
    // sled keeps it in 256 parts, each for pages of its own: in a part of 32 KiB two pages that are written again and
    // again drive each other out, and are read again from the disk each time.
    const CACHE_BYTES: u64 = 32 << 20;
    // A thread of sled's that flushes also moves about what lies in the file, without end: ADR 0016.
    let config =
        sled::Config::new().path(directory).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    // sled lets go of its lock a moment after its last handle is gone.
    let mut attempts = 20;
    loop {
        match guarded(|| Ok(config.open()?)) {
            Err(CopyError::Sled(sled::Error::Io(_))) if attempts > 0 => attempts -= 1,
            result => return result,
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// sled panics on what it does not expect on the disk.
fn guarded<T>(f: impl FnOnce() -> Result<T, CopyError>) -> Result<T, CopyError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(Err(CopyError::Panicked))
}

/// The threads in which sled runs: its panics are theirs.
const THREAD: &str = "state-copy";

/// Reads and verifies the copy in `directory`.
pub(crate) fn load(directory: &Path) -> Result<View, CopyError> {
    let reading = || {
        let db = open(directory)?;
        let read = guarded(|| read(&db));
        // Here, and by itself: sled syncs then and panics when it cannot, and two panics at once are the end.
        drop(db);
        read
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(THREAD.to_owned());
        let thread = thread.spawn_scoped(scope, reading);
        let thread = thread.map_err(|error| CopyError::Wrong(error.to_string()))?;
        thread.join().unwrap_or(Err(CopyError::Panicked))
    })
}

fn read(db: &sled::Db) -> Result<View, CopyError> {
    let wrong = |what: &str| CopyError::Wrong(what.to_owned());
    let summary = db.get(Key::Summary.bytes())?.ok_or(CopyError::Absent)?;
    let summary: Summary = rows::unseal(&Key::Summary, &summary).map_err(CopyError::Wrong)?;
    let mut loader = Loader::default();
    let mut push =
        |record| loader.push(record).map_err(|error| CopyError::Wrong(error.to_string()));
    push(Record::Meta(Box::new(summary.meta.clone())))?;

    let mut fingerprint = Fingerprint::default();
    for row in db.scan_prefix(Key::ROWS) {
        let (key, value) = row?;
        fingerprint.toggle(&key, &value);
        let change: Change = rows::unseal_raw(&key, &value).map_err(CopyError::Wrong)?;
        push(Record::Row(change))?;
    }
    for row in db.scan_prefix(Key::REQUESTS) {
        let (key, value) = row?;
        fingerprint.toggle(&key, &value);
        let requests: Vec<Remembered> = rows::unseal_raw(&key, &value).map_err(CopyError::Wrong)?;
        // The oldest ones lie beside some that are forgotten.
        let kept = requests.into_iter().filter(|it| it.index > summary.meta.requests_floor);
        for request in kept {
            push(Record::Request(Box::new(request)))?;
        }
    }
    if fingerprint != summary.fingerprint {
        return Err(wrong("rows are missing or left over"));
    }
    let mut count = 0;
    let floor = summary.meta.events_floor;
    for row in db.range(ring_begin(db, floor)?..Key::EVENTS_END.to_vec()) {
        let (key, value) = row?;
        let events: Vec<Event> = rows::unseal_packed(&key, &value).map_err(CopyError::Wrong)?;
        for event in events.into_iter().filter(|event| event.revision > floor) {
            push(Record::Event(event.into()))?;
            count += 1;
        }
    }
    if count != summary.events {
        return Err(wrong("events are missing or left over"));
    }
    let state = loader.finish().map_err(|error| CopyError::Wrong(error.to_string()))?;
    if codec::encode(&state.meta()) != codec::encode(&summary.meta) {
        return Err(wrong("the rows do not fit the summary"));
    }
    let header = summary.header;
    Ok(View { state, at: header.at, members: header.members, members_at: header.members_at })
}

/// Where the events after `floor` begin: with a piece that may begin before it.
fn ring_begin(db: &sled::Db, floor: Revision) -> Result<Vec<u8>, CopyError> {
    let after = Key::Events(next(floor), 0).bytes();
    let before = db.range(Key::EVENTS.to_vec()..after.clone()).next_back().transpose()?;
    Ok(before.map_or(after, |(key, _)| key.to_vec()))
}

fn next(revision: Revision) -> Revision {
    Revision::from_u64(revision.as_u64() + 1)
}
