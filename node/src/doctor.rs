//! Looks a machine over, before it is a node and after, and says what to do about what it finds. It changes
//! nothing.

mod cluster;
mod disk;
mod hosts;
mod identity;
mod machine;
mod ports;

use std::path::Path;

use cli::{Finding, Verdict};
use client::Client;

use crate::config::Config;

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
    for host in &config.host {
        findings.extend(hosts::examine(&config, host));
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
