//! Row 10: from the moment a leader is killed to the next acknowledged change.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{
    book::{Aim, Book},
    field::Field,
    load::Asker,
    ours::NODES,
    row::writes::{Lock, Put},
};

/// Between two attempts.
const EACH: Duration = Duration::from_millis(10);
/// No attempt is waited for longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Nothing takes longer.
const LONGEST: Duration = Duration::from_secs(30);
/// For the cluster to be whole and quiet again.
const REST: Duration = Duration::from_secs(2);

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
    let cluster = &mut field.ours.cluster;
    let leader = cluster.leader().await?.context("there is no leader")?;
    let mut askers: Vec<Box<dyn Asker>> = Vec::new();
    for node in (0..NODES).filter(|node| *node != leader) {
        let client = cluster.client_with(vec![cluster.access.endpoints[node].clone()], PATIENCE)?;
        let mut lock = Lock::named(client, &format!("failover-{kill}-{node}"));
        // What is connected and known beforehand takes no time afterwards.
        lock.ask().await?;
        askers.push(Box::new(lock));
    }
    cluster.kill(leader)?;
    let took = until_answered(askers, Instant::now()).await?;
    cluster.run(leader)?;
    cluster.await_ready(leader).await?;
    tokio::time::sleep(REST).await;
    Ok(took)
}

async fn kill_etcd(field: &mut Field) -> Result<f64> {
    let etcd = &mut field.etcd;
    let leader = etcd.leader().await?;
    let mut askers: Vec<Box<dyn Asker>> = Vec::new();
    for member in (0..NODES).filter(|member| *member != leader) {
        let mut put = Put::new(etcd.channel(member)?);
        put.ask().await?;
        askers.push(Box::new(put));
    }
    etcd.kill(leader)?;
    let took = until_answered(askers, Instant::now()).await?;
    etcd.run(leader)?;
    etcd.await_ready().await?;
    tokio::time::sleep(REST).await;
    Ok(took)
}

/// Asks all of them, again and again, until one is answered. The answer is how long after `begun`, seconds.
async fn until_answered(askers: Vec<Box<dyn Asker>>, begun: Instant) -> Result<f64> {
    let mut all = tokio::task::JoinSet::new();
    for mut asker in askers {
        all.spawn(async move {
            loop {
                if let Ok(Ok(())) = tokio::time::timeout(PATIENCE, asker.ask()).await {
                    return;
                }
                tokio::time::sleep(EACH).await;
            }
        });
    }
    let first = tokio::time::timeout(LONGEST, all.join_next()).await;
    first.context("no answer in time")?.context("nobody asks")??;
    Ok(begun.elapsed().as_secs_f64())
}
