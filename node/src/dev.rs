//! `novacron dev`: a whole cluster in one process on loopback, with simulated hosts. For trying out
//! and for tests; everything but the hypervisors is the real thing.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use actors::LocalHost;
use anyhow::{Context, Result};
use domain::{host::Capacity, id::HostId, name::Name};
use drivers::simulator::Options as SimulatorOptions;
use newtype_uuid::GenericUuid;
use raft_store::{DamageError, StoreError, Timing, WalOptions};

use crate::{
    config::ApiSection,
    daemon::{Daemon, DaemonOptions},
    files::{self, Files},
    founding::{self, Setup},
    hosts,
};

/// What the cluster is to be like.
#[derive(Clone)]
pub struct DevOptions {
    /// How many nodes, 1 to 9.
    pub nodes: usize,
    /// How many simulated hosts in all, spread over the nodes.
    pub hosts: usize,
    /// Where everything lies; it is used again if it exists.
    pub directory: PathBuf,
    /// Calls of a simulated driver that fail, out of a thousand.
    pub failures_per_mille: u64,
    /// How fast nodes expect each other to answer.
    pub timing: Timing,
    /// What is done with a host before its node takes it up, when something is.
    pub over: Option<Over>,
    /// Who is told of alerts.
    pub receivers: Arc<[actors::Receiver]>,
}

/// Puts something over a simulated host.
pub type Over = Arc<dyn Fn(&mut LocalHost) + Send + Sync>;

/// A running cluster.
pub struct DevCluster {
    /// Its nodes; `None` for one that was stopped.
    pub daemons: Vec<Option<Daemon>>,
    /// What a client needs.
    pub access: Access,
    options: DevOptions,
    members: Vec<Member>,
}

/// What a client needs to know.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Access {
    /// `host:port` of the nodes' API.
    pub endpoints: Vec<String>,
    /// The cluster's authority, PEM.
    pub authority: String,
    /// The name that certificates carry.
    pub server_name: String,
    /// The admin credential.
    pub bearer: String,
}

/// Where a node is.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Member {
    directory: PathBuf,
    peer: SocketAddr,
    api: SocketAddr,
}

/// What is kept to start the same cluster again.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    access: Access,
    members: Vec<Member>,
}

impl DevCluster {
    /// Starts a cluster: a new one, or the one that lies in the directory.
    ///
    /// # Errors
    /// When a node cannot be set up or started.
    pub async fn start(options: DevOptions) -> Result<DevCluster> {
        let kept = options.directory.join("dev.json");
        if let Ok(text) = std::fs::read_to_string(&kept) {
            let Kept { access, members } =
                serde_json::from_str(&text).with_context(|| format!("{}", kept.display()))?;
            let mut cluster = DevCluster { daemons: Vec::new(), access, options, members };
            for number in 0..cluster.members.len() {
                let daemon = cluster.run(number).await?;
                cluster.daemons.push(Some(daemon));
            }
            cluster.hear_of_hosts().await?;
            return Ok(cluster);
        }
        let cluster = DevCluster::create(options, &kept).await?;
        cluster.hear_of_hosts().await?;
        Ok(cluster)
    }

    async fn create(options: DevOptions, kept: &Path) -> Result<DevCluster> {
        let members: Vec<Member> = (1..=options.nodes)
            .map(|number| {
                let directory = options.directory.join(format!("n{number}"));
                Ok(Member { directory, peer: free()?, api: free()? })
            })
            .collect::<Result<_>>()?;
        let expect = (2..=options.nodes).map(name).collect::<Vec<_>>();
        let first = members.first().context("a cluster has at least one node")?;
        let addresses = (first.peer.to_string(), first.api.to_string());
        let setup = Setup {
            directory: &first.directory,
            name: name(1),
            peer_address: &addresses.0,
            api_address: &addresses.1,
        };
        let cluster_name = Name::new("dev")?;
        let founded = founding::found(&setup, cluster_name, &expect).await?;
        let access = Access {
            endpoints: members.iter().map(|member| member.api.to_string()).collect(),
            authority: founded.authority,
            server_name: raft_store::identity::cluster_name(founded.cluster),
            bearer: founded.bearer,
        };
        let mut cluster = DevCluster { daemons: Vec::new(), access, options, members };
        let daemon = cluster.run(0).await?;
        cluster.daemons.push(Some(daemon));
        for (number, (name, token)) in founded.tokens.into_iter().enumerate() {
            let number = number + 1;
            cluster.join(number, name, &token).await?;
            let daemon = cluster.run(number).await?;
            cluster.daemons.push(Some(daemon));
        }
        let written = Kept { access: cluster.access.clone(), members: cluster.members.clone() };
        files::write(kept, &serde_json::to_string_pretty(&written)?)?;
        Ok(cluster)
    }

    /// Waits until the cluster knows its hosts: nodes are still taking them up when they run, and who asks for a
    /// host by its name at once is to find it.
    async fn hear_of_hosts(&self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(120);
        let first = self.daemons.first().and_then(Option::as_ref).context("no node runs")?;
        // A cluster that is used again has the nodes it was made with, whatever is asked for now.
        let (hosts, nodes, there) = (self.options.hosts, self.options.nodes, self.members.len());
        let driven = (0..hosts).filter(|host| host % nodes < there).count();
        let mut views = first.store.views();
        let known = views.wait_for(|view| view.state.hosts.len() >= driven);
        tokio::time::timeout(PATIENCE, known).await.with_context(|| {
            format!("not all hosts were heard of within {PATIENCE:?}; try fewer")
        })??;
        Ok(())
    }

