//! The host: its connection, its bodies' locks, and the driver's face.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, mpsc},
    time::Duration,
};

use anyhow::{Context, Result};
use async_trait::async_trait;
use domain::{
    Fence,
    host::Capacity,
    id::{PoolId, VmId},
    instance::Body,
    name::Name,
};
use drivers::{
    Driver, DriverError, ErrorKind, FOREIGN_MAX, Foreign, Inventory, Migration, Observation, Order,
    Usage,
};
use newtype_uuid::GenericUuid;
use tokio::sync::{Semaphore, broadcast};
use virt::{connect::Connect, domain::Domain};

use crate::{
    error::libvirt,
    event,
    migration::Sending,
    pool::Pools,
    record::{Record, Records},
};

/// A host's libvirt and our records of it.
pub(crate) struct LibvirtHost {
    pub(crate) inner: Arc<Inner>,
}

/// What blocking calls work with.
pub(crate) struct Inner {
    uri: String,
    pub(crate) virt_type: String,
    /// Where other hosts' libvirt reaches this one's.
    pub(crate) migration_address: Option<String>,
    /// Where the host's guard listens, if it has one.
    guard: Option<PathBuf>,
    pub(crate) pools: Pools,
    connection: Mutex<Option<Connect>>,
    /// What guests use is asked over a connection of its own: one that hangs hangs nothing else.
    pub(crate) measuring: Mutex<Option<Connect>>,
    pub(crate) measured: Arc<Semaphore>,
    asked: Mutex<HashSet<VmId>>,
    pub(crate) records: Records,
    pub(crate) bodies: PathBuf,
    /// One lock per body: calls on it come one after the other, also those whose caller has gone.
    locks: Mutex<HashMap<VmId, Arc<Mutex<()>>>>,
    /// The guests that this process is sending.
    sendings: Mutex<HashMap<VmId, Arc<Sending>>>,
    changes: broadcast::Sender<VmId>,
}

/// A guest whose use is asked for. One that is not answered for is not asked again: it would take the others' turns.
struct Asking(Arc<Inner>, VmId);

impl Asking {
    fn begin(inner: &Arc<Inner>, vm: VmId) -> Result<Asking, DriverError> {
        if lock(&inner.asked).insert(vm) {
            return Ok(Asking(inner.clone(), vm));
        }
        Err(DriverError::new(ErrorKind::Transient, "libvirt has not answered the last question"))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        lock(&self.0.asked).remove(&self.1);
    }
}

fn unreachable(error: &dyn std::fmt::Display) -> DriverError {
    DriverError::new(ErrorKind::Transient, format!("libvirt does not answer: {error}"))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LibvirtHost {
    pub(crate) fn open(
        uri: &str,
        state: &Path,
        virt_type: &str,
        migration_address: Option<String>,
        guard: Option<PathBuf>,
        pools: Pools,
    ) -> Result<LibvirtHost> {
        let bodies = state.join("bodies");
        std::fs::create_dir_all(&bodies)
            .with_context(|| format!("cannot make {}", bodies.display()))?;
        let (changes, _) = broadcast::channel(1_024);
        let inner = Inner {
            uri: uri.to_owned(),
            virt_type: virt_type.to_owned(),
            migration_address,
            guard,
            pools,
            connection: Mutex::default(),
            measuring: Mutex::default(),
            measured: Arc::new(Semaphore::new(crate::usage::ASKED_MAX)),
            asked: Mutex::default(),
            records: Records::open(state)?,
            bodies: bodies.canonicalize()?,
            locks: Mutex::default(),
            sendings: Mutex::default(),
            changes,
        };
        Ok(LibvirtHost { inner: Arc::new(inner) })
    }

    /// Connects for the first time, so that a wrong URI is told at once.
    pub(crate) fn listen(&self) -> Result<()> {
        self.inner.connect().map(drop).map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// Runs a blocking call in a thread of its own. It goes on when nobody waits for it any more.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Inner) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || call(&inner)).await;
        done.unwrap_or_else(|error| {
            Err(DriverError::new(ErrorKind::Ambiguous, format!("the call broke off: {error}")))
        })
    }

    /// The same, under the body's lock. A call whose caller has gone while it waited is not made:
    /// what it was for may be long over.
    pub(crate) async fn on_body<T: Send + 'static>(
        &self,
        id: VmId,
        call: impl FnOnce(&Inner) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let caller = Arc::new(());
        let waits = Arc::downgrade(&caller);
        let done = self
            .blocking(move |inner| {
                let body = inner.turns(id);
                let _turn = lock(&body);
                if waits.upgrade().is_none() {
                    return Err(DriverError::new(ErrorKind::Ambiguous, "nobody waits any more"));
                }
                call(inner)
            })
            .await;
        drop(caller);
        done
    }
}

