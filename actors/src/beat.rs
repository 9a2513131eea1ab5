//! Renews the leases of all of this node's hosts, in one entry per beat, and tells the hosts' guards.

use std::{sync::Arc, time::Duration};

use domain::{Fence, envelope::Command, host::HostCommand, id::HostId, limit};
use guard::since_boot;
use raft_store::Consistency;

use crate::{
    host::{LocalHost, guarding},
    root::StaffOptions,
    routine::Turn,
};

#[derive(Default)]
pub(crate) struct Beat;

impl Turn for Beat {
    const NAME: &str = "beat";
    const PAUSE: Duration = Duration::from_secs(1);

    async fn take(&mut self, options: &StaffOptions) {
        let (store, view) = (&options.store, options.store.view());
        let held: Vec<(&Arc<LocalHost>, (HostId, Fence))> = options
            .hosts
            .iter()
            .filter_map(|local| {
                let row = guarding::held(store, &view.state, local)?;
                Some((local, (row.id, row.fence)))
            })
            .collect();
        for rows in held.chunks(limit::BATCH_MAX) {
            // Before anything is sent: what the guards count from must not lie later than what the
            // others count from.
            let asked = since_boot();
            let renew = HostCommand::Renew(rows.iter().map(|(_, row)| *row).collect());
            let renewed = match store.propose_as_node(Command::Host(renew)).await {
                Ok(outcome) => store.read(Consistency::AtLeast(outcome.revision)).await,
                Err(error) => {
                    tracing::debug!(%error, "leases were not renewed");
                    continue;
                }
            };
            let Ok(view) = renewed else { continue };
            let guards = rows.iter().map(|(local, (_, lease))| {
                let (store, local, view, lease) =
                    (store.clone(), (*local).clone(), view.clone(), *lease);
                async move { guarding::renewed(&store, &view.state, &local, lease, asked).await }
            });
            guards.collect::<tokio::task::JoinSet<()>>().join_all().await;
        }
    }
}
