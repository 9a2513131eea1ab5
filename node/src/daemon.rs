//! A running node: its store, its staff, its API.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use actors::{FencingAgent, ImageFiles, LocalHost, Monitor, Receiver, Staff, StaffOptions};
use anyhow::{Context, Result};
use raft_store::{
    Options, Store, Timing, WalOptions,
    listener::{self, Limits},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tower::ServiceExt;

use crate::{
    api::{self, Api},
    config::ApiSection,
    files::{self, Files},
    metrics,
};

/// What a node needs to run.
pub struct DaemonOptions {
    /// The data directory.
    pub directory: PathBuf,
    /// Where it listens for other nodes.
    pub peer_listen: SocketAddr,
    /// Where other nodes reach it.
    pub peer_address: String,
    /// Where it listens for clients.
    pub api_listen: SocketAddr,
    /// Where clients reach it.
    pub api_address: String,
    /// How fast things are expected to go.
    pub timing: Timing,
    /// The log's files.
    pub wal: WalOptions,
    /// Limits of the API.
    pub api: ApiSection,
    /// The hosts it drives.
    pub hosts: Vec<Arc<LocalHost>>,
    /// What cuts the power of hosts.
    pub agents: Arc<[FencingAgent]>,
    /// Who is told of alerts.
    pub receivers: Arc<[Receiver]>,
}

/// Bodies of one host that are worked on at one time.
const PARALLEL: usize = 32;
/// Files that a node takes at one time.
const UPLOADS_MAX: usize = 8;
/// Streams of changes that are open at a time.
const STREAMS_MAX: usize = 64;

/// A running node.
pub struct Daemon {
    /// Its state.
    pub store: Store,
    staff: Staff,
    monitor: Arc<Monitor>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    renewing: JoinHandle<()>,
}

impl Daemon {
    /// Starts a node that is set up.
    ///
    /// # Errors
    /// When its data cannot be trusted or an address cannot be listened on.
    pub async fn start(options: DaemonOptions, files: Files) -> Result<Daemon> {
        allow_files();
        take_small_pages();
        // Before anything is counted.
        let _ = metrics::start();
        let files = Arc::new(files);
        let shared = files::images(&options.directory);
        let store = Store::open(
            Options {
                directory: options.directory.clone(),
                store: files.node.store,
                cluster: files.node.cluster,
                node: files.node.node,
                peer_address: options.peer_listen,
                shared: shared.clone(),
                timing: options.timing,
                wal: options.wal,
            },
            &files.identity,
        )
        .await?;
        // After the store holds the directory's lock: another process' files are not touched.
        let images = ImageFiles::open(&shared)
            .with_context(|| format!("cannot use {}", shared.display()))?;
        let images = Arc::new(images);
        let monitor = Monitor::open(&options.directory);
        let monitor = monitor.context("cannot keep what VMs use in the data directory")?;
        let monitor = Arc::new(monitor);
        let listener = TcpListener::bind(options.api_listen)
            .await
            .with_context(|| format!("cannot listen for clients on {}", options.api_listen))?;
        let (stop, stopped) = watch::channel(false);
        let limits = Limits { connections: options.api.connections, ..Limits::default() };
        let api = Api {
            store: store.clone(),
            files: files.clone(),
            hosts: options.hosts.clone(),
            images: images.clone(),
            attached: Default::default(),
            limits: api::rate_limits(options.api.requests_per_second),
            connections: Default::default(),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            backups: Arc::new(Semaphore::new(1)),
            monitor: monitor.clone(),
            directory: options.directory.clone(),
        };
        let router = api::router(api);
        let service = router.map_request(|request: http::Request<hyper::body::Incoming>| {
            request.map(axum::body::Body::new)
        });
        let tls = files.identity.server(false)?;
        let serving = tokio::spawn(listener::serve(listener, tls, service, limits, stopped));
        let addresses = vec![options.peer_address.clone(), options.api_address.clone()];
        let of_files = files.clone();
        let certificate_until_wall_ms = Arc::new(move || {
            let expiry_s = of_files.certificate_expiry_s().unwrap_or_default();
            u64::try_from(expiry_s).unwrap_or_default().saturating_mul(1_000)
        });
        let renewing = tokio::spawn(renew(files, addresses));
        let staff = Staff::start(StaffOptions {
            store: store.clone(),
            hosts: options.hosts,
            agents: options.agents,
            receivers: options.receivers,
            certificate_until_wall_ms,
            monitor: monitor.clone(),
            images,
            directory: options.directory,
            peer_address: options.peer_address,
            api_address: options.api_address,
            parallel: PARALLEL,
        });
        let staff = staff.await.map_err(anyhow::Error::msg)?;
        Ok(Daemon { store, staff, monitor, stop, serving, renewing })
    }

    /// Its staff, for tests.
    #[must_use]
    pub fn staff(&self) -> &Staff {
        &self.staff
    }

    /// Stops in order: hands the leadership over if somebody can take it, lets requests end, leaves
    /// everything that was acknowledged on the disk.
    pub async fn stop(self) {
        self.renewing.abort();
        let status = self.store.status();
        if status.leads {
            for peer in status.voters.iter().filter(|voter| **voter != status.node) {
                if self.store.transfer_leader(*peer).await.is_ok() {
                    tracing::info!(to = peer, "the leadership is handed over");
                    break;
                }
            }
        }
        self.staff.stop().await;
        let flushed = tokio::task::spawn_blocking(move || self.monitor.flush());
        let _ = tokio::time::timeout(Duration::from_secs(5), flushed).await;
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(Duration::from_secs(5), self.serving).await;
        self.store.shutdown().await;
    }
}

/// Has as many files open as it may: each connection is one.
fn allow_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "no more files may be open than before");
    }
}

/// Has the kernel give memory by the small page: a node touches a little here and there of what its allocator holds,
/// and of a large page all two mebibytes are cleared for it. What it starts inherits that; drivers take it back, for
/// guests are better off with large ones.
fn take_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "memory may come in large pages");
    }
}

/// Renews the node's certificate in time.
async fn renew(files: Arc<Files>, addresses: Vec<String>) {
    const INTERVAL: Duration = Duration::from_secs(3600);
    loop {
        let now_s = i64::try_from(crate::clock::wall_ms() / 1_000).unwrap_or(i64::MAX);
        match files.renew_if_due(addresses.clone(), now_s) {
            Ok(true) => tracing::info!("the node's certificate was renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the node's certificate was not renewed"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
