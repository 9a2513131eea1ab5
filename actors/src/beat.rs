//! Renews the leases of all of this node's hosts, in one entry per beat.

use std::time::Duration;

use domain::{
    envelope::Command,
    host::{HostCommand, Status},
    limit,
};

use crate::{root::StaffOptions, routine::Turn};

pub(crate) struct Beat;

impl Turn for Beat {
    const PAUSE: Duration = Duration::from_secs(1);

    async fn take(options: &StaffOptions) {
        let view = options.store.view();
        let node = options.store.node();
        let held = options.hosts.iter().filter_map(|local| {
            let host = view.state.hosts.get(&local.id)?;
            let ours = host.node == node && host.boot == local.boot;
            (ours && host.status == Status::Ready).then_some((host.id, host.fence))
        });
        let held: Vec<_> = held.collect();
        for rows in held.chunks(limit::BATCH_MAX) {
            let renew = Command::Host(HostCommand::Renew(rows.to_vec()));
            if let Err(error) = options.store.propose_as_node(renew).await {
                tracing::debug!(%error, "leases were not renewed");
            }
        }
    }
}
