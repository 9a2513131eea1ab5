//! What clients do to a cluster while it is struck, and note in the history.

pub(crate) mod backups;
pub(crate) mod lists;
pub(crate) mod lives;
pub(crate) mod locks;
pub(crate) mod queue;
pub(crate) mod registers;
pub(crate) mod watches;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use client::{Changes, Client, v1};
use lab::Cluster;

use crate::history::History;

/// What real guests boot from.
pub(crate) const GUEST: &str = "idle";
/// The label that tells hosts apart.
const KIND: &str = "kind";

/// What hosts are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HostKind {
    /// Simulated: `h1`, `h2` ….
    Simulated,
    /// Hypervisors: `r1`, `r2` ….
    Real,
}

impl HostKind {
    fn name(self) -> &'static str {
        match self {
            HostKind::Simulated => "simulated",
            HostKind::Real => "real",
        }
    }

    /// A VM is to be on one of these.
    pub(crate) fn only(self) -> v1::PlacementRules {
        let host_labels = [(KIND.to_owned(), self.name().to_owned())].into();
        v1::PlacementRules { host_labels, ..Default::default() }
    }

    /// Tells all hosts of a cluster apart, once each is known.
    pub(crate) async fn label(cluster: &Cluster, nodes: usize) -> Result<()> {
        let begun = Instant::now();
        for (letter, kind) in [('h', HostKind::Simulated), ('r', HostKind::Real)] {
            for number in 1..=nodes {
                let (host, label) =
                    (format!("{letter}{number}"), format!("{KIND}={}", kind.name()));
                while let Err(why) = cluster.novacron(0, &["host", "label", &host, &label]) {
                    ensure!(begun.elapsed() < PATIENT, "{why:#}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
        Ok(())
    }
}

/// Longest time that a client of one node waits for an answer.
const ONE_NODE: Duration = Duration::from_secs(3);
/// The same for one that goes on to the next node.
const ANY_NODE: Duration = Duration::from_secs(15);
/// For what must be done.
const PATIENT: Duration = Duration::from_secs(30);

/// What workloads work on.
#[derive(Clone)]
pub(crate) struct Load {
    pub history: Arc<History>,
    nodes: Arc<Vec<Client>>,
    roaming: Arc<Vec<Client>>,
    /// Streams on which many make changes, each with who opened it.
    streams: Arc<Vec<(Client, Changes)>>,
    pub patient: Client,
    stopped: Arc<AtomicBool>,
}

impl Load {
    pub(crate) fn new(cluster: &Cluster, history: Arc<History>) -> Result<Load> {
        let endpoints = &cluster.access.endpoints;
        let turned = |by: usize| {
            let mut endpoints = endpoints.clone();
            endpoints.rotate_left(by);
            endpoints
        };
        let all = 0..endpoints.len();
        let one =
            all.clone().map(|node| cluster.client_with(vec![endpoints[node].clone()], ONE_NODE));
        let any = all.map(|node| cluster.client_with(turned(node), ANY_NODE));
        let roaming: Vec<Client> = any.collect::<Result<_>>()?;
        let streams = roaming.iter().map(|client| (client.clone(), client.changes()));
        Ok(Load {
            history,
            nodes: Arc::new(one.collect::<Result<_>>()?),
            streams: Arc::new(streams.collect()),
            roaming: Arc::new(roaming),
            patient: cluster.client_with(endpoints.clone(), PATIENT)?,
            stopped: Arc::default(),
        })
    }

    /// A client of one node alone.
    pub(crate) fn node(&self, node: usize) -> &Client {
        &self.nodes[node]
    }

    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// A client to ask with, of one node or of all.
    pub(crate) fn to_read(&self, random: &mut fastrand::Rng) -> &Client {
        self.any(random, 30)
    }

    /// A client to change something with. Most know all nodes: of what only one node was asked, and did not
    /// answer, nobody knows what became.
    pub(crate) fn to_change(&self, random: &mut fastrand::Rng) -> &Client {
        self.any(random, 8)
    }

    /// A way to change a VM: half of them go over a stream that others use too.
    pub(crate) fn way(&self, random: &mut fastrand::Rng) -> Way<'_> {
        if random.bool() {
            return Way::Call(self.to_change(random));
        }
        let (client, changes) = &self.streams[random.usize(..self.streams.len())];
        Way::Stream(client, changes)
    }

    fn any(&self, random: &mut fastrand::Rng, one_node_percent: u8) -> &Client {
        let of_one = random.u8(..100) < one_node_percent;
        let from = if of_one { &self.nodes } else { &self.roaming };
        &from[random.usize(..from.len())]
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// How a change gets to the cluster.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    /// By a call of its own.
    Call(&'a Client),
    /// With others over a stream of a client's.
    Stream(&'a Client, &'a Changes),
}

impl<'a> Way<'a> {
    pub(crate) fn client(self) -> &'a Client {
        match self {
            Way::Call(client) | Way::Stream(client, _) => client,
        }
    }
}

/// A moment of thought.
pub(crate) async fn think(random: &mut fastrand::Rng, ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.u64(ms))).await;
}
