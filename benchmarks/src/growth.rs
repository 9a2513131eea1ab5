//! How it grows: with nodes, with VMs, and over links that are late. Nothing stands beside these figures: each curve is
//! to be compared with its own beginning.

use std::{path::Path, time::Duration};

use anyhow::Result;
use lab::{ClusterOptions, Hosts};

use crate::{
    book::{Aim, Book},
    load::{Asker, Askers, Lasting, Seen, drive},
    ours::{NODES, Ours},
    page::Layout,
    row::{
        failover::kill_leader,
        idle::{Idle, SETTLE, restarts},
        lists::{self, MAKERS, PATIENCE, make},
        reads::{GetLock, KEY},
        writes::{Label, Lock, Maker, create},
    },
};

/// How far it is followed.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    nodes: Vec<usize>,
    vms: Vec<usize>,
    /// How late packets between nodes may be.
    late: Vec<Duration>,
    /// How often each figure is taken.
    rounds: usize,
    /// How long each load lasts.
    lasting: Lasting,
    clients: usize,
    /// How long nothing is done.
    idle: Duration,
}

impl Extent {
    /// As the page has it.
    pub(crate) fn whole() -> Extent {
        let (warm_up, counted) = (Duration::from_secs(1), Duration::from_secs(4));
        Extent {
            nodes: vec![3, 5, 7],
            vms: vec![1_000, 10_000, 100_000],
            // What is late by a time up to so much is late by half of it on average.
            late: [0, 20, 100].map(Duration::from_millis).to_vec(),
            rounds: 3,
            lasting: Lasting { warm_up, counted },
            clients: 64,
            idle: Duration::from_secs(30),
        }
    }

    /// Only to see that it works.
    pub(crate) fn short() -> Extent {
        let (warm_up, counted) = (Duration::from_millis(200), Duration::from_millis(500));
        Extent {
            nodes: vec![3],
            vms: vec![20, 50],
            late: [0, 20].map(Duration::from_millis).to_vec(),
            rounds: 1,
            lasting: Lasting { warm_up, counted },
            clients: 2,
            idle: Duration::from_millis(500),
        }
    }
}

const WITH_NODES: u8 = 1;
const WITH_VMS: u8 = 2;
const OVER_LATE_LINKS: u8 = 3;

/// How the page is laid out.
pub(crate) const PAGE: Layout = Layout {
    head: "\
# Growth

`make bench-growth` writes this page and `growth.json`: how a cluster does as it grows. All nodes run on one machine beside the
clients that load them, so more nodes share the same processors. Where a figure was taken in rounds it is their median, with the
lowest and the highest.

",
    rows: &[
        (WITH_NODES, "With nodes"),
        (WITH_VMS, "With VMs, on three nodes"),
        (OVER_LATE_LINKS, "Over links on which packets are late, on three nodes"),
    ],
    limits: &[],
    has_peers: false,
};

/// Measures all of it.
pub(crate) async fn measure(extent: &Extent, programs: &Path, book: &mut Book) -> Result<()> {
    for nodes in &extent.nodes {
        with_nodes(*nodes, extent, programs, book).await?;
    }
    with_vms(extent, programs, book).await?;
    over_late_links(extent, programs, book).await
}

async fn with_nodes(nodes: usize, extent: &Extent, programs: &Path, book: &mut Book) -> Result<()> {
    let options = ClusterOptions {
        // All of them vote.
        settings: vec![("voters-max", nodes as u64)],
        ..Ours::options(nodes, Hosts::Simulated, programs.to_owned())
    };
    let mut ours = Ours::of(options).await?;
    let case = |what: &str| format!("{nodes} nodes, {what}, {} clients", extent.clients);
    let locks = async |round| locks(&ours, "nodes", extent.clients, round).await;
    let seen = load(extent, locks).await?;
    note(book, WITH_NODES, &case("locks"), &seen);
    let maker = Maker::calls(ours.clients(1).await?.remove(0));
    Lock::named(maker, KEY).ask().await?;
    let reads = async |_| {
        let clients = ours.many_clients(extent.clients).await?.into_iter();
        Ok(clients.map(|client| Box::new(GetLock::new(client, false)) as _).collect())
    };
    let seen = load(extent, reads).await?;
    note(book, WITH_NODES, &case("linearizable reads"), &seen);
    let mut took = Vec::new();
    for kill in 0..extent.rounds {
        took.push(kill_leader(&mut ours, kill).await?);
    }
    let case = format!("{nodes} nodes, a leader is killed");
    book.alone(WITH_NODES, &case, "s to the next change", took, Aim::Told);
    Ok(())
}

