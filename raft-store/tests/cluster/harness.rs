//! A cluster in one process: nodes are opened, stopped, wiped and admitted as real ones are.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use domain::{
    cluster::{Cluster as Name, ClusterCommand, Founding, Invitation, Mark, PROTOCOL_VERSION},
    envelope::{Command, Outcome, Request},
    id::{ClusterId, Digest, NodeId, RequestId, StoreId},
    node::{Join, NodeCommand},
    principal::Principal,
    project::ProjectCommand,
};
use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind};
use novacron_raft_store::{
    Founder, Options, ProposeError, Store, Timing, WalOptions,
    identity::{Authority, Identity, Subject, request_key_digest, signing_request},
};

pub fn id<K: TypedUuidKind>(n: u128) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(uuid::Uuid::from_u128(n))
}

pub fn name(text: &str) -> domain::name::Name {
    domain::name::Name::new(text).unwrap()
}

/// An address that nobody listens on, below the ports that the kernel hands out: one of those could
/// be somebody's before the node listens.
fn free_address() -> SocketAddr {
    const PORTS: std::ops::Range<u16> = 10_240..32_768;
    loop {
        let [a, b, ..] = uuid::Uuid::new_v4().into_bytes();
        let port = PORTS.start + u16::from_be_bytes([a, b]) % (PORTS.end - PORTS.start);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

pub struct Node {
    pub directory: PathBuf,
    pub address: SocketAddr,
    identity: Arc<Identity>,
    store_id: StoreId,
}

pub struct Cluster {
    pub id: ClusterId,
    root: tempfile::TempDir,
    authority: Authority,
    pub timing: Timing,
    pub nodes: BTreeMap<NodeId, Node>,
    pub running: BTreeMap<NodeId, Store>,
    counter: u128,
}

pub const PATIENCE: Duration = Duration::from_secs(30);

impl Cluster {
    /// A cluster of one.
    pub async fn found(timing: Timing) -> Cluster {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(std::env::var("NOVACRON_TEST_LOG").unwrap_or_default())
            .with_test_writer()
            .try_init();
        let mut cluster = Cluster {
            id: id(7),
            root: tempfile::tempdir().unwrap(),
            authority: Authority::create("test").unwrap(),
            timing,
            nodes: BTreeMap::new(),
            running: BTreeMap::new(),
            counter: 0,
        };
        let node = Founder::NODE;
        let (request, key) = signing_request().unwrap();
        let key_sha256 = request_key_digest(&request).unwrap();
        cluster.prepare(node, &request, &key, free_address(), id(100));
        let store = cluster.open(node).await;
        let address = cluster.nodes[&node].address.to_string();
        let tokens = (1..=20).map(|n| Invitation {
            token: id(n),
            secret_sha256: Digest::sha256(&n.to_be_bytes()),
            node: None,
            expires_wall_ms: u64::MAX,
        });
        let founding = Founding {
            cluster: Name { id: cluster.id, name: name("test") },
            protocol_version: PROTOCOL_VERSION,
            node,
            node_name: name("n1"),
            peer_address: address.clone(),
            api_address: String::new(),
            store: id(100),
            key_sha256,
            admin: id(1),
            admin_sha256: Digest::ZERO,
            tokens: tokens.collect(),
        };
        store.found(&address, founding).await.unwrap();
        cluster
    }

    /// `count` voters.
    pub async fn of(count: usize, timing: Timing) -> Cluster {
        let mut cluster = Cluster::found(timing).await;
        for _ in 1..count {
            let node = cluster.join().await;
            cluster.vote(node).await;
        }
        cluster
    }

    fn prepare(
        &mut self,
        node: NodeId,
        request: &str,
        key: &str,
        address: SocketAddr,
        store_id: StoreId,
    ) {
        let subject = Subject { cluster: self.id, node, addresses: vec![address.to_string()] };
        let certificate = self.authority.sign(request, &subject).unwrap();
        let identity = Identity::load(&certificate, key, self.authority.certificate_pem()).unwrap();
        let directory = self.root.path().join(format!("node-{node}"));
        self.nodes.insert(node, Node { directory, address, identity, store_id });
    }

    /// Starts a node from what its directory holds.
    pub async fn open(&mut self, node: NodeId) -> Store {
        let store = self.try_open(node).await.unwrap();
        self.running.insert(node, store.clone());
        store
    }

    pub async fn try_open(&self, node: NodeId) -> Result<Store, novacron_raft_store::StoreError> {
        let row = &self.nodes[&node];
        let options = Options {
            directory: row.directory.clone(),
            store: row.store_id,
            cluster: self.id,
            node,
            peer_address: row.address,
            shared: row.directory.join("shared"),
            timing: self.timing,
            wal: WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() },
        };
        Store::open(options, &row.identity).await
    }

    /// Admits a new node, which follows without a vote.
    pub async fn join(&mut self) -> NodeId {
        let node = self.admit().await;
        let leader = self.leader().await;
        self.open(node).await;
        let address = self.nodes[&node].address.to_string();
        leader.add_learner(node, &address).await.unwrap();
        node
    }

    /// Gives a new node its identity, but does not start it.
    pub async fn admit(&mut self) -> NodeId {
        self.counter += 1;
        let n = self.counter;
        let (request, key) = signing_request().unwrap();
        let address = free_address();
        let join = Join {
            secret_sha256: Digest::sha256(&n.to_be_bytes()),
            name: name(&format!("joined-{n}")),
            peer_address: address.to_string(),
            api_address: String::new(),
            store: id(200 + n),
            key_sha256: request_key_digest(&request).unwrap(),
            protocol_max: PROTOCOL_VERSION,
        };
        let command = Command::Node(NodeCommand::Join(Box::new(join)));
        let leader = self.leader().await;
        let joined = leader.propose(Principal::Joiner, None, command).await.unwrap();
        let node: NodeId = joined.object.parse().unwrap();
        self.prepare(node, &request, &key, address, id(200 + n));
        node
    }

    /// Waits until a node has caught up and gives it a vote.
    pub async fn vote(&mut self, node: NodeId) {
        self.await_agreement().await;
        let leader = self.leader().await;
        let mut voters = leader.status().voters;
        voters.insert(node);
        leader.set_voters(voters).await.unwrap();
    }

    /// The node that leads, as soon as a majority of the running ones agree on it.
    pub async fn leader(&self) -> Store {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut votes: BTreeMap<NodeId, usize> = BTreeMap::new();
            for store in self.running.values() {
                if let Some(leader) = store.status().leader {
                    *votes.entry(leader).or_default() += 1;
                }
            }
            for (leader, count) in votes {
                if let Some(store) = self.running.get(&leader)
                    && store.status().leads
                    && count * 2 > self.running.len()
                {
                    return store.clone();
                }
            }
            assert!(tokio::time::Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends a node as a clean stop does.
    pub async fn stop(&mut self, node: NodeId) {
        let store = self.running.remove(&node).unwrap();
        store.shutdown().await;
        drop(store);
        // Raft's own tasks may outlive its shutdown for a moment; the lock goes with the last one.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    /// Waits until all running nodes hold the same history.
    pub async fn await_agreement(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let views: Vec<_> = self.running.values().map(Store::view).collect();
            if views.windows(2).all(|pair| pair[0].at == pair[1].at) {
                for pair in views.windows(2) {
                    assert_eq!(pair[0].chain(), pair[1].chain(), "the histories differ");
                    assert_eq!(pair[0].state, pair[1].state, "the states differ");
                }
                return;
            }
            let seen: Vec<_> = views.iter().map(|view| view.at).collect();
            assert!(tokio::time::Instant::now() < deadline, "they do not agree: {seen:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn tick(&self) {
        let leader = self.leader().await;
        let mark: Mark = leader.view().state.mark;
        let tick = Command::Cluster(ClusterCommand::Tick(mark));
        leader.propose_as_node(tick).await.unwrap();
    }
}

pub fn project(text: &str) -> Command {
    Command::Project(ProjectCommand::Create { name: name(text) })
}

/// Creates a project through this node, under a request id of its own.
pub async fn create(store: &Store, text: &str, request: u128) -> Result<Outcome, ProposeError> {
    let request_id: RequestId = id(request);
    let digest = Digest::sha256(text.as_bytes());
    let request = Request { id: request_id, digest, since: None };
    store.propose(Principal::Credential(id(1)), Some(request), project(text)).await
}
