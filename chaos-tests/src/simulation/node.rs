//! A node: what runs on its machine, and what of it outlives a crash.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use domain::{
    cluster::{Cluster, ClusterCommand, Founding, Invitation, PROTOCOL_VERSION},
    envelope::Command,
    id::{Digest, NodeId},
    name::Name,
    node::{Join, NodeCommand},
    principal::Principal,
};
use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind};
use raft_store::{
    Founder, Options, Store, Timing, WalOptions, Wire,
    simulation::{Caller, Disk, World},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use turmoil::net::{TcpListener, TcpStream};

use super::clients;
use crate::history::History;

const PORT: u16 = 7_000;

thread_local! {
    /// How far the wall clocks of this thread's world are off.
    static WALL_OFF_MS: Cell<i64> = const { Cell::new(0) };
}

/// Sets all wall clocks, to so far off the right time.
pub(super) fn set_wall_clocks(off_ms: i64) {
    WALL_OFF_MS.set(off_ms);
}

/// How fast things go here: as on machines of one network, with snapshots that come often.
fn timing() -> Timing {
    Timing {
        snapshot_entries: 150,
        kept_entries: 40,
        deadline: Duration::from_secs(5),
        ..Timing::default()
    }
}

pub(super) fn id<K: TypedUuidKind>(number: u128) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(uuid::Uuid::from_u128(number))
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("it is a name")
}

/// Machines are numbered from 1. The cluster gives the nodes on them other numbers as they join.
pub(super) type Machine = u64;

pub(super) fn host(machine: Machine) -> String {
    format!("n{machine}")
}

fn address(machine: Machine) -> String {
    format!("{}:{PORT}", host(machine))
}

/// What a node can be asked to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    Snapshot,
    HandOver(NodeId),
}

/// What all nodes share, outside of the simulation.
pub(super) struct Common {
    pub(super) history: Arc<History>,
    pub(super) is_over: Cell<bool>,
    pub(super) resource: clients::Resource,
    /// Who is to vote; all, when nobody is named.
    pub(super) voters: RefCell<BTreeSet<NodeId>>,
    pub(super) is_founding: Cell<bool>,
    /// What the cluster calls the nodes.
    pub(super) ids: RefCell<BTreeMap<Machine, NodeId>>,
    pub(super) count: u64,
    pub(super) home: PathBuf,
}

pub(super) struct Node {
    pub(super) disk: Arc<Disk>,
    /// While it runs.
    pub(super) store: RefCell<Option<Store>>,
    /// What it is asked to do.
    pub(super) asked: RefCell<Option<Ask>>,
    /// What was seen of it last.
    pub(super) seen: Cell<Option<(u64, u64)>>,
}

/// What runs on a node, until it crashes.
pub(super) async fn run(
    machine: Machine,
    node: &Rc<Node>,
    common: Rc<Common>,
) -> anyhow::Result<()> {
    let number = loop {
        if let Some(id) = common.ids.borrow().get(&machine) {
            break *id;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (wires, incoming) = mpsc::channel(1);
    tokio::task::spawn_local(accept(listener, common.clone(), wires));
    let directory = common.home.join(host(machine));
    let options = Options {
        shared: directory.join("shared"),
        directory,
        store: id(u128::from(100 + machine)),
        cluster: id(7),
        node: number,
        peer_address: ([0, 0, 0, 0], PORT).into(),
        timing: timing(),
        wal: WalOptions::default(),
    };
    let world = World {
        since_boot: || turmoil::sim_elapsed().unwrap_or_default(),
        wall_ms: || {
            let since = turmoil::since_epoch().unwrap_or_default();
            let right_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            right_ms.saturating_add_signed(WALL_OFF_MS.get())
        },
        dial: |address| {
            Box::pin(
                async move { Ok(Box::new(TcpStream::connect(address).await?) as Box<dyn Wire>) },
            )
        },
        incoming: Box::pin(ReceiverStream::new(incoming)),
        disk: node.disk.clone(),
    };
    let store = Store::open_simulated(options, world).await?;
    node.store.replace(Some(store.clone()));
    if number == Founder::NODE && common.is_founding.get() {
        found(&store, &common).await?;
    }
    tokio::task::spawn_local(lead(store.clone(), node.clone(), common.clone()));
    let seed = fastrand::u64(..);
    clients::start(&store, &common, seed);
    anyhow::bail!("{}", store.stopped().await)
}

/// Does what a node is asked to, and what the leader's actors do: lease time goes on, and those vote that are
/// to.
async fn lead(store: Store, node: Rc<Node>, common: Rc<Common>) {
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        match node.asked.take() {
            Some(Ask::Snapshot) => drop(store.snapshot().await),
            Some(Ask::HandOver(to)) => drop(store.transfer_leader(to).await),
            None => {}
        }
        let status = store.status();
        if status.leads {
            let mut voters = common.voters.borrow().clone();
            if voters.is_empty() {
                voters = common.ids.borrow().values().copied().collect();
            }
            if voters != status.voters && voters.len() > 1 && !common.is_founding.get() {
                drop(store.set_voters(voters).await);
            }
            let mark = store.view().state.mark;
            // The next one follows.
            let _ = store.propose_as_node(Command::Cluster(ClusterCommand::Tick(mark))).await;
        }
    }
}

/// Who connects.
async fn accept(
    listener: TcpListener,
    common: Rc<Common>,
    wires: mpsc::Sender<(Caller, Box<dyn Wire>)>,
) {
    while let Ok((wire, peer)) = listener.accept().await {
        let host = turmoil::reverse_lookup(peer.ip()).unwrap_or_default();
        let machine: Option<Machine> = host.trim_start_matches('n').parse().ok();
        let id = machine.and_then(|machine| common.ids.borrow().get(&machine).copied());
        let Some(id) = id else { continue };
        if wires.send((Caller(id), Box::new(wire))).await.is_err() {
            return;
        }
    }
}

/// The first node begins the cluster and has the others join.
async fn found(store: &Store, common: &Common) -> anyhow::Result<()> {
    store.found(&address(1), founding(common.count)).await?;
    for machine in 2..=common.count {
        let join = Join {
            secret_sha256: Digest::sha256(&machine.to_be_bytes()),
            name: name(&host(machine)),
            peer_address: address(machine),
            api_address: String::new(),
            store: id(u128::from(100 + machine)),
            key_sha256: Digest::sha256(&machine.to_le_bytes()),
            protocol_max: PROTOCOL_VERSION,
        };
        let command = Command::Node(NodeCommand::Join(Box::new(join)));
        let node: NodeId = store.propose(Principal::Joiner, None, command).await?.object.parse()?;
        common.ids.borrow_mut().insert(machine, node);
        store.add_learner(node, &address(machine)).await?;
    }
    // They are given votes by whoever leads, as soon as all are there.
    common.is_founding.set(false);
    Ok(())
}

fn founding(nodes: u64) -> Founding {
    let invite = |machine: Machine| Invitation {
        token: id(u128::from(machine)),
        secret_sha256: Digest::sha256(&machine.to_be_bytes()),
        node: None,
        expires_wall_ms: u64::MAX,
    };
    Founding {
        cluster: Cluster { id: id(7), name: name("simulated") },
        protocol_version: PROTOCOL_VERSION,
        node: 1,
        node_name: name("n1"),
        peer_address: address(1),
        api_address: String::new(),
        store: id(101),
        key_sha256: Digest::ZERO,
        admin: clients::admin(),
        admin_sha256: Digest::ZERO,
        tokens: (2..=nodes).map(invite).collect(),
    }
}
