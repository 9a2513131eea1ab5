//! The nodes: what runs on each, what of it outlives a crash, and what must hold of all of them at any time.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use domain::{
    cluster::{Cluster, ClusterCommand, Founding, Invitation},
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
use turmoil::{
    Sim,
    net::{TcpListener, TcpStream},
};

use super::{clients, trace::Trace};
use crate::{checker::Violation, history::History};

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

/// All nodes.
pub(super) struct Nodes {
    all: BTreeMap<Machine, Rc<Node>>,
    common: Rc<Common>,
    /// What was seen applied at each entry, by whichever node, at whatever time: its term and the hash of the
    /// history up to it.
    applied: RefCell<BTreeMap<u64, (u64, Digest)>>,
    /// Who led.
    leaders: RefCell<BTreeMap<u64, Machine>>,
    violations: RefCell<Vec<Violation>>,
}

/// What all nodes share, outside of the simulation.
pub(super) struct Common {
    pub(super) history: Arc<History>,
    pub(super) is_over: Cell<bool>,
    pub(super) resource: clients::Resource,
    /// Who is to vote; all, when nobody is named.
    voters: RefCell<BTreeSet<NodeId>>,
    is_founding: Cell<bool>,
    /// What the cluster calls the nodes.
    ids: RefCell<BTreeMap<Machine, NodeId>>,
    count: u64,
    home: PathBuf,
}

struct Node {
    disk: Arc<Disk>,
    /// While it runs.
    store: RefCell<Option<Store>>,
    /// What it is asked to do.
    asked: RefCell<Option<Ask>>,
    /// What was seen of it last.
    seen: Cell<Option<(u64, u64)>>,
}

impl Nodes {
    pub(super) fn new(count: u64, home: &Path, history: Arc<History>) -> Nodes {
        let new = |node| {
            let (disk, store, asked) = Default::default();
            (node, Rc::new(Node { disk, store, asked, seen: Cell::new(None) }))
        };
        let resource = clients::Resource::default();
        let (is_over, home) = (Cell::new(false), home.to_owned());
        let ids = RefCell::new([(1, Founder::NODE)].into());
        Nodes {
            all: (1..=count).map(new).collect(),
            common: Rc::new(Common {
                history,
                is_over,
                resource,
                voters: RefCell::default(),
                is_founding: Cell::new(true),
                ids,
                count,
                home,
            }),
            applied: RefCell::default(),
            leaders: RefCell::default(),
            violations: RefCell::default(),
        }
    }

    /// Puts them into a world.
    pub(super) fn place(&self, sim: &mut Sim<'static>) {
        for (number, node) in &self.all {
            let (number, node, common) = (*number, node.clone(), self.common.clone());
            sim.host(host(number), move || {
                let (node, common) = (node.clone(), common.clone());
                async move { Ok(run(number, &node, common).await?) }
            });
        }
    }

    /// The numbers of those that run.
    pub(super) fn running(&self) -> Vec<Machine> {
        let runs = |node: &Node| node.store.borrow().is_some();
        self.all.iter().filter(|(_, node)| runs(node)).map(|(number, _)| *number).collect()
    }

    pub(super) fn leader(&self) -> Option<Machine> {
        let leads = |node: &Node| {
            let store = node.store.borrow();
            store
                .as_ref()
                .map(Store::status)
                .filter(|status| status.leads)
                .map(|status| status.term)
        };
        let leading = self.all.iter().filter_map(|(number, node)| Some((leads(node)?, *number)));
        leading.max().map(|(_, number)| number)
    }

    pub(super) fn store(&self, machine: Machine) -> Option<Store> {
        self.all[&machine].store.borrow().clone()
    }

    /// What the cluster calls the node on a machine.
    pub(super) fn id(&self, machine: Machine) -> NodeId {
        self.common.ids.borrow()[&machine]
    }

    pub(super) fn ask(&self, machine: Machine, what: Ask) {
        self.all[&machine].asked.replace(Some(what));
    }

