//! The handle to the cluster's state on one node: propose, read, and who belongs to the group.

pub(crate) mod confirm;
mod core;
mod ebb;
mod membership;
mod options;
mod read;

pub use core::ProposeError;
pub(crate) use core::{Core, Folders};
pub use membership::{Follower, Status};
pub use options::{Founder, Options, Timing};
pub use read::{Consistency, ReadError};

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use domain::{
    cluster::{ClusterCommand, Founding},
    envelope::{Command, Outcome, Request},
    id::{Digest, NodeId},
    principal::Principal,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_rustls::TlsConnector;

use crate::{
    copy::{self, Copier},
    directory::Directory,
    error::DamageError,
    ground::{Aside, Clocks, Ground, Tls},
    identity::{Identity, IdentityError},
    log::Log,
    machine::Machine,
    recovery::{self, Base},
    transport::{self, Fetch, Me, Network, Pool},
    types::Peer,
    view::View,
    wal::{Journal, Wal},
};

/// Why a store cannot be opened or founded.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Damage(#[from] DamageError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The peer address cannot be listened on.
    #[error("cannot listen for peers on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Raft refused to start or to begin.
    #[error("raft: {0}")]
    Raft(String),
    /// The founding command was refused.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// The cluster's state on one node.
#[derive(Clone)]
pub struct Store {
    pub(crate) core: Arc<Core>,
    running: Arc<Running>,
}

/// What ends with the node.
struct Running {
    log: Arc<dyn Journal>,
    /// None in a simulation: sled has threads and a disk of its own.
    copier: Option<Copier>,
    stop: watch::Sender<bool>,
    serving: std::sync::Mutex<Option<JoinHandle<()>>>,
    _directory: Directory,
}

impl Running {
    fn serve(&self, serving: impl Future<Output = ()> + Send + 'static) {
        let mut slot = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(tokio::spawn(serving));
    }
}

impl Store {
    /// Opens the data directory and joins in: the log is read, the state restored, the peer
    /// listener opened.
    ///
    /// # Errors
    /// [`StoreError::Damage`] when the directory cannot be trusted: the node must not serve then.
    pub async fn open(options: Options, identity: &Arc<Identity>) -> Result<Store, StoreError> {
        let (root, wal_options, store) = (options.directory.clone(), options.wal, options.store);
        let opened = tokio::task::spawn_blocking(move || {
            let mut directory = Directory::open(&root, store)?;
            let wal = Wal::open(&directory.log(), wal_options, directory.marker.begun)?;
            // From here on the log holds its first checkpoint.
            directory.begin()?;
            let base = recovery::recover(&directory, &wal.index(), true)?;
            Ok::<_, DamageError>((directory, wal, base))
        });
        let (directory, wal, base) =
            opened.await.map_err(|error| StoreError::Raft(error.to_string()))??;
        let connector = TlsConnector::from(Arc::new(identity.client()?));
        let ground = Ground {
            clocks: Clocks::MACHINE,
            aside: Aside::Thread,
            dial: Arc::new(Tls { cluster: options.cluster, connector }),
        };
        let (listener, tls) = (listen(options.peer_address).await?, identity.server(true)?);
        let copy = (directory.copy(), base.copy.clone());
        let mut store = Store::assemble(options, directory, Arc::new(wal), base, ground).await?;
        let copier = Copier::start(copy.0.clone(), store.core.views.clone(), copy.1, copy::WAIT);
        let (core, stopped) = (store.core.clone(), store.running.stop.subscribe());
        let ebbing = ebb::watch(core.clone(), stopped.clone());
        let running = Arc::get_mut(&mut store.running).expect("nobody else has it yet");
        running.copier = Some(copier.map_err(DamageError::io(&copy.0))?);
        let serving = transport::serve(listener, tls, core, stopped);
        running.serve(async {
            tokio::join!(serving, ebbing);
        });
        Ok(store)
    }

    /// Starts Raft on `ground`. Nobody is listened to yet.
    pub(crate) async fn assemble(
        options: Options,
        directory: Directory,
        log: Arc<dyn Journal>,
        base: Base,
        ground: Ground,
    ) -> Result<Store, StoreError> {
        let config = options.timing.raft_config().map_err(StoreError::Raft)?;
        let me = Me {
            cluster: options.cluster,
            node: options.node,
            store: directory.marker.store,
            boots: directory.marker.boots,
        };
        let (machine, views) =
            Machine::new(base.view, base.snapshot, directory.snapshots(), ground.aside);
        let pool = Arc::new(Pool::new(me.clone(), ground, views.clone()));
        let network = Network(pool.clone());
        let raft = openraft::Raft::new(options.node, config, network, Log(log.clone()), machine)
            .await
            .map_err(|error| StoreError::Raft(error.to_string()))?;
        let folders = Folders { snapshots: directory.snapshots(), shared: options.shared };
        let core = Core::new(me, raft, views, pool, folders, options.timing, log.clone());
        let running = Running {
            log,
            copier: None,
            stop: watch::Sender::new(false),
            serving: std::sync::Mutex::default(),
            _directory: directory,
        };
        Ok(Store { core: Arc::new(core), running: Arc::new(running) })
    }

    /// Begins a cluster of which this node is the only member.
    ///
    /// # Errors
    /// When the directory belongs to a cluster already, or the log cannot be written.
    pub async fn found(&self, peer_address: &str, founding: Founding) -> Result<(), StoreError> {
        let peers: BTreeMap<u64, Peer> =
            [(self.core.me.node, Peer { address: peer_address.to_owned() })].into();
        let begun = self.core.raft.initialize(peers).await;
        if let Err(error) = begun
            && !matches!(
                error,
                openraft::errors::RaftError::APIError(
                    openraft::errors::InitializeError::NotAllowed(_)
                )
            )
        {
            return Err(StoreError::Raft(error.to_string()));
        }
        let found = Command::Cluster(ClusterCommand::Found(Box::new(founding)));
        self.propose(Principal::Founder, None, found).await?;
        Ok(())
    }

    /// Proposes a command, here or through the leader, and waits until it is decided.
    ///
    /// # Errors
    /// [`ProposeError`]; a command with a `request` is tried again until it is known what became of
    /// it, or the time is up.
    pub async fn propose(
        &self,
        principal: Principal,
        request: Option<Request>,
        command: Command,
    ) -> Result<Outcome, ProposeError> {
        self.core.propose(principal, request, command).await
    }

    /// Proposes as this node.
    ///
    /// # Errors
    /// As [`Store::propose`].
    pub async fn propose_as_node(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.core.propose(Principal::Node(self.core.me.node), None, command).await
    }

    /// Begins to fetch a file that another node shares, if it has it; see [`Options::shared`].
    ///
    /// # Errors
    /// Why it cannot be had from there, in a sentence.
    pub async fn fetch(&self, from: NodeId, file: Digest) -> Result<Option<Fetch>, String> {
        Fetch::begin(&self.core.pool, from, file).await
    }

    /// The newest view, without asking anybody: it may be old.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.core.views.borrow().clone()
    }

    /// The slowest sync of the log since this was asked last, milliseconds.
    #[must_use]
    pub fn slowest_sync_ms(&self) -> u32 {
        self.running.log.slowest_sync_ms()
    }

    /// All views to come. Slow readers miss some in between, never the newest.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.core.views.clone()
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.core.me.node
    }

    /// The identity of the data directory.
    #[must_use]
    pub fn store_id(&self) -> domain::id::StoreId {
        self.core.me.store
    }

    /// Becomes true when a peer says that this node was removed from the cluster.
    #[must_use]
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.core.pool.removed.subscribe()
    }

    /// Waits until Raft has stopped by itself, and says why: the log cannot be written, an entry
    /// cannot be applied, or it was shut down.
    pub async fn stopped(&self) -> String {
        self.core.stopped().await
    }

    /// Ends: hands nothing over (see [`Store::transfer_leader`]), but leaves everything that was
    /// acknowledged on the disk.
    pub async fn shutdown(&self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        self.running.stop.send_replace(true);
        let _ = tokio::time::timeout(PATIENCE, self.core.raft.shutdown()).await;
        let serving = self.running.serving.lock().ok().and_then(|mut serving| serving.take());
        if let Some(serving) = serving {
            let _ = tokio::time::timeout(PATIENCE, serving).await;
        }
        let running = self.running.clone();
        let closed = tokio::task::spawn_blocking(move || {
            running.log.close();
            if let Some(copier) = &running.copier {
                copier.stop();
            }
        });
        let _ = closed.await;
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StoreError> {
    TcpListener::bind(address).await.map_err(|source| StoreError::Listen { address, source })
}
