//! Stores in a simulated world: one thread, one source of chance, and what was not synced is gone when a node
//! crashes. What is simulated is below TLS, below the log's files and above nothing else: proposals, reads, the
//! state machine, snapshots, elections and everything that nodes say to each other are the real ones.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use domain::id::NodeId;
use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::sync::mpsc;

use crate::{
    directory::Directory,
    ground::{Aside, Clocks, Dial, Ground, Wire},
    is_broken, recovery,
    store::{Options, Store, StoreError},
    transport,
    wal::{Done, Index, Journal, Record},
};

/// Who is at the other end of a wire.
#[derive(Clone, Copy, Debug)]
pub struct Caller(pub NodeId);

/// A wire to another node, or none.
pub type Wired = io::Result<Box<dyn Wire>>;

/// What a store stands on here.
pub struct World {
    /// Time since the machine booted.
    pub since_boot: fn() -> Duration,
    /// Wall time, Unix milliseconds.
    pub wall_ms: fn() -> u64,
    /// Connects to an address.
    pub dial: fn(String) -> BoxFuture<'static, Wired>,
    /// Who connects to this node.
    pub incoming: BoxStream<'static, (Caller, Box<dyn Wire>)>,
    /// What outlives a crash of the node.
    pub disk: Arc<Disk>,
}

struct Dialer(fn(String) -> BoxFuture<'static, Wired>);

impl Dial for Dialer {
    fn dial(&self, _: NodeId, address: String) -> BoxFuture<'static, Wired> {
        (self.0)(address)
    }
}

impl Store {
    /// As [`Store::open`], in a simulated world.
    ///
    /// # Errors
    /// As there.
    pub async fn open_simulated(options: Options, world: World) -> Result<Store, StoreError> {
        let mut directory = Directory::open(&options.directory, options.store)?;
        let log = Arc::new(MemoryLog::open(world.disk));
        directory.begin()?;
        let base = recovery::recover(&directory, &log.index(), false)?;
        let ground = Ground {
            clocks: Clocks { since_boot: world.since_boot, wall_ms: world.wall_ms },
            aside: Aside::Here,
            dial: Arc::new(Dialer(world.dial)),
        };
        let store = Store::assemble(options, directory, log, base, ground).await?;
        let routes = transport::routes(store.core.clone());
        tokio::spawn(serve(world.incoming, routes));
        Ok(store)
    }
}

async fn serve(
    mut incoming: BoxStream<'static, (Caller, Box<dyn Wire>)>,
    routes: tonic::service::Routes,
) {
    while let Some((caller, wire)) = incoming.next().await {
        let service = tower::util::MapRequest::new(
            routes.clone(),
            move |mut request: http::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(caller);
                request
            },
        );
        tokio::spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
            builder
                .http2()
                // It would tell the time of the machine.
                .auto_date_header(false)
                .timer(TokioTimer::new())
                .keep_alive_interval(Duration::from_secs(10))
                .keep_alive_timeout(Duration::from_secs(5));
            let service = TowerToHyperService::new(service);
            // It ends when either side is gone.
            let _ = builder.serve_connection(TokioIo::new(wire), service).await;
        });
    }
}

/// The disk under a node's log: what was synced, and what was only written.
#[derive(Debug, Default)]
pub struct Disk(Mutex<Platters>);

#[derive(Debug, Default)]
struct Platters {
    synced: Index,
    /// In the order of writing.
    written: Vec<Record>,
}

impl Disk {
    /// The power goes: of what was only written, the first `kept` records happen to be there, the rest is
    /// gone. The answer is how many are.
    pub fn lose_power(&self, kept: impl FnOnce(usize) -> usize) -> usize {
        let mut platters = self.platters();
        let written = std::mem::take(&mut platters.written);
        let kept = kept(written.len()).min(written.len());
        written[..kept].iter().for_each(|record| platters.synced.note(record));
        written.len() - kept
    }

    /// All that was written stays. So it does too when only a process dies: the system writes it in the end.
    pub fn sync(&self) {
        let mut platters = self.platters();
        let written = std::mem::take(&mut platters.written);
        written.iter().for_each(|record| platters.synced.note(record));
    }

    fn write(&self, records: &[Record]) {
        self.platters().written.extend_from_slice(records);
    }

    fn platters(&self) -> MutexGuard<'_, Platters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log of one node, on such a disk.
struct MemoryLog {
    index: RwLock<Index>,
    lazy: Mutex<Option<Record>>,
    queue: mpsc::UnboundedSender<(Vec<Record>, Done)>,
}

impl MemoryLog {
    fn open(disk: Arc<Disk>) -> MemoryLog {
        let index = RwLock::new(disk.platters().synced.clone());
        let (queue, writes) = mpsc::unbounded_channel();
        tokio::spawn(write(disk, writes));
        MemoryLog { index, lazy: Mutex::default(), queue }
    }
}

/// Takes all that waits, syncs once, and tells everybody, as the writer of files does.
async fn write(disk: Arc<Disk>, mut writes: mpsc::UnboundedReceiver<(Vec<Record>, Done)>) {
    let mut batch = Vec::new();
    while writes.recv_many(&mut batch, 64).await > 0 {
        for (records, _) in &batch {
            disk.write(records);
        }
        if is_broken("never-sync") {
            batch.drain(..).for_each(|(_, done)| done(Ok(())));
            continue;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=5))).await;
        disk.sync();
        batch.drain(..).for_each(|(_, done)| done(Ok(())));
    }
}

impl Journal for MemoryLog {
    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut records: Vec<Record>, done: Done) {
        records.extend(self.lazy.lock().unwrap_or_else(PoisonError::into_inner).take());
        {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            records.iter().for_each(|record| index.note(record));
        }
        if let Err(refused) = self.queue.send((records, done)) {
            (refused.0.1)(Err(io::Error::other("the log is closed")));
        }
    }

    fn write_lazily(&self, record: Record) {
        *self.lazy.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }

    fn slowest_sync_ms(&self) -> u32 {
        0
    }

    fn close(&self) {}
}