impl Inner {
    /// The connection; made anew when the last one broke.
    pub(crate) fn connect(&self) -> Result<Connect, DriverError> {
        let mut connection = lock(&self.connection);
        if let Some(connect) = &*connection {
            return Ok(connect.clone());
        }
        let connect = self.connect_anew()?;
        event::listen(&connect, &self.changes).map_err(|error| unreachable(&error))?;
        *connection = Some(connect.clone());
        Ok(connect)
    }

    /// A connection of its own, for a call that takes long.
    pub(crate) fn connect_anew(&self) -> Result<Connect, DriverError> {
        // A daemon that takes connections and does not answer would hold whoever asks for ever.
        const PATIENCE: Duration = Duration::from_secs(10);
        let (tell, opened) = mpsc::channel();
        let uri = self.uri.clone();
        std::thread::spawn(move || tell.send(Connect::open(Some(&uri))));
        let opened = opened.recv_timeout(PATIENCE).map_err(|error| unreachable(&error))?;
        let connect = opened.map_err(|error| unreachable(&error.message()))?;
        // A daemon that hangs is noticed after some seconds.
        connect.set_keep_alive(5, 3).map_err(|error| unreachable(&error.message()))?;
        Ok(connect)
    }

    /// Whether a guest may execute under this lease of the host. To be asked when the guest is there and
    /// stands still: from then on the guard finds it.
    pub(crate) fn admit(&self, id: VmId, lease: Fence) -> Result<(), DriverError> {
        let Some(guard) = &self.guard else { return Ok(()) };
        if guard::is_broken("ignore-fence") {
            return Ok(());
        }
        let asked = guard::ask(guard, &guard::Request::May(lease.as_u64(), id.to_string()));
        asked.map(drop).map_err(|error| DriverError::new(ErrorKind::Transient, error.to_string()))
    }

    pub(crate) fn sendings(&self) -> MutexGuard<'_, HashMap<VmId, Arc<Sending>>> {
        lock(&self.sendings)
    }

    pub(crate) fn forget_broken_connection(&self) {
        let mut connection = lock(&self.connection);
        let broken =
            connection.as_ref().is_some_and(|connect| !connect.is_alive().unwrap_or(false));
        if broken {
            *connection = None;
        }
    }

    pub(crate) fn turns(&self, id: VmId) -> Arc<Mutex<()>> {
        lock(&self.locks).entry(id).or_default().clone()
    }

    fn observation(&self, id: VmId) -> Result<Observation, DriverError> {
        let mut record = self.records.read(id)?.unwrap_or_default();
        let body = self.look(id, &mut record)?;
        Ok(Inner::seen(id, &record, body))
    }

    /// All bodies of which anything is left, be it only files. A body that is being worked on,
    /// which may take long, is only looked at.
    fn observe_all(&self) -> Result<Vec<Observation>, DriverError> {
        let mut all = Vec::new();
        for id in self.records.all()? {
            let body = self.turns(id);
            let seen = match body.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    let record = self.records.read(id)?.unwrap_or_default();
                    let body = self.glance(id, &record)?;
                    Inner::seen(id, &record, body)
                }
                // Of a panic in another call nothing is left but the record, which is whole.
                Ok(_turn) => self.observation(id)?,
                Err(TryLockError::Poisoned(_turn)) => self.observation(id)?,
            };
            if seen.body != Body::Absent || self.directory(id).exists() {
                all.push(seen);
            }
        }
        Ok(all)
    }

    fn seen(id: VmId, record: &Record, body: Body) -> Observation {
        Observation {
            vm: id,
            fence: record.fence,
            body,
            generation: record.generation,
            reboots: record.reboots,
            starts: record.starts,
        }
    }

    fn foreign_domains(&self) -> Result<Vec<Domain>, DriverError> {
        let domains = self.connect()?.list_all_domains(0).map_err(|error| libvirt(&error))?;
        let mut foreign = Vec::new();
        for domain in domains {
            let id = domain.uuid().map_err(|error| libvirt(&error))?;
            if self.records.read(VmId::from_untyped_uuid(id))?.is_none() {
                foreign.push(domain);
            }
        }
        Ok(foreign)
    }

    fn foreign(&self) -> Result<Vec<Foreign>, DriverError> {
        let told = |domain: Domain| -> Result<Foreign, virt::error::Error> {
            let (name, uuid) = (domain.name()?, domain.uuid_string()?);
            Ok(Foreign { name, uuid, running: domain.is_active()? })
        };
        // One that goes away meanwhile is not there.
        let domains = self.foreign_domains()?.into_iter().take(FOREIGN_MAX);
        Ok(domains.filter_map(|domain| told(domain).ok()).collect())
    }

    fn inventory(&self) -> Result<Inventory, DriverError> {
        let connect = self.connect()?;
        let node = connect.node_info().map_err(|error| libvirt(&error))?;
        let disk = rustix::fs::statvfs(&self.bodies).map_err(|error| {
            DriverError::new(ErrorKind::Transient, format!("the disk cannot be asked: {error}"))
        })?;
        let foreign = u32::try_from(self.foreign_domains()?.len()).unwrap_or(u32::MAX);
        let boot = event::boot_id().map_err(crate::error::io("the machine's boot id"))?;
        Ok(Inventory {
            kind: Name::new("libvirt").expect("the literal is a name"),
            capacity: Capacity {
                cpu_millicores: u64::from(node.cpus) * 1_000,
                memory_mib: node.memory / 1_024,
                disk_mib: disk.f_blocks * disk.f_frsize / (1 << 20),
            },
            boot: boot.parse().map_err(|_| {
                DriverError::new(ErrorKind::Protocol, "the machine's boot id is no UUID")
            })?,
            foreign,
            guard: self.guard.clone(),
        })
    }
}

