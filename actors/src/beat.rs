//! Renews the leases of all of this node's hosts, in one entry per beat.

use std::{sync::Arc, time::Duration};

use domain::{
    envelope::Command,
    host::{HostCommand, Status},
    limit,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

use crate::root::StaffOptions;

const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Beat;

impl Beat {
    pub(crate) async fn start(
        options: Arc<StaffOptions>,
        supervisor: ActorCell,
    ) -> Result<ActorCell, String> {
        let spawned = Actor::spawn_linked(None, Beat, options, supervisor).await;
        spawned.map(|(actor, _)| actor.get_cell()).map_err(|error| error.to_string())
    }
}

impl Actor for Beat {
    type Msg = ();
    type State = Arc<StaffOptions>;
    type Arguments = Arc<StaffOptions>;

    async fn pre_start(
        &self,
        me: ActorRef<()>,
        options: Arc<StaffOptions>,
    ) -> Result<Arc<StaffOptions>, ActorProcessingErr> {
        me.cast(())?;
        Ok(options)
    }

    async fn handle(
        &self,
        me: ActorRef<()>,
        (): (),
        options: &mut Arc<StaffOptions>,
    ) -> Result<(), ActorProcessingErr> {
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
        me.send_after(INTERVAL, || ());
        Ok(())
    }
}
