//! The thread that keeps the copy.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use domain::{Revision, event::Event, request::Remembered};
use tokio::sync::watch;

use super::{
    CopyError, Summary, THREAD, guarded, open,
    pace::{Pace, Waiting},
    ring_begin, rows,
};
use crate::{ground, metrics, snapshot::Header, view::View};
use rows::{Fingerprint, Key, Packer};

/// Time between two looks at what is new.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a few entries wait for others to share a batch with: what a batch costs hardly depends on how much is
/// in it.
pub(crate) const WAIT: Duration = Duration::from_secs(60);
/// Requests of one row. sled is slow with many small rows; sixteen of them make a leaf, and a leaf above 128 KiB
/// becomes a file that it does not sync.
const REQUESTS_TOGETHER: usize = 16;
/// What the events of one row take, for the same reason.
const EVENTS_TOGETHER_BYTES: usize = 7 << 10;
/// What they may weigh in memory: they are much alike, and are compressed.
const EVENTS_WEIGH_BYTES: usize = 48 << 10;
/// Bytes of one batch when everything is written anew.
const BATCH_BYTES: usize = 1 << 20;
/// Events kept beyond the ring, as history.
const HISTORY_EVENTS: u32 = 200_000;
/// Entries between two looks at how long the history is.
const TRIM_EVERY: u64 = 1_000;

/// The thread and how to end it.
pub(crate) struct Copier {
    stop: mpsc::Sender<()>,
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Copier {
    /// Starts keeping the copy in `directory`; `written` is the view it holds, if it holds one. A few entries wait
    /// for others, `wait` at most.
    pub(crate) fn start(
        directory: PathBuf,
        views: watch::Receiver<Arc<View>>,
        written: Option<View>,
        wait: Duration,
    ) -> std::io::Result<Copier> {
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
            ground::yields();
            keep(&directory, views, written, wait, &stopped);
            drop(end);
        })?;
        Ok(Copier { stop, ended: Mutex::new(ended) })
    }

    /// Asks the thread to write what is new and end, and waits for it, but not for long: sled can
    /// hang when the disk is full, and nothing depends on the copy.
    pub(crate) fn stop(&self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let _ = self.stop.send(());
        if let Ok(ended) = self.ended.lock() {
            let _ = ended.recv_timeout(PATIENCE);
        }
    }
}

/// Keeps the copy until told to stop. After trouble it is made again: at once the first time, for
/// what lies there may just be damaged, and later and later when that does not help.
fn keep(
    directory: &Path,
    mut views: watch::Receiver<Arc<View>>,
    written: Option<View>,
    wait: Duration,
    stopped: &mpsc::Receiver<()>,
) {
    const RETRY_MAX: Duration = Duration::from_secs(300);
    let mut retry = Duration::ZERO;
    let mut written = written.map(Arc::new);
    while let Err(error) = follow(directory, &mut views, written.take(), wait, stopped) {
        tracing::warn!(directory = %directory.display(), %error, "the copy of the state is made again");
        if stopped.recv_timeout(retry) != Err(mpsc::RecvTimeoutError::Timeout) {
            return;
        }
        retry = (retry * 2).clamp(Duration::from_secs(1), RETRY_MAX);
        // Its content is of no use any more; nothing else lies in the directory.
        let _ = std::fs::remove_dir_all(directory);
    }
}

fn follow(
    directory: &Path,
    views: &mut watch::Receiver<Arc<View>>,
    written: Option<Arc<View>>,
    wait: Duration,
    stopped: &mpsc::Receiver<()>,
) -> Result<(), CopyError> {
    let db = open(directory)?;
    let mut copy = Copy { db, fingerprint: Fingerprint::default(), written: None };
    let resumed = written.map_or(Ok(()), |written| copy.resume(written));
    let ended = resumed.and_then(|()| copy.follow(views, wait, stopped));
    // sled syncs once more, and panics when it cannot.
    guarded(|| {
        drop(copy);
        ended
    })
}

struct Copy {
    db: sled::Db,
    fingerprint: Fingerprint,
    written: Option<Arc<View>>,
}

impl Copy {
    /// Goes on from a copy that was just loaded.
    fn resume(&mut self, written: Arc<View>) -> Result<(), CopyError> {
        let summary = guarded(|| Ok(self.db.get(Key::Summary.bytes())?))?;
        let summary = summary.ok_or(CopyError::Absent)?;
        let summary: Summary = rows::unseal(&Key::Summary, &summary).map_err(CopyError::Wrong)?;
        self.fingerprint = summary.fingerprint;
        self.written = Some(written);
        Ok(())
    }

