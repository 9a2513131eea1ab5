//! What befalls a cluster. Each fault is mended again, and says how it is known to have happened.

mod clock;
mod crash;
mod damage;
mod driver;
mod failing_disk;
mod full_disk;
mod hung_disk;
mod kill;
mod late;
mod libvirtd;
mod limits;
mod loss;
mod narrow;
mod panics;
mod partition;
mod pause;
mod power;
mod qemu;
mod restart;
mod slow_disk;
pub(crate) mod spare;
mod twice;
mod voters;

use std::{
    collections::BTreeSet,
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::Result;
use async_trait::async_trait;
use client::{
    Client,
    v1::{self, clusters_client::ClustersClient},
};
use lab::{Cluster, Limit};
use partition::Shape;

/// Something that befalls a cluster.
#[async_trait]
pub(crate) trait Fault: Send {
    /// Strikes; the answer is whom. It is nobody when nobody can be struck just now.
    ///
    /// # Errors
    /// When it cannot be struck here at all: then there is no run.
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>>;

    /// Mends what it did. The answer is the proof that it had happened, if there is one.
    ///
    /// # Errors
    /// When it cannot be mended.
    async fn mend(&mut self, site: &mut Site) -> Result<Proof>;
}

/// How a fault is known to have happened, or why it is not.
pub(crate) type Proof = std::result::Result<String, String>;

/// Faults of one kind: they are struck one after the other, and beside those of other lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Between nodes.
    Network,
    /// To the process of a node, or its disk.
    Node,
    /// To what a node may use.
    Means,
    /// To what all go by: the time, who belongs to the cluster and votes, and which program a node runs.
    Order,
}

impl Lane {
    pub(crate) const ALL: [Lane; 4] = [Lane::Network, Lane::Node, Lane::Means, Lane::Order];
}

/// A kind of fault.
pub(crate) struct Kind {
    pub name: &'static str,
    pub lane: Lane,
    /// Whether it always takes long.
    pub is_slow: bool,
    pub make: fn() -> Box<dyn Fault>,
}

/// All kinds.
pub(crate) const KINDS: [Kind; 32] = [
    kind("leader-alone", Lane::Network, || partition::make(Shape::LeaderAlone)),
    kind("leader-deaf", Lane::Network, || partition::make(Shape::LeaderDeaf)),
    kind("leader-mute", Lane::Network, || partition::make(Shape::LeaderMute)),
    kind("halves", Lane::Network, || partition::make(Shape::Halves)),
    kind("ring", Lane::Network, || partition::make(Shape::Ring)),
    kind("bridge", Lane::Network, || partition::make(Shape::Bridge)),
    kind("loss", Lane::Network, || Box::new(loss::Loss::default())),
    kind("narrow", Lane::Network, || Box::new(narrow::Narrow::default())),
    kind("late", Lane::Network, || Box::new(late::Late::default())),
    kind("twice", Lane::Network, || Box::new(twice::Twice::default())),
    kind("kill", Lane::Node, || Box::new(kill::Kill::default())),
    kind("pause", Lane::Node, || Box::new(pause::Pause::default())),
    kind("power-cut", Lane::Node, || Box::new(power::PowerCut::of_one())),
    kind("power-cut-of-all", Lane::Node, || Box::new(power::PowerCut::of_all())),
    kind("hung-disk", Lane::Node, || Box::new(hung_disk::HungDisk::default())),
    kind("full-disk", Lane::Node, || Box::new(full_disk::FullDisk::default())),
    kind("failing-disk", Lane::Node, || Box::new(failing_disk::FailingDisk::default())),
    kind("flipped-bit", Lane::Node, || Box::new(damage::FlippedBit::default())),
    kind("torn-tail", Lane::Node, || Box::new(damage::TornTail::default())),
    kind("driver-killed", Lane::Node, || Box::new(driver::DriverKilled::default())),
    kind("slow-disk", Lane::Means, || Box::new(slow_disk::SlowDisk::default())),
    kind("little-cpu", Lane::Means, || Box::new(limits::Limits::of(Limit::Cpu(5)))),
    kind("little-memory", Lane::Means, || Box::new(limits::Limits::of(Limit::Memory(256 << 10)))),
    kind("frozen", Lane::Means, || Box::new(limits::Limits::of(Limit::Frozen))),
    kind("guests-crash", Lane::Means, || Box::new(crash::Crash::default())),
    kind("libvirtd-killed", Lane::Means, || Box::new(libvirtd::LibvirtdKilled::default())),
    kind("qemus-killed", Lane::Means, || Box::new(qemu::QemusKilled::default())),
    kind("actors-panic", Lane::Means, || Box::new(panics::Panics::default())),
    kind("clock-jump", Lane::Order, || Box::<clock::ClockJump>::default()),
    kind("fewer-voters", Lane::Order, || Box::new(voters::Voters::default())),
    kind("restart", Lane::Order, || Box::new(restart::Restart::default())),
    Kind { is_slow: true, ..kind("one-more", Lane::Order, || Box::new(spare::Spare)) },
];

const fn kind(name: &'static str, lane: Lane, make: fn() -> Box<dyn Fault>) -> Kind {
    Kind { name, lane, is_slow: false, make }
}

