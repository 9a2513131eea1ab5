//! Rows 8 and 13: what a node takes when there are VMs and nobody asks for anything, and how soon it serves again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{
    book::{Aim, Book},
    field::{Extent, Field},
    ours::{NODES, Ours},
    row::writes::Put,
};

/// What is left of a load may take so long to settle: the copy in sled waits a minute for more.
pub(crate) const SETTLE: Duration = Duration::from_secs(90);

/// No attempt to read takes longer.
const EACH: Duration = Duration::from_millis(50);
/// No start takes longer.
const LONGEST: Duration = Duration::from_secs(90);

/// Measures the rows.
pub(crate) async fn measure(field: &mut Field, book: &mut Book) -> Result<()> {
    let case = format!("{} VMs or values", field.extent.vms);
    let mut put = Put::new(field.channels(1).await?.remove(0));
    for value in 0..field.extent.vms {
        put.put(format!("vm-{value}")).await?;
    }
    tokio::time::sleep(SETTLE.min(field.extent.idle * 2)).await;
    let pids = field.ours.pids()?;
    field.etcd.pause()?;
    let revision = field.ours.revision().await?;
    let ours = Idle::watch(&pids, field.extent.idle).await?;
    let entries = field.ours.revision().await? - revision;
    field.etcd.resume(field.extent.settle).await?;
    field.ours.pause()?;
    let etcd = Idle::watch(&field.etcd.pids(), field.extent.idle).await?;
    field.ours.resume(field.extent.settle).await?;
    let cpu = (ours.busiest_percent(), etcd.busiest_percent());
    book.beside(13, &case, "% of a core, the busiest node", cpu, "etcd", Aim::AtMost(2.0));
    let entries = vec![entries as f64 / ours.seconds];
    book.alone(13, &case, "log entries per s", entries, Aim::AtMost(5.0));
    let written = |idle: &Idle| idle.written_kib.map(|kib| kib / idle.seconds / NODES as f64);
    let written = (written(&ours).into_iter().collect(), written(&etcd).into_iter().collect());
    book.beside(13, &case, "KiB per s to the disk, a node", written, "etcd", Aim::Told);
    let memory = (ours.memory_mib(), etcd.memory_mib());
    book.beside(8, &case, "MiB of memory, the largest node", memory, "etcd", Aim::AtMost(256.0));
    restart(field, book, &case).await
}

/// The same of VMs that run, each measured every ten seconds by its host's node.
pub(crate) async fn measure_running(ours: &Ours, extent: &Extent, book: &mut Book) -> Result<()> {
    let case = format!("{} VMs that run and are measured", extent.vms);
    tokio::time::sleep(SETTLE.min(extent.idle * 2)).await;
    let revision = ours.revision().await?;
    let idle = Idle::watch(&ours.pids()?, extent.idle).await?;
    let entries = ours.revision().await? - revision;
    let cpu = idle.busiest_percent();
    book.alone(13, &case, "% of a core, the busiest node", cpu, Aim::Told);
    let entries = vec![entries as f64 / idle.seconds];
    book.alone(13, &case, "log entries per s", entries, Aim::Told);
    let written = idle.written_kib.map(|kib| kib / idle.seconds / NODES as f64);
    let written = written.into_iter().collect();
    book.alone(13, &case, "KiB per s to the disk, a node", written, Aim::Told);
    let memory = idle.memory_mib();
    book.alone(8, &case, "MiB of memory, the largest node", memory, Aim::Told);
    Ok(())
}

/// The highest of all nodes: what a bound holds for one it holds for each.
fn highest(figures: Vec<f64>) -> Vec<f64> {
    figures.into_iter().max_by(f64::total_cmp).into_iter().collect()
}

/// Kills a node that follows and starts it again.
async fn restart(field: &mut Field, book: &mut Book, case: &str) -> Result<()> {
    let took = restarts(&mut field.ours, field.extent.rounds).await?;
    book.alone(8, case, "s from a start to an answered read", took, Aim::AtMost(1.0));
    Ok(())
}

