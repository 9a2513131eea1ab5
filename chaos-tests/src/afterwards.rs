//! What is looked at when everything is mended.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use client::{
    Client,
    v1::{self, settings_client::SettingsClient},
};
use domain::{cluster::PROTOCOL_VERSION, setting::Key};
use lab::{HostRecords, PLANTED};
use serde_json::Value;

use crate::{
    checker::{Violation, bodies, bodies::Body},
    fault::{Site, spare},
    history::History,
    users::Users,
    workload::{backups, queue},
};

pub(crate) const AFTERWARDS: &str = "afterwards";

/// How many nodes vote.
pub(crate) const VOTERS: &str = "voters-max";

/// So many of a cluster of so many nodes as there may be: the node that comes and goes too.
pub(crate) fn votes_max(nodes: usize) -> u64 {
    (nodes as u64 + 1).min(Key::VotersMax.definition().max)
}

/// How long everything may take to be well again.
const HEALING: Duration = Duration::from_secs(90);

/// What was found to be wrong.
#[derive(Default)]
pub(crate) struct Afterwards {
    pub violations: Vec<Violation>,
}

impl Afterwards {
    pub(crate) fn complain(&mut self, key: &str, what: String) {
        self.violations.push(Violation { model: AFTERWARDS, key: key.to_owned(), what });
    }

    /// Waits until every node is well, and looks whether all hold the same: fresh writes are done, every watcher
    /// has come to them, and every node answers what was written.
    pub(crate) async fn heal(&mut self, site: &mut Site, users: &mut Users) {
        if let Err(error) = self.try_heal(site, users).await {
            self.complain("cluster", format!("{error:#}"));
        }
    }

    async fn try_heal(&mut self, site: &mut Site, users: &mut Users) -> Result<()> {
        let Users { load, registers, lives, watchers, .. } = users;
        for node in 0..site.nodes() {
            site.cluster.await_ready(node).await?;
        }
        ensure!(spare::leave(site, &load.patient).await?, "the node that comes and goes stays");
        set_setting(&load.patient, VOTERS, votes_max(site.nodes()))
            .await
            .context("a fresh setting")?;
        self.upgrade(site).await?;
        site.cluster.await_voters(site.nodes()).await?;
        let last = registers.write_one(load).await.context("a fresh write")?;
        let watchers = watchers.take().context("there are watchers until then")?;
        for behind in watchers.end(last).await {
            self.complain("watch", behind);
        }
        for node in 0..site.nodes() {
            if let Err(silent) = registers.read_all(load, node).await {
                self.complain(&silent, format!("n{} did not answer", node + 1));
            }
        }
        queue::look(load).await.context("operations cannot be listed")?;
        if let Err(restless) = lives.look(load).await {
            self.complain("life", restless);
        }
        agree(site).await
    }

    /// Replaces what programs of an earlier version are left, and waits until the protocol is raised.
    async fn upgrade(&mut self, site: &mut Site) -> Result<()> {
        for node in 0..site.nodes() {
            if site.cluster.is_previous(node) {
                site.restart(node).await?;
                site.cluster.await_ready(node).await?;
            }
        }
        let begun = Instant::now();
        loop {
            let views = site.views().await;
            let versions: Vec<_> =
                views.iter().map(|view| view.as_ref().map(|view| view.protocol_version)).collect();
            if versions.iter().all(|version| *version == Some(PROTOCOL_VERSION)) {
                return Ok(());
            }
            ensure!(begun.elapsed() < HEALING, "these protocols are in force: {versions:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Has no log a panic?
    pub(crate) fn read_logs(&mut self, site: &Site) {
        for node in 0..=site.cluster.spare().0 {
            let log = site.cluster.log(node);
            // The threads in which sled runs live with its panics: the copy of the state is made again.
            let panicked = |(line, next): &(&str, &str)| {
                let thread =
                    line.strip_prefix("thread '").filter(|rest| rest.contains("panicked at"));
                thread.is_some_and(|thread| !thread.starts_with("state-copy'")) && *next != PLANTED
            };
            if let Some((line, next)) = log.lines().zip(log.lines().skip(1)).find(panicked) {
                self.complain(&format!("n{}", node + 1), format!("{line} {next}"));
            }
        }
    }

    /// Has a node begin again from the last backup, alone: all others are lost.
    pub(crate) async fn begin_again(&mut self, site: &mut Site, users: &Users) {
        let begun = async {
            let backup = users.backups.last().context("there is no backup")?;
            let client = site.cluster.begin_again(0, &backup).await?;
            backups::look(&users.load, &users.registers, &backup, &client).await;
            anyhow::Ok(())
        };
        if let Err(error) = begun.await {
            self.complain("backup", format!("{error:#}"));
        }
    }
}

/// Puts what hosts have written down into the history.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn note_bodies(hosts: &HostRecords, history: &std::sync::Arc<History>) -> Result<()> {
    let mut process = history.process(bodies::MODEL);
    for (vm, body) in hosts.read()?.into_iter().map(Body::of) {
        process.invoke("record", &vm, Value::Null).ok(serde_json::to_value(body)?);
    }
    Ok(())
}

/// Sets a setting of the cluster.
pub(crate) async fn set_setting(client: &Client, setting: &str, value: u64) -> Result<()> {
    let (setting, value) = (setting.to_owned(), Some(value));
    let request = v1::SetSettingRequest { mutation: client.mutation().await?, setting, value };
    let call = client.call(request, async |channel, request| {
        SettingsClient::new(channel).set_setting(request).await
    });
    Ok(call.await.map(drop)?)
}

/// Waits until all nodes were compared with each other, at whichever revisions two were seen: the same history
/// must be behind them.
async fn agree(site: &Site) -> Result<()> {
    let begun = Instant::now();
    let mut seen: BTreeMap<u64, BTreeMap<String, BTreeSet<usize>>> = BTreeMap::new();
    // Nodes that were compared with each other.
    let mut met: Vec<BTreeSet<usize>> = (0..site.nodes()).map(|node| [node].into()).collect();
    while met.len() > 1 {
        for (node, view) in site.views().await.into_iter().enumerate() {
            let Some(view) = view else { continue };
            let chains = seen.entry(view.revision).or_default();
            let nodes = chains.entry(view.chain).or_default();
            nodes.insert(node);
            let (mut one, others) =
                met.into_iter().partition::<Vec<_>, _>(|met| !met.is_disjoint(nodes));
            met = others;
            met.push(one.drain(..).flatten().collect());
            ensure!(
                chains.len() == 1,
                "at {} nodes hold different histories: {chains:?}",
                view.revision
            );
        }
        ensure!(begun.elapsed() < HEALING, "only these were seen at the same revisions: {met:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
