//! Gives hosts to VMs that have none.

use std::collections::BTreeMap;

use domain::{
    envelope::Command,
    id::InstanceId,
    instance::{InstanceCommand, Place},
    limit,
    vm::VmCommand,
};
use newtype_uuid::GenericUuid;
use raft_store::Store;

/// One plan, proposed. With `explain`, VMs that fit nowhere are told why.
pub(super) async fn act(store: &Store, explain: bool) {
    let view = store.view();
    let state = &view.state;
    if state.unplaced().next().is_none() {
        return;
    }
    let plan = planner::place::place(state, limit::BATCH_MAX);
    if !plan.placed.is_empty() {
        let rows = plan.placed.into_iter().map(|(vm, host)| {
            let instance = InstanceId::from_untyped_uuid(uuid::Uuid::now_v7());
            Place { vm, instance, host }
        });
        let command = Command::Instance(InstanceCommand::Place(rows.collect()));
        if let Err(error) = store.propose_as_node(command).await {
            tracing::debug!(%error, "a placement was not decided");
        }
    }
    let news: BTreeMap<_, _> = plan
        .unplaceable
        .into_iter()
        .filter(|(vm, reason)| {
            let known = state.vms.get(vm).and_then(|vm| vm.placement_failure.as_deref());
            known != Some(&**reason)
        })
        // The rest is told in later rounds.
        .take(limit::BATCH_MAX)
        .map(|(vm, reason)| (vm, reason.to_string()))
        .collect();
    if explain && !news.is_empty() {
        let command = Command::Vm(VmCommand::Unplaceable(news));
        if let Err(error) = store.propose_as_node(command).await {
            tracing::debug!(%error, "a reason was not recorded");
        }
    }
}