    async fn join(&self, number: usize, name: Name, token: &str) -> Result<()> {
        let member = &self.members[number];
        if files::is_set_up(&member.directory) {
            return Ok(());
        }
        let (peer_address, api_address) = (member.peer.to_string(), member.api.to_string());
        let setup = Setup {
            directory: &member.directory,
            name,
            peer_address: &peer_address,
            api_address: &api_address,
        };
        founding::join(&setup, token).await.map(drop)
    }

    async fn run(&self, number: usize) -> Result<Daemon> {
        let member = &self.members[number];
        let files = Files::load(&member.directory)?;
        let options = DaemonOptions {
            directory: member.directory.clone(),
            peer_listen: member.peer,
            peer_address: member.peer.to_string(),
            api_listen: member.api,
            api_address: member.api.to_string(),
            timing: self.options.timing,
            wal: WalOptions::default(),
            api: ApiSection::default(),
            hosts: self.hosts_of(number),
            agents: Arc::default(),
            receivers: self.options.receivers.clone(),
        };
        Daemon::start(options, files).await
    }

    /// Every `nodes`-th host; names and identities follow from the number.
    fn hosts_of(&self, node: usize) -> Vec<Arc<LocalHost>> {
        let numbers = (0..self.options.hosts).filter(|host| host % self.options.nodes == node);
        let shared = Name::new("shared").expect("the literal is a name");
        let hosts = numbers.map(|number| {
            let id = HostId::from_untyped_uuid(uuid::Uuid::from_u128(number as u128 + 1));
            let name = Name::new(&format!("host-{:04}", number + 1)).expect("digits make a name");
            let options = SimulatorOptions {
                seed: number as u64,
                pools: [hosts::simulated_pool(&shared)].into(),
                failures_per_mille: self.options.failures_per_mille,
                ..SimulatorOptions::default()
            };
            let mut host = hosts::simulated(id, name, Capacity::default(), options);
            if let (Some(over), Some(host)) = (&self.options.over, Arc::get_mut(&mut host)) {
                over(host);
            }
            host
        });
        hosts.collect()
    }

    /// Stops one node, as a clean shutdown does.
    pub async fn stop_node(&mut self, number: usize) {
        if let Some(daemon) = self.daemons[number].take() {
            daemon.stop().await;
        }
    }

    /// Starts a node that was stopped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_node(&mut self, number: usize) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.run(number).await {
                // Raft's own tasks may outlive its shutdown for a moment; the lock on the directory goes with the
                // last of them.
                Err(error) if is_in_use(&error) && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                started => {
                    self.daemons[number] = Some(started?);
                    return Ok(());
                }
            }
        }
    }

    /// Stops all nodes.
    pub async fn stop(mut self) {
        for number in 0..self.daemons.len() {
            self.stop_node(number).await;
        }
    }
}

fn name(number: usize) -> Name {
    Name::new(&format!("n{number}")).expect("digits make a name")
}

/// How long a node that was stopped may take until it is gone altogether.
const PATIENCE: Duration = Duration::from_secs(30);

fn is_in_use(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref();
    matches!(error, Some(StoreError::Damage(DamageError::InUse { .. })))
}

/// An address that nobody listens on, and that this process has not handed out before: a node that is
/// not started yet, or stopped for a while, keeps its own. It is below the ports that the kernel hands
/// out: one of those could be somebody's before the node listens.
fn free() -> Result<SocketAddr> {
    const TRIES: usize = 64;
    const PORTS: std::ops::Range<u16> = 10_240..32_768;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let [a, b, ..] = uuid::Uuid::new_v4().into_bytes();
        AtomicU16::new(u16::from_be_bytes([a, b]))
    });
    for _ in 0..TRIES {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, PORTS.start + step)) {
            return Ok(listener.local_addr()?);
        }
    }
    anyhow::bail!("no free port after {TRIES} tries")
}

/// Creates `count` VMs named `seed-…`, and the image they need.
///
/// # Errors
/// When one is refused.
pub async fn seed(access: &Access, count: u32) -> Result<()> {
    use proto::v1::{self, images_client::ImagesClient, vms_client::VmsClient};
    /// Requests under way at one time.
    const PARALLEL: u32 = 64;
    let client = client::Client::new(client::Options {
        endpoints: access.endpoints.clone(),
        authority: access.authority.clone(),
        server_name: access.server_name.clone(),
        bearer: access.bearer.clone(),
        deadline: Duration::from_secs(60),
        traceparent: None,
    })?;
    let image = v1::CreateImageRequest {
        mutation: client.mutation().await?,
        name: "seed".to_owned(),
        files: Vec::new(),
        origin: "no bytes: for simulated hosts".to_owned(),
        holder: String::new(),
    };
    let created = client.call(image, async |channel, request| {
        ImagesClient::new(channel).create_image(request).await
    });
    let exists = |error: &client::Error| error.code() == Some(tonic::Code::AlreadyExists);
    match created.await {
        Ok(_) => {}
        Err(error) if exists(&error) => {}
        Err(error) => return Err(error.into()),
    }
    let mut calls = tokio::task::JoinSet::new();
    for worker in 0..PARALLEL {
        let client = client.clone();
        calls.spawn(async move {
            for number in (worker..count).step_by(PARALLEL as usize) {
                let request = v1::CreateVmRequest {
                    mutation: client.mutation().await?,
                    project: String::new(),
                    name: format!("seed-{number:05}"),
                    spec: Some(v1::VmSpec {
                        vcpus: 1,
                        memory_mib: 64,
                        image: "seed".to_owned(),
                        ..Default::default()
                    }),
                    stopped: false,
                };
                let created = client.call(request, async |channel, request| {
                    VmsClient::new(channel).create_vm(request).await
                });
                match created.await {
                    Ok(outcome) => client.note(outcome.revision),
                    Err(error) if exists(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(())
}