    fn follow(
        &mut self,
        views: &mut watch::Receiver<Arc<View>>,
        wait: Duration,
        stopped: &mpsc::Receiver<()>,
    ) -> Result<(), CopyError> {
        let took = metrics::COPY.of::<&str>([]);
        let mut pace = Pace::new(wait);
        loop {
            let newest = views.borrow_and_update().clone();
            if self.written.is_none() || pace.is_due(self.waiting(&newest)) {
                let written = self.written.as_ref().and_then(|written| written.at);
                let is_new = self.written.is_none() || written != newest.at;
                let begun = Instant::now();
                pace.work(|| self.catch_up(newest))?;
                if is_new {
                    took.record(begun.elapsed().as_secs_f64());
                }
            }
            let stop = stopped.recv_timeout(PAUSE) != Err(mpsc::RecvTimeoutError::Timeout);
            if stop {
                let newest = views.borrow_and_update().clone();
                return self.catch_up(newest);
            }
        }
    }

    fn waiting(&self, newest: &View) -> Waiting {
        let index = newest.state.index;
        let forgotten = newest.state.events.floor().index();
        Waiting {
            entries: index.saturating_sub(self.written_index()),
            known: index.saturating_sub(forgotten),
            forgotten: forgotten > 0,
        }
    }

    fn catch_up(&mut self, view: Arc<View>) -> Result<(), CopyError> {
        let Some(before) = &self.written else { return self.write_all(view) };
        if before.at == view.at {
            return Ok(());
        }
        // After a snapshot was installed, or after a long pause, events are missing. What a recovery changed
        // is no event.
        let since = before.revision();
        let same = since.epoch() == view.revision().epoch();
        let events: Option<Vec<Arc<Event>>> = (same && since <= view.revision())
            .then(|| view.state.events.after(since).ok().map(|events| events.cloned().collect()))
            .flatten();
        match events {
            Some(events) => self.write_events(view, &events)?,
            None => self.write_all(view)?,
        }
        clear_away();
        Ok(())
    }

    /// Writes what `events` changed.
    fn write_events(&mut self, view: Arc<View>, events: &[Arc<Event>]) -> Result<(), CopyError> {
        let mut last: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        let mut batch = sled::Batch::default();
        for (key, value) in event_rows(events) {
            batch.insert(key, value);
        }
        let mut changed = BTreeMap::new();
        for change in events.iter().flat_map(|event| &event.changes) {
            changed.insert(change.key(), change);
        }
        for (key, change) in changed {
            let key = Key::Row(key);
            last.insert(key.bytes(), (!change.is_delete()).then(|| rows::seal(&key, change)));
        }
        for key in self.forgotten(view.state.requests.floor())? {
            last.insert(key, None);
        }
        let requests = view.state.requests.since(self.written_index());
        last.extend(request_rows(requests).map(|(key, value)| (key, Some(value))));
        let mut fingerprint = self.fingerprint;
        for (key, value) in last {
            if let Some(old) = guarded(|| Ok(self.db.get(&key)?))? {
                fingerprint.toggle(&key, &old);
            }
            match value {
                Some(value) => {
                    fingerprint.toggle(&key, &value);
                    batch.insert(key, value);
                }
                None => batch.remove(key),
            }
        }
        let (floor, upto) = (view.state.events.floor(), view.state.index);
        let before = self.written_index();
        self.finish(view, batch, fingerprint)?;
        // Counting is a scan: once in a while is enough.
        if before / TRIM_EVERY < upto / TRIM_EVERY { self.trim_history(floor) } else { Ok(()) }
    }

    /// The keys of requests all of which are forgotten.
    fn forgotten(&self, floor: u64) -> Result<Vec<Vec<u8>>, CopyError> {
        guarded(|| {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let mut last = None;
            for row in self.db.scan_prefix(Key::REQUESTS) {
                let (key, _) = row?;
                if Key::first_request(&key).is_none_or(|first| first > floor + 1) {
                    break;
                }
                // What comes after it begins early enough: all in it is forgotten.
                keys.extend(last.replace(key.to_vec()));
            }
            Ok(keys)
        })
    }