/// How long it takes each time until a node that follows, and was killed, answers a read, seconds.
pub(crate) async fn restarts(ours: &mut Ours, rounds: usize) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for _ in 0..rounds {
        let (nodes, cluster) = (ours.nodes, &mut ours.cluster);
        let leader = cluster.leader().await?.context("there is no leader")?;
        let follower = (leader + 1) % nodes;
        cluster.kill(follower)?;
        let begun = Instant::now();
        cluster.run(follower)?;
        let endpoint = vec![cluster.access.endpoints[follower].clone()];
        // A client waits longer each time that it is not answered; a fresh one does not. One that is never answered in
        // time is on a slow machine.
        let patience = || EACH + begun.elapsed() / 20;
        while lab::status(&cluster.client_with(endpoint.clone(), patience())?).await.is_err() {
            ensure!(begun.elapsed() < LONGEST, "it is not ready after {LONGEST:?}");
        }
        took.push(begun.elapsed().as_secs_f64());
    }
    Ok(took)
}

/// What nodes use while nobody asks for anything.
pub(crate) struct Idle {
    before: Vec<Used>,
    after: Vec<Used>,
    /// What the disk was given meanwhile, whoever gave it; absent where nobody counts.
    written_kib: Option<f64>,
    seconds: f64,
}

impl Idle {
    pub(crate) async fn watch(pids: &[u32], lasting: Duration) -> Result<Idle> {
        let (before, kib, begun) = (Used::of(pids)?, disk_kib(), Instant::now());
        tokio::time::sleep(lasting).await;
        let written_kib = disk_kib().zip(kib).map(|(after, before)| after - before);
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Idle { before, after: Used::of(pids)?, written_kib, seconds })
    }

    /// The memory that the node with the most has, MiB.
    pub(crate) fn memory_mib(&self) -> Vec<f64> {
        highest(self.after.iter().map(|used| used.memory_mib).collect())
    }

    /// What the busiest node used, percent of a processor.
    pub(crate) fn busiest_percent(&self) -> Vec<f64> {
        highest(self.cpu_percent())
    }

    fn cpu_percent(&self) -> Vec<f64> {
        let each = self.before.iter().zip(&self.after);
        each.map(|(before, after)| (after.cpu_s - before.cpu_s) / self.seconds * 100.0).collect()
    }
}

/// What the disk below /tmp has been given since the machine began. What the kernel counts for a process may be a
/// thousand times as much: a page of a large folio counts as the whole of it.
fn disk_kib() -> Option<f64> {
    const SECTORS_PER_KIB: f64 = 2.0;
    let device = rustix::fs::stat("/tmp").ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    Some(stat.split_whitespace().nth(6)?.parse::<f64>().ok()? / SECTORS_PER_KIB)
}

/// What a process has used so far.
struct Used {
    cpu_s: f64,
    memory_mib: f64,
}

impl Used {
    fn of(pids: &[u32]) -> Result<Vec<Used>> {
        pids.iter().map(|pid| Used::of_one(*pid)).collect()
    }

    fn of_one(pid: u32) -> Result<Used> {
        /// The kernel's unit of these figures, as it tells them to everybody.
        const TICKS_PER_S: f64 = 100.0;
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        let stat = read("stat")?;
        let after_name = stat.rsplit_once(')').context("a stat without a name")?.1;
        let ticks: Vec<f64> = after_name.split_whitespace().flat_map(str::parse).collect();
        // The state is no number; user and system time are the 14th and the 15th field.
        let cpu_s = (ticks[10] + ticks[11]) / TICKS_PER_S;
        let field = |text: &str, name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let memory_kib = field(&read("status")?, "VmRSS:").context("no VmRSS")?;
        Ok(Used { cpu_s, memory_mib: memory_kib as f64 / 1024.0 })
    }
}
