//! Row 6: many VMs that are wanted at once: how soon each has a host, for certain, and how soon all of them run. What
//! they cost then is told with row 13.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use client::{
    Client,
    v1::{self, hosts_client::HostsClient},
};

use crate::{
    book::{Aim, Book},
    field::Extent,
    ours::Ours,
    row::{
        idle,
        lists::{MAKERS, PATIENCE, list, make},
    },
};

/// Simulated hosts of each of the three nodes.
const HOSTS_EACH: usize = 34;
/// What Nomad placed when it was given a million containers on 5,000 real hosts, as its makers published.
const NOMAD_PER_S: f64 = 3_750.0;

/// Measures the row, on a cluster of its own.
pub(crate) async fn measure(extent: &Extent, programs: PathBuf, book: &mut Book) -> Result<()> {
    let ours = Ours::with_hosts(programs, HOSTS_EACH).await?;
    let client = ours.clients(1).await?.remove(0);
    let hosts = hosts(&client).await?;
    let case = format!("{} VMs on {} hosts", extent.vms, hosts.len());
    // Nothing is placed before all are wanted. Then hosts are opened one after the other, and what is placed is
    // made and started beside the placing.
    for host in &hosts {
        schedule(&client, host, false).await?;
    }
    make(&ours.clients(MAKERS).await?, 0..extent.vms, false).await?;
    let begun = Instant::now();
    for host in &hosts {
        schedule(&client, host, true).await?;
    }
    none(&client, "phase=pending").await?;
    let placed = extent.vms as f64 / begun.elapsed().as_secs_f64();
    none(&client, "phase!=running").await?;
    let run = begun.elapsed().as_secs_f64();
    book.alone(6, &case, "durable placements per s", vec![placed], Aim::AtLeast(NOMAD_PER_S));
    book.alone(6, &case, "s from a free host until all run", vec![run], Aim::Told);
    idle::measure_running(&ours, extent, book).await
}

async fn hosts(client: &Client) -> Result<Vec<String>> {
    let page = Some(v1::Page { page_size: 1_000, ..Default::default() });
    let request = v1::ListHostsRequest { page, ..Default::default() };
    let call = async |channel, request| HostsClient::new(channel).list_hosts(request).await;
    let listed = client.call(request, call).await?;
    Ok(listed.hosts.into_iter().map(|host| host.name).collect())
}

/// Lets VMs come to a host, or not.
async fn schedule(client: &Client, host: &str, open: bool) -> Result<()> {
    let request =
        v1::ScheduleHostRequest { mutation: client.mutation().await?, host: host.to_owned() };
    let call = async |channel, request| {
        let mut hosts = HostsClient::new(channel);
        if open { hosts.uncordon_host(request).await } else { hosts.cordon_host(request).await }
    };
    client.call(request, call).await?;
    Ok(())
}

/// Waits until no VM is of this kind.
async fn none(client: &Client, filter: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let page = v1::Page { page_size: 1, filter: filter.to_owned(), ..Default::default() };
        if list(client, page).await?.vms.is_empty() {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "there are VMs with {filter} after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
