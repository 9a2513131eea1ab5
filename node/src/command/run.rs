//! `novacron run`: a node in the foreground, until it is told to stop.

use anyhow::Result;
use novacron::{
    config::Config,
    daemon::{Daemon, DaemonOptions},
    files::Files,
    hosts, logs,
};
use raft_store::WalOptions;

use super::ConfigFile;

pub(super) async fn run(file: &ConfigFile) -> Result<()> {
    let config = Config::read(&file.config)?;
    logs::start(&config.log);
    let data = config.node.data_directory.clone();
    let files = Files::load(&data)?;
    logs::of_node(files.node.name.as_str());
    if let Some(traces) = &config.traces {
        let told = traces.told_by(files.node.name.as_str());
        told.and_then(telemetry::trace::start)
            .map_err(|why| anyhow::anyhow!("cannot tell traces: {why}"))?;
    }
    let options = DaemonOptions {
        peer_listen: config.peer_listen(),
        peer_address: config.node.peer_address.get_ref().clone(),
        api_listen: config.api_listen(),
        api_address: config.node.api_address.get_ref().clone(),
        timing: config.timing(),
        wal: wal(),
        hosts: hosts::local_hosts(&data, &config.host)?,
        agents: config.agents(),
        receivers: config.receivers().map_err(anyhow::Error::msg)?,
        api: config.api,
        directory: data,
    };
    actors::planted::watch();
    let daemon = Daemon::start(options, files).await?;
    let node = daemon.store.node();
    tracing::info!(node_id = node, "the node runs");
    let mut removed = daemon.store.removed();
    let end = tokio::select! {
        signal = stop_signal() => signal.map(|name| tracing::info!(signal = name, "stopping")),
        _ = removed.wait_for(|removed| *removed) => Err(anyhow::anyhow!(
            "this node was removed from the cluster; run `novacron node reset` and join again"
        )),
        why = daemon.store.stopped() => Err(anyhow::anyhow!("the store has stopped: {why}")),
    };
    daemon.stop().await;
    // What waits still goes to the collector.
    let _ = tokio::task::spawn_blocking(telemetry::trace::stop).await;
    end
}

/// The log's files.
fn wal() -> WalOptions {
    // A release has no such policy.
    #[cfg(debug_assertions)]
    if raft_store::is_broken("never-sync") {
        return WalOptions { sync: raft_store::SyncPolicy::NeverForTests, ..WalOptions::default() };
    }
    WalOptions::default()
}

/// Waits until the process is told to stop; the answer is by which signal.
pub(super) async fn stop_signal() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    })
}
