//! Reports what a node knows of itself: decisions about full disks rest on the report, never on a
//! node's own look at its disk.

use std::{sync::Arc, time::Duration};

use domain::{
    cluster::PROTOCOL_VERSION,
    envelope::Command,
    node::{Health as Report, NodeCommand},
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

use crate::root::StaffOptions;

const INTERVAL: Duration = Duration::from_secs(2);

pub(crate) struct Health;

impl Health {
    pub(crate) async fn start(
        options: Arc<StaffOptions>,
        supervisor: ActorCell,
    ) -> Result<ActorCell, String> {
        let spawned = Actor::spawn_linked(None, Health, options, supervisor).await;
        spawned.map(|(actor, _)| actor.get_cell()).map_err(|error| error.to_string())
    }
}

impl Actor for Health {
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
        let report = Report {
            disk_used_percent: used_percent(&options.directory),
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
        me.send_after(INTERVAL, || ());
        Ok(())
    }
}

/// Use of the disk a directory is on, percent, as an ordinary user meets it. A disk that cannot be
/// asked counts as empty: its errors show elsewhere.
fn used_percent(directory: &std::path::Path) -> u8 {
    let Ok(disk) = rustix::fs::statvfs(directory) else { return 0 };
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    let whole = used + disk.f_bavail;
    u8::try_from((used * 100).checked_div(whole).unwrap_or(0)).unwrap_or(100)
}
