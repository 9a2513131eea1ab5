//! Has canaries made, run and deleted: whose turn it is the state says.

use domain::{
    canary::CanaryCommand,
    envelope::Command,
    id::{OperationId, VmId},
};
use newtype_uuid::GenericUuid;
use raft_store::Store;

pub(super) async fn act(store: &Store) {
    let Some(host) = store.view().state.canary_turn() else { return };
    let (vm, operation) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    let turn = CanaryCommand::Turn {
        host,
        vm: VmId::from_untyped_uuid(vm),
        operation: OperationId::from_untyped_uuid(operation),
    };
    if let Err(error) = store.propose_as_node(Command::Canary(turn)).await {
        tracing::warn!(%error, "a canary was not made or deleted");
    }
}