/// Where faults strike.
pub(crate) struct Site {
    pub cluster: Cluster,
    /// What the fault that is struck draws from.
    pub random: fastrand::Rng,
    /// Who leads, as far as anybody answers; nobody, while that is the node that comes and goes.
    pub leader: Option<usize>,
    /// Whether the next fault is to strike the leader.
    pub at_leader: bool,
    clients: Vec<Client>,
    /// Nodes that a fault has in its hands.
    taken: BTreeSet<usize>,
    /// Whether the node that comes and goes was to go and could not be removed.
    lingers: bool,
    /// What such a node did that it may not even then.
    wrong: Vec<(usize, String)>,
}

/// How long a node may take to stop that cannot go on.
const STOPS_WITHIN: Duration = Duration::from_secs(5);
/// How long a node may take to say who leads.
const ASK: Duration = Duration::from_millis(500);

impl Site {
    pub(crate) fn new(cluster: Cluster) -> Result<Site> {
        let endpoints = cluster.access.endpoints.clone();
        let clients =
            endpoints.into_iter().map(|endpoint| cluster.client_with(vec![endpoint], ASK));
        let clients = clients.collect::<Result<_>>()?;
        let taken = BTreeSet::new();
        let random = fastrand::Rng::new();
        Ok(Site {
            cluster,
            random,
            leader: None,
            at_leader: false,
            clients,
            taken,
            lingers: false,
            wrong: Vec::new(),
        })
    }

    pub(crate) fn nodes(&self) -> usize {
        self.clients.len()
    }

    /// What each node that answers at once knows of the cluster, however old.
    pub(crate) async fn views(&self) -> Vec<Option<v1::Cluster>> {
        let freshness = Some(v1::Freshness { stale: true, ..Default::default() });
        let mut asked = tokio::task::JoinSet::new();
        for (node, client) in self.clients.iter().cloned().enumerate() {
            let request = v1::GetClusterRequest { freshness };
            asked.spawn(async move {
                let answer = client.call(request, async |channel, request| {
                    ClustersClient::new(channel).get_cluster(request).await
                });
                (node, answer.await.ok())
            });
        }
        let mut views = vec![None; self.nodes()];
        for (node, view) in asked.join_all().await {
            views[node] = view;
        }
        views
    }

    /// A client of all nodes.
    fn client(&self, deadline: Duration) -> Result<Client> {
        self.cluster.client_with(self.cluster.access.endpoints.clone(), deadline)
    }

    /// Stops a node as systemd does, and starts it again, with the newest program. The answer is how it ended.
    ///
    /// # Errors
    /// When it did not run, or cannot be started.
    pub(crate) async fn restart(&mut self, node: usize) -> Result<Option<ExitStatus>> {
        self.cluster.terminate(node)?;
        // What does not stop in time is killed.
        self.has_stopped(node).await;
        let ended = self.cluster.kill(node)?;
        self.cluster.replace_program(node);
        self.cluster.run(node)?;
        Ok(ended)
    }

    /// Sees to what a fault has left to be done.
    ///
    /// # Errors
    /// When it can never be done.
    pub(crate) async fn tidy(&mut self) -> Result<()> {
        spare::see_out(self).await
    }

    /// Takes a look at who leads: the node of the highest term that says so. The answer is that term.
    pub(crate) async fn look(&mut self) -> Option<u64> {
        let views = self.views().await;
        self.leader = None;
        let newest =
            views.into_iter().flatten().max_by_key(|view| (view.term, !view.leader.is_empty()));
        let newest = newest?;
        let leader = newest.leader.strip_prefix('n').and_then(|n| n.parse::<usize>().ok());
        self.leader = leader.map(|number| number - 1).filter(|leader| *leader < self.nodes());
        Some(newest.term)
    }

    /// A node that no fault has in its hands: the leader, when it is to be struck; nobody, while another fault has
    /// that one.
    fn pick(&mut self) -> Option<usize> {
        let free = self.free();
        match self.leader.filter(|_| self.at_leader) {
            Some(leader) => Some(leader).filter(|leader| free.contains(leader)),
            None => self.random.choice(free),
        }
    }

    /// The same, and nobody else has it then.
    fn take(&mut self) -> Option<usize> {
        let victim = self.pick()?;
        self.taken.insert(victim);
        Some(victim)
    }

    /// The same; when it need not be the leader, one with the program of an earlier version if there is one.
    fn take_to_restart(&mut self) -> Option<usize> {
        let mut old = self.free();
        old.retain(|node| self.cluster.is_previous(*node));
        if self.at_leader || old.is_empty() {
            return self.take();
        }
        let victim = self.random.choice(old)?;
        self.taken.insert(victim);
        Some(victim)
    }

    fn free(&self) -> Vec<usize> {
        (0..self.nodes()).filter(|node| !self.taken.contains(node)).collect()
    }

    /// Waits a little until a node has stopped by itself; whether it has.
    async fn has_stopped(&mut self, node: usize) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < STOPS_WITHIN {
            if self.cluster.ended(node).is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// Looks for nodes that no fault has in its hands and that have ended, which no node may: each is told, with
    /// how it ended, and started again.
    pub(crate) fn restart_ended(&mut self) -> Result<Vec<(usize, String)>> {
        let mut all = std::mem::take(&mut self.wrong);
        for node in (0..self.nodes()).filter(|node| !self.taken.contains(node)) {
            if let Some(status) = self.cluster.ended(node) {
                all.push((node, format!("it ended by itself: {status}")));
                self.cluster.kill(node)?;
                self.cluster.run(node)?;
            }
        }
        Ok(all)
    }

    /// Takes note of what a node may not do, whatever befalls it.
    fn complain(&mut self, node: usize, what: String) {
        self.wrong.push((node, what));
    }

    fn give_back(&mut self, node: usize) {
        self.taken.remove(&node);
    }
}
