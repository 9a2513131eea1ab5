//! Rows 8 and 13: what a node takes when there are VMs and nobody asks for anything, and how soon it serves again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{
    book::{Aim, Book},
    field::Field,
    ours::NODES,
    row::writes::Put,
};

/// What is left of a load may take so long to settle.
const SETTLE: Duration = Duration::from_secs(5);

/// No attempt to read takes longer.
const EACH: Duration = Duration::from_millis(50);
/// No start takes longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Measures the rows.
pub(crate) async fn measure(field: &mut Field, book: &mut Book) -> Result<()> {
    let case = format!("{} VMs or values", field.extent.vms);
    let mut put = Put::new(field.channels(1).await?.remove(0));
    for value in 0..field.extent.vms {
        put.put(format!("vm-{value}")).await?;
    }
    tokio::time::sleep(SETTLE.min(field.extent.idle)).await;
    let (ours, etcd) = (field.ours.pids()?, field.etcd.pids());
    let (before, etcd_before) = (Used::of(&ours)?, Used::of(&etcd)?);
    let revision = field.ours.revision().await?;
    let begun = Instant::now();
    tokio::time::sleep(field.extent.idle).await;
    let seconds = begun.elapsed().as_secs_f64();
    let entries = (field.ours.revision().await? - revision) as f64 / seconds;
    let (after, etcd_after) = (Used::of(&ours)?, Used::of(&etcd)?);
    let percent = |before: &[Used], after: &[Used]| -> Vec<f64> {
        let each = before.iter().zip(after);
        each.map(|(before, after)| (after.cpu_s - before.cpu_s) / seconds * 100.0).collect()
    };
    let kib = |before: &[Used], after: &[Used]| -> Vec<f64> {
        let each = before.iter().zip(after);
        each.map(|(before, after)| (after.written - before.written) as f64 / 1024.0 / seconds)
            .collect()
    };
    let cpu = (highest(percent(&before, &after)), highest(percent(&etcd_before, &etcd_after)));
    book.beside(13, &case, "% of a core, the busiest node", cpu, "etcd", Aim::AtMost(2.0));
    book.alone(13, &case, "log entries per s", vec![entries], Aim::AtMost(5.0));
    let written = (highest(kib(&before, &after)), highest(kib(&etcd_before, &etcd_after)));
    book.beside(13, &case, "KiB per s to the disk, the busiest node", written, "etcd", Aim::Told);
    let memory = |used: &[Used]| highest(used.iter().map(|used| used.memory_mib).collect());
    let memory = (memory(&after), memory(&etcd_after));
    book.beside(8, &case, "MiB of memory, the largest node", memory, "etcd", Aim::AtMost(256.0));
    restart(field, book, &case).await
}

/// The highest of all nodes: what a bound holds for one it holds for each.
fn highest(figures: Vec<f64>) -> Vec<f64> {
    figures.into_iter().max_by(f64::total_cmp).into_iter().collect()
}

/// Kills a node that follows and starts it again.
async fn restart(field: &mut Field, book: &mut Book, case: &str) -> Result<()> {
    let mut took = Vec::new();
    for _ in 0..field.extent.rounds {
        let cluster = &mut field.ours.cluster;
        let leader = cluster.leader().await?.context("there is no leader")?;
        let follower = (leader + 1) % NODES;
        cluster.kill(follower)?;
        let begun = Instant::now();
        cluster.run(follower)?;
        let endpoint = vec![cluster.access.endpoints[follower].clone()];
        // A client waits longer each time that it is not answered; a fresh one does not.
        while lab::status(&cluster.client_with(endpoint.clone(), EACH)?).await.is_err() {
            ensure!(begun.elapsed() < LONGEST, "it is not ready after {LONGEST:?}");
        }
        took.push(begun.elapsed().as_secs_f64());
    }
    book.alone(8, case, "s from a start to an answered read", took, Aim::AtMost(1.0));
    Ok(())
}

/// What a process has used so far.
struct Used {
    cpu_s: f64,
    written: u64,
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
        let written = field(&read("io")?, "write_bytes:").context("no write_bytes")?;
        let memory_kib = field(&read("status")?, "VmRSS:").context("no VmRSS")?;
        Ok(Used { cpu_s, written, memory_mib: memory_kib as f64 / 1024.0 })
    }
}
