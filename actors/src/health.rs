//! Reports what a node knows of itself: decisions about full disks rest on the report, never on a
//! node's own look at its disk.

use std::time::Duration;

use domain::{
    cluster::PROTOCOL_VERSION,
    envelope::Command,
    node::{Health as Report, NodeCommand},
};

use crate::{disk, root::StaffOptions, routine::Turn};

pub(crate) struct Health;

impl Turn for Health {
    const NAME: &str = "health";
    const PAUSE: Duration = Duration::from_secs(2);

    async fn take(options: &StaffOptions) {
        let report = Report {
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
        if known.is_some() && !told {
            let command = Command::Node(NodeCommand::Report(Box::new(report)));
            if let Err(error) = options.store.propose_as_node(command).await {
                tracing::debug!(%error, "the node's health was not reported");
            }
        }
    }
}
