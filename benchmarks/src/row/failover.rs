//! Row 10: from the moment a leader is killed to the next acknowledged change.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{
    book::{Aim, Book},
    field::Field,
    load::Asker,
    ours::{NODES, Ours},
    row::writes::{Lock, Maker, Put},
};

/// Between two attempts.
const EACH: Duration = Duration::from_millis(20);
/// No attempt is waited for longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Nothing takes longer.
const LONGEST: Duration = Duration::from_secs(90);

/// Measures the row.
pub(crate) async fn measure(field: &mut Field, book: &mut Book) -> Result<()> {
    let (mut ours, mut etcd) = (Vec::new(), Vec::new());
    for kill in 0..field.extent.kills {
        ours.push(kill_ours(field, kill).await?);
        etcd.push(kill_etcd(field).await?);
    }
    let p95 = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() * 95).div_ceil(100) - 1]
    };
    let (our_p95, etcd_p95) = (p95(&ours), p95(&etcd));
    let case = format!("{} leaders killed", field.extent.kills);
    book.beside(10, &case, "s", (ours, etcd), "etcd", Aim::Told);
    book.beside(10, &case, "s, p95", (vec![our_p95], vec![etcd_p95]), "etcd", Aim::AtMost(1.0));
    Ok(())
}

async fn kill_ours(field: &mut Field, kill: usize) -> Result<f64> {
    field.etcd.pause()?;
    let took = kill_leader(&mut field.ours, kill).await?;
    field.etcd.resume(field.extent.settle).await?;
    Ok(took)
}

/// Kills the node that leads, and starts it again once others have gone on. The answer is how long that took them,
/// seconds.
pub(crate) async fn kill_leader(ours: &mut Ours, kill: usize) -> Result<f64> {
    let (nodes, cluster) = (ours.nodes, &mut ours.cluster);
    let leader = cluster.leader().await?.context("there is no leader")?;
    let mut doors: Vec<Door> = Vec::new();
    for node in (0..nodes).filter(|node| *node != leader) {
        let client = cluster.client_with(vec![cluster.access.endpoints[node].clone()], PATIENCE)?;
        // What is connected and known beforehand takes no time afterwards.
        Lock::named(Maker::calls(client.clone()), &format!("failover-{kill}-{node}")).ask().await?;
        // A lock of its own for each attempt: an earlier one may have been granted, unheard.
        doors.push(Box::new(move |attempt| {
            let name = format!("failover-{kill}-{node}-{attempt}");
            Box::new(Lock::named(Maker::calls(client.clone()), &name))
        }));
    }
    let begun = Instant::now();
    cluster.kill(leader)?;
    let took = until_answered(&doors, begun).await?;
    cluster.run(leader)?;
    cluster.await_ready(leader).await?;
    Ok(took)
}

async fn kill_etcd(field: &mut Field) -> Result<f64> {
    field.ours.pause()?;
    let etcd = &mut field.etcd;
    let leader = etcd.leader().await?;
    let mut doors: Vec<Door> = Vec::new();
    for member in (0..NODES).filter(|member| *member != leader) {
        let channel = etcd.channel(member)?;
        Put::new(channel.clone()).ask().await?;
        doors.push(Box::new(move |_| Box::new(Put::new(channel.clone()))));
    }
    let begun = Instant::now();
    etcd.kill(leader)?;
    let took = until_answered(&doors, begun).await?;
    etcd.run(leader)?;
    etcd.await_ready().await?;
    field.ours.resume(field.extent.settle).await?;
    Ok(took)
}

/// Who makes an attempt at one survivor, by its number.
type Door = Box<dyn Fn(usize) -> Box<dyn Asker>>;

/// Makes attempts at all survivors, without waiting for those before: one that was made too early may never be
/// answered. The answer is how long after `begun` the first was, seconds.
async fn until_answered(doors: &[Door], begun: Instant) -> Result<f64> {
    let mut attempts = tokio::task::JoinSet::new();
    let mut next = tokio::time::interval(EACH);
    let mut count = 0;
    loop {
        tokio::select! {
            _ = next.tick() => {
                ensure!(begun.elapsed() < LONGEST, "no answer in {LONGEST:?}");
                for door in doors {
                    let mut asker = door(count);
                    attempts.spawn(tokio::time::timeout(PATIENCE, async move { asker.ask().await }));
                }
                count += 1;
            }
            Some(Ok(Ok(Ok(())))) = attempts.join_next() => return Ok(begun.elapsed().as_secs_f64()),
        }
    }
}
