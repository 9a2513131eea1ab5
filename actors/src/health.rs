//! Reports what a node knows of itself: decisions about full disks rest on the report, never on a
//! node's own look at its disk.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use domain::{
    cluster::PROTOCOL_VERSION,
    envelope::Command,
    node::{Health as Report, NodeCommand, OwnCondition},
};

use crate::{disk, root::StaffOptions, routine::Turn};

/// Between two reports when nothing has changed that decisions rest on.
const INTERVAL: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Health {
    told: Option<Instant>,
    /// The slowest sync since then.
    slowest_sync_ms: u32,
}

impl Turn for Health {
    const NAME: &str = "health";
    const PAUSE: Duration = Duration::from_secs(2);

    async fn take(&mut self, options: &StaffOptions) {
        let mut report = Report {
            condition: None,
            disk_used_percent: disk::used_percent(&options.directory),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_max: PROTOCOL_VERSION,
            peer_address: options.peer_address.clone(),
            api_address: options.api_address.clone(),
        };
        let view = options.store.view();
        let known = view.state.nodes.get(&options.store.node());
        let told = known.is_some_and(|node| {
            node.disk_used_percent == report.disk_used_percent
                && node.version == report.version
                && node.protocol_max == report.protocol_max
                && node.peer_address == report.peer_address
                && node.api_address == report.api_address
        });
        let is_due = self.told.is_none_or(|told| told.elapsed() >= INTERVAL);
        if known.is_some() && (!told || is_due) {
            self.slowest_sync_ms = self.slowest_sync_ms.max(options.store.slowest_sync_ms());
            report.condition = Some(OwnCondition {
                wall_ms: wall_ms(),
                slowest_sync_ms: self.slowest_sync_ms,
                certificate_until_wall_ms: (options.certificate_until_wall_ms)(),
            });
            let command = Command::Node(NodeCommand::Report(Box::new(report)));
            match options.store.propose_as_node(command).await {
                Ok(_) => *self = Health { told: Some(Instant::now()), slowest_sync_ms: 0 },
                Err(error) => tracing::debug!(%error, "the node's health was not reported"),
            }
        }
    }
}

/// The wall clock, Unix milliseconds.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
