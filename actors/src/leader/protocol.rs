//! The protocol of a cluster whose programs are replaced one by one: it is raised as soon as every member understands
//! a newer one.

use domain::{
    cluster::{ClusterCommand, PROTOCOL_VERSION},
    envelope::Command,
};
use raft_store::Store;

pub(crate) async fn act(store: &Store) {
    let (now, to) = {
        let state = &store.view().state;
        // A leader that is older than all others does not know what it would be asking for.
        (state.protocol_version, state.protocol_common().min(PROTOCOL_VERSION))
    };
    if to <= now {
        return;
    }
    match store.propose_as_node(Command::Cluster(ClusterCommand::Raise { to })).await {
        Ok(_) => tracing::info!(from = now, to, "a newer protocol is in force"),
        Err(error) => tracing::warn!(%error, from = now, to, "the protocol was not raised"),
    }
}