async fn with_vms(extent: &Extent, programs: &Path, book: &mut Book) -> Result<()> {
    let options = Ours::options(NODES, Hosts::Simulated, programs.to_owned());
    let mut ours = Ours::of(options).await?;
    // Those whose labels change are among them.
    let label = |number: usize| format!("label-{number}");
    for (number, client) in ours.many_clients(extent.clients).await?.into_iter().enumerate() {
        create(&Maker::calls(client), &label(number), true).await?;
    }
    let mut made = 0;
    for vms in extent.vms.iter().copied() {
        let listed = vms - extent.clients;
        make(&ours.many_clients(MAKERS).await?, made..listed, true).await?;
        made = listed;
        ours.settled(PATIENCE).await?;
        let labels = async |_| {
            let makers = ours.many_clients(extent.clients).await?.into_iter().map(Maker::calls);
            let asker = |(number, maker)| Box::new(Label::of(maker, label(number))) as _;
            Ok(makers.enumerate().map(asker).collect())
        };
        let seen = load(extent, labels).await?;
        note(book, WITH_VMS, &format!("{vms} VMs, labels, {} clients", extent.clients), &seen);
        let case = format!("{vms} VMs");
        let (p95, whole) = lists::times(&ours, listed, extent.rounds).await?;
        book.alone(WITH_VMS, &case, "ms, p95 of the first page", vec![p95], Aim::Told);
        book.alone(WITH_VMS, &case, "ms for the whole list", whole, Aim::Told);
        tokio::time::sleep(SETTLE.min(extent.idle * 3)).await;
        let idle = Idle::watch(&ours.pids()?, extent.idle).await?;
        let (cpu, memory) = (idle.busiest_percent(), idle.memory_mib());
        book.alone(WITH_VMS, &case, "% of a core, nothing is asked", cpu, Aim::Told);
        book.alone(WITH_VMS, &case, "MiB of memory, the largest node", memory, Aim::Told);
        let took = restarts(&mut ours, extent.rounds).await?;
        book.alone(WITH_VMS, &case, "s from a start to an answered read", took, Aim::Told);
    }
    Ok(())
}

async fn over_late_links(extent: &Extent, programs: &Path, book: &mut Book) -> Result<()> {
    if let Err(why) = lab::bridges_are_possible().and_then(|()| lab::late_packets_are_possible()) {
        println!("SKIPPED: links that are late: {why}");
        return Ok(());
    }
    let options = Ours::options(NODES, Hosts::Bridged, programs.to_owned());
    let ours = Ours::of(options).await?;
    for most in &extent.late {
        let late = (0..NODES).filter(|_| !most.is_zero());
        let late = late.map(|node| ours.cluster.make_late(node, *most));
        let late = late.collect::<Result<Vec<_>>>()?;
        let before = term(&ours).await?;
        for clients in [1, extent.clients] {
            let most_ms = most.as_millis();
            let prefix = format!("late-{most_ms}");
            let locks = async |round| locks(&ours, &prefix, clients, round).await;
            let case = format!("up to {most_ms} ms late, locks, {clients} clients");
            note(book, OVER_LATE_LINKS, &case, &load(extent, locks).await?);
        }
        let elections = (term(&ours).await? - before) as f64;
        let case = format!("up to {} ms late", most.as_millis());
        book.alone(OVER_LATE_LINKS, &case, "terms meanwhile", vec![elections], Aim::Told);
        late.into_iter().try_for_each(|late| late.end().map(drop))?;
        ours.cluster.await_voters(NODES).await?;
    }
    Ok(())
}

async fn term(ours: &Ours) -> Result<u64> {
    Ok(lab::status(&ours.cluster.client()?).await?.term)
}

/// Clients that take locks of their own and give them back.
async fn locks(ours: &Ours, prefix: &str, clients: usize, round: usize) -> Result<Askers> {
    let makers = ours.many_clients(clients).await?.into_iter().map(Maker::calls);
    let lock =
        |(number, maker)| Lock::named(maker, &format!("{prefix}-{clients}-{round}-{number}"));
    Ok(makers.enumerate().map(|numbered| Box::new(lock(numbered)) as _).collect())
}

/// The same load, round by round.
async fn load(extent: &Extent, askers: impl AsyncFn(usize) -> Result<Askers>) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for round in 0..extent.rounds {
        seen.push(drive(askers(round).await?, extent.lasting).await?);
    }
    Ok(seen)
}

fn note(book: &mut Book, row: u8, case: &str, seen: &[Seen]) {
    let all = |figure: fn(&Seen) -> f64| seen.iter().map(figure).collect();
    book.alone(row, case, "per s", all(|seen| seen.per_s), Aim::Told);
    book.alone(row, case, "ms, p50", all(|seen| seen.p50_ms), Aim::Told);
    book.alone(row, case, "ms, p99", all(|seen| seen.p99_ms), Aim::Told);
}