    fn written_index(&self) -> u64 {
        self.written.as_ref().map_or(0, |before| before.state.index)
    }

    /// Writes everything anew. The summary goes first and comes last: in between there is no copy.
    fn write_all(&mut self, view: Arc<View>) -> Result<(), CopyError> {
        self.written = None;
        guarded(|| {
            self.db.remove(Key::Summary.bytes())?;
            self.db.clear()?;
            Ok(())
        })?;
        let mut fingerprint = Fingerprint::default();
        let rows = view.state.rows().map(|change| {
            let key = Key::Row(change.key());
            (key.bytes(), rows::seal(&key, &change), true)
        });
        let requests = request_rows(view.state.requests.since(0));
        let requests = requests.map(|(key, value)| (key, value, true));
        let events: Vec<Arc<Event>> = view.state.events.iter().cloned().collect();
        let events = event_rows(&events).map(|(key, value)| (key, value, false));
        let mut batch = sled::Batch::default();
        let mut bytes = 0;
        for (key, value, counts) in rows.chain(requests).chain(events) {
            if counts {
                fingerprint.toggle(&key, &value);
            }
            bytes += key.len() + value.len();
            batch.insert(key, value);
            if bytes >= BATCH_BYTES {
                let full = std::mem::take(&mut batch);
                guarded(|| Ok(self.db.apply_batch(full)?))?;
                bytes = 0;
            }
        }
        self.finish(view.clone(), batch, fingerprint)
    }

    /// Writes the last batch and, in it, the summary.
    fn finish(
        &mut self,
        view: Arc<View>,
        mut batch: sled::Batch,
        fingerprint: Fingerprint,
    ) -> Result<(), CopyError> {
        let summary = Summary {
            header: Header {
                at: view.at,
                members: view.members.clone(),
                members_at: view.members_at,
            },
            meta: view.state.meta(),
            fingerprint,
            events: view.state.events.len() as u64,
        };
        batch.insert(Key::Summary.bytes(), rows::seal(&Key::Summary, &summary));
        guarded(|| Ok(self.db.apply_batch(batch)?))?;
        self.fingerprint = fingerprint;
        self.written = Some(view);
        Ok(())
    }

    /// Drops the oldest history, never what the ring holds.
    fn trim_history(&mut self, ring_floor: Revision) -> Result<(), CopyError> {
        guarded(|| {
            let old = self.db.range(Key::EVENTS.to_vec()..ring_begin(&self.db, ring_floor)?);
            let mut batch = sled::Batch::default();
            let mut events = 0;
            for row in old.rev() {
                let (key, _) = row?;
                events += Key::event_count(&key).unwrap_or(1);
                if events > HISTORY_EVENTS {
                    batch.remove(key);
                }
            }
            Ok(self.db.apply_batch(batch)?)
        })
    }
}

/// Frees the pages that sled has replaced. Else other threads would: whoever notes how long something took frees some,
/// since histograms and sled have one place (crossbeam's) for what is to be freed later.
fn clear_away() {
    /// What is thrown away is free two epochs later. Each turn moves on by one at most, and frees 500 pages.
    const TURNS: usize = 64;
    (0..TURNS).for_each(|_| crossbeam_epoch::pin().flush());
}

/// The rows of events that follow each other.
fn event_rows(events: &[Arc<Event>]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let (mut rest, mut packer) = (events, Packer::new());
    let mut most = EVENTS_WEIGH_BYTES;
    std::iter::from_fn(move || {
        loop {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|event| {
                bytes += event.weight_bytes();
                bytes <= most
            });
            let count = fits.count().max(1).min(rest.len());
            let (row, after) = rest.split_at(count);
            let key = Key::Events(row.first()?.revision, u32::try_from(count).ok()?);
            let value = packer.seal(&key, &row);
            if value.len() > EVENTS_TOGETHER_BYTES && count > 1 {
                // They are less alike than others.
                most /= 2;
                continue;
            }
            rest = after;
            return Some((key.bytes(), value));
        }
    })
}

/// The rows of remembered requests that follow each other.
fn request_rows(
    mut requests: impl Iterator<Item = Remembered>,
) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    std::iter::from_fn(move || {
        let row: Vec<Remembered> = requests.by_ref().take(REQUESTS_TOGETHER).collect();
        let key = Key::Requests(row.first()?.index);
        Some((key.bytes(), rows::seal(&key, &row)))
    })
}
