//! Looks a machine over, before it is a node and after, and says what to do about what it finds. It changes
//! nothing.

mod cluster;
mod disk;
mod hosts;
mod identity;
mod machine;
mod ports;

use std::{path::Path, time::Duration};

use cli::{Finding, Verdict};
use client::Client;

use crate::config::Config;

/// How long the hypervisors and guards of this machine are waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Everything that can be found out with this configuration. `client` reaches the cluster, if somebody has chosen
/// one; else why not.
pub async fn examine(file: &Path, client: Result<Client, String>) -> Vec<Finding> {
    let config = match Config::read(file) {
        Ok(config) => config,
        Err(error) => {
            return vec![Finding::bad(
                "config",
                format!("{error:#}"),
                "give another with --config FILE, or mend it; `novacron config check` tells all problems",
            )];
        }
    };
    let mut findings = vec![Finding::good("config", format!("{} is understood", file.display()))];
    let data = config.node.data_directory.clone();
    // It writes and syncs: for a while.
    let disk = tokio::task::spawn_blocking(move || disk::examine(&data)).await;
    findings.extend(disk.unwrap_or_default());
    findings.extend(machine::examine(&config));
    findings.extend(identity::examine(&config));
    findings.extend(ports::examine(&config).await);
    // Sockets of others are asked: they may take their time.
    let hosts = tokio::task::spawn_blocking(move || {
        let found = config.host.iter().flat_map(|host| hosts::examine(&config, host));
        found.collect::<Vec<_>>()
    });
    match tokio::time::timeout(PATIENCE, hosts).await {
        Ok(hosts) => findings.extend(hosts.unwrap_or_default()),
        Err(_) => findings.push(Finding::bad(
            "hosts",
            format!("a hypervisor or a guard took a connection and said nothing for {PATIENCE:?}"),
            "`systemctl status` of libvirtd and of the guards; one of them stands still",
        )),
    }
    match client {
        Ok(client) => findings.extend(cluster::examine(&client).await),
        Err(why) => findings.push(Finding::skipped(
            "cluster",
            why,
            "with --access FILE, or a context, the cluster is looked at too",
        )),
    }
    findings
}

/// Good, a warning above `warn`, bad above `bad`.
fn grade(value: f64, warn: f64, bad: f64) -> Verdict {
    if value > bad {
        Verdict::Bad
    } else if value > warn {
        Verdict::Warning
    } else {
        Verdict::Good
    }
}