#[async_trait]
impl Driver for LibvirtHost {
    async fn inventory(&self) -> Result<Inventory, DriverError> {
        self.blocking(Inner::inventory).await
    }

    async fn observe(&self, vm: VmId) -> Result<Observation, DriverError> {
        self.on_body(vm, move |inner| inner.observation(vm)).await
    }

    async fn observe_all(&self) -> Result<Vec<Observation>, DriverError> {
        self.blocking(Inner::observe_all).await
    }

    async fn prepare(&self, order: &Order) -> Result<(), DriverError> {
        let order = order.clone();
        self.on_body(order.vm, move |inner| inner.prepare(&order)).await
    }

    async fn start(&self, order: &Order) -> Result<(), DriverError> {
        let order = order.clone();
        self.on_body(order.vm, move |inner| inner.start(&order)).await
    }

    async fn shutdown(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.on_body(vm, move |inner| inner.shutdown(vm, fence)).await
    }

    async fn kill(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.on_body(vm, move |inner| inner.kill(vm, fence)).await
    }

    async fn reboot(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.on_body(vm, move |inner| inner.reboot(vm, fence)).await
    }

    async fn pause(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.on_body(vm, move |inner| inner.pause(vm, fence)).await
    }

    async fn resume(&self, vm: VmId, fence: Fence, lease: Fence) -> Result<(), DriverError> {
        self.on_body(vm, move |inner| inner.resume(vm, fence, lease)).await
    }

    async fn release(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        self.on_body(vm, move |inner| inner.release(vm, fence)).await
    }

    async fn pools(&self) -> Result<BTreeMap<Name, PoolId>, DriverError> {
        self.blocking(|inner| inner.pools.identities()).await
    }

    async fn discard(
        &self,
        vm: VmId,
        fence: Fence,
        pool: &Name,
        identity: PoolId,
    ) -> Result<(), DriverError> {
        let pool = pool.clone();
        self.on_body(vm, move |inner| {
            inner.records.claim(vm, fence)?;
            inner.pools.discard(&pool, identity, vm)
        })
        .await
    }

    fn changes(&self) -> broadcast::Receiver<VmId> {
        self.inner.changes.subscribe()
    }

    async fn console_log(
        &self,
        vm: VmId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, u64), DriverError> {
        self.blocking(move |inner| inner.console(vm, offset, bytes_max)).await
    }

    async fn console_socket(&self, vm: VmId) -> Result<PathBuf, DriverError> {
        self.blocking(move |inner| inner.console_socket(vm)).await
    }

    fn migration(&self) -> Option<&dyn Migration> {
        Some(self)
    }

    async fn usage(&self, vm: VmId) -> Result<Usage, DriverError> {
        // Both are kept until libvirt has answered, also when nobody waits for it any more.
        let asking = Asking::begin(&self.inner, vm)?;
        let turn = self.inner.measured.clone().acquire_owned().await;
        let turn = turn.map_err(|error| unreachable(&error))?;
        self.blocking(move |inner| {
            let _kept = (turn, asking);
            inner.usage(vm)
        })
        .await
    }

    async fn foreign(&self) -> Result<Vec<Foreign>, DriverError> {
        self.blocking(Inner::foreign).await
    }
}