    /// Names who is to vote: these machines, or all.
    pub(super) fn let_vote(&self, machines: &[Machine]) {
        self.common.voters.replace(machines.iter().map(|machine| self.id(*machine)).collect());
    }

    /// A node's process ends where it is; with `power` gone too, some of what was not synced is lost.
    pub(super) fn crash(&self, sim: &mut Sim<'static>, number: Machine, power: bool) -> usize {
        let node = &self.all[&number];
        // Before its world goes: what is still under way is dropped in it.
        node.store.take();
        node.seen.set(None);
        sim.crash(host(number));
        if power {
            return node.disk.lose_power(|written| fastrand::usize(0..=written));
        }
        node.disk.survive();
        0
    }

    pub(super) fn start(&self, sim: &mut Sim<'static>, number: Machine) {
        sim.bounce(host(number));
    }

    pub(super) fn all_are_up(&self) -> bool {
        let is_up = |node: &Node| {
            let store = node.store.borrow();
            store.as_ref().is_some_and(|store| store.view().state.cluster.is_some())
        };
        let votes = |leader: Machine| {
            self.store(leader).is_some_and(|store| store.status().voters.len() == self.all.len())
        };
        self.all.values().all(|node| is_up(node)) && self.leader().is_some_and(votes)
    }

    /// Clients end what they do.
    pub(super) fn stop(&self) {
        self.common.is_over.set(true);
    }

    /// Whether all nodes hold the same, and nobody asks for anything any more.
    pub(super) fn agree(&self) -> bool {
        let held = |node: &Node| {
            let store = node.store.borrow();
            let view = store.as_ref()?.view();
            Some((view.at, view.chain()))
        };
        let mut all = self.all.values().map(|node| held(node));
        let first = all.next().flatten();
        first.is_some() && all.all(|held| held == first) && self.common.resource.is_idle()
    }

    /// Looks at all of them, and whether what one holds fits what any ever held.
    pub(super) fn look(&self, trace: &Trace) {
        for (number, node) in &self.all {
            let Some(store) = node.store.borrow().clone() else { continue };
            let status = store.status();
            if status.leads {
                let mut leaders = self.leaders.borrow_mut();
                let leader = *leaders.entry(status.term).or_insert_with(|| {
                    trace.note(&format!("n{number} leads in term {}", status.term));
                    *number
                });
                if leader != *number {
                    let what = format!("n{leader} and n{number} lead in term {}", status.term);
                    self.complain("leaders", &host(*number), what);
                }
            }
            let view = store.view();
            let Some(at) = view.at else { continue };
            if node.seen.replace(Some((at.index, at.term))) == Some((at.index, at.term)) {
                continue;
            }
            trace.note(&format!("n{number} applied {}.{} {}", at.term, at.index, view.chain()));
            let held = (at.term, view.chain());
            let known = *self.applied.borrow_mut().entry(at.index).or_insert(held);
            if known != held {
                let what = format!("entry {} is {held:?}, and was {known:?}", at.index);
                self.complain("history", &host(*number), what);
            }
        }
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        self.violations.borrow().clone()
    }

    pub(super) fn elections(&self) -> usize {
        self.leaders.borrow().len()
    }

    fn complain(&self, model: &'static str, key: &str, what: String) {
        let mut violations = self.violations.borrow_mut();
        // What has gone apart is seen at every look.
        if violations.len() < 100 {
            violations.push(Violation { model, key: key.to_owned(), what });
        }
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, node) in &self.all {
            match &*node.store.borrow() {
                Some(store) => {
                    let status = store.status();
                    let (term, applied) = (status.term, status.applied_index.unwrap_or_default());
                    write!(f, "n{number} in term {term} at {applied}; ")?;
                }
                None => write!(f, "n{number} does not run; ")?,
            }
        }
        Ok(())
    }
}

/// What runs on a node, until it crashes.
async fn run(machine: Machine, node: &Rc<Node>, common: Rc<Common>) -> anyhow::Result<()> {
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
            protocol_max: domain::cluster::PROTOCOL_VERSION,
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
