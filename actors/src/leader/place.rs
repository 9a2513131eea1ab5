//! Gives hosts to VMs that have none.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::{
    State,
    envelope::Command,
    id::{InstanceId, OperationId, VmId},
    instance::{InstanceCommand, Place},
    limit,
    operation::{Class, Operation},
    principal::Principal,
    vm::VmCommand,
};
use newtype_uuid::GenericUuid;
use planner::place::Placement;
use raft_store::{Store, View};
use tokio::time::Instant;

/// Makes plans.
pub(super) struct Placer {
    /// When VMs without a host are looked at again.
    next: Instant,
    /// Whether those that fit nowhere are then told why.
    explains: bool,
}

impl Default for Placer {
    fn default() -> Placer {
        Placer { next: Instant::now(), explains: false }
    }
}

impl Placer {
    /// One plan of each kind, proposed. With `explain`, VMs that fit nowhere are told why. The answer is when to come
    /// again for those that were not looked at.
    pub(super) async fn act(&mut self, store: &Store, explain: bool) -> Option<Instant> {
        let view = store.view();
        self.explains |= explain;
        let waits = view.state.unplaced().next().is_some();
        let looks = waits && Instant::now() >= self.next;
        if looks {
            let plan = self.plan(view.clone()).await;
            let explain = std::mem::take(&mut self.explains);
            propose(store, &view.state, plan, InstanceCommand::Place, explain).await;
        }
        others(store, &view.state, explain).await;
        (waits && !looks).then_some(self.next)
    }

    /// A plan for VMs without a host. All of them are looked at, and there may be thousands that fit nowhere: it is made
    /// where nobody waits for the thread.
    async fn plan(&mut self, view: Arc<View>) -> Placement {
        let begun = Instant::now();
        let planned = tokio::task::spawn_blocking(move || {
            planner::place::place(&view.state, limit::BATCH_MAX)
        });
        let plan = planned.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // This node ends.
            Err(_) => Placement::default(),
        });
        let found = (plan.placed.len(), plan.unplaceable.len());
        self.next = Instant::now() + rest(begun.elapsed(), found);
        plan
    }
}

/// How long VMs without a host are left alone after a plan that took so long, and found hosts for so many and none for so
/// many: about a tenth of the time may go into those that fit nowhere. It is never long.
fn rest(took: Duration, (placed, hopeless): (usize, usize)) -> Duration {
    const TIMES: f64 = 9.0;
    const LONGEST: Duration = Duration::from_secs(1);
    took.mul_f64(TIMES * hopeless as f64 / (placed + hopeless).max(1) as f64).min(LONGEST)
}

/// What has a host that it must leave, or is to.
async fn others(store: &Store, state: &State, explain: bool) {
    relocate(store, state, explain).await;
    if explain {
        evacuate(store, state).await;
    }
    if state.waiting_count(Class::Migrations) > 0 {
        let plan = planner::place::targets(state);
        propose(store, state, plan, InstanceCommand::Reserve, explain).await;
    }
}

/// Has VMs of lost hosts placed anew; where, the next plan says.
async fn relocate(store: &Store, state: &State, explain: bool) {
    let mut plan = planner::place::failover(state);
    let rows: Vec<_> = plan.placed.drain(..).map(|(vm, _)| (vm, operation())).collect();
    for rows in rows.chunks(limit::BATCH_MAX) {
        let command = Command::Instance(InstanceCommand::Relocate(rows.to_vec()));
        if let Err(error) = store.propose_as_node(command).await {
            tracing::debug!(%error, "a failover was not decided");
        }
    }
    propose(store, state, plan, InstanceCommand::Place, explain).await;
}

fn operation() -> OperationId {
    OperationId::from_untyped_uuid(uuid::Uuid::now_v7())
}

/// Has guests leave the hosts that are being drained, a few more than there are workers.
async fn evacuate(store: &Store, state: &State) {
    let workers = usize::try_from(state.workers(Class::Migrations)).unwrap_or(usize::MAX);
    // What people asked for does not hold a drain up; the turns go by priority.
    let ours = |operation: &&Arc<Operation>| matches!(operation.author, Principal::Node(_));
    let room = (2 * workers).saturating_sub(state.waiting(Class::Migrations).filter(ours).count());
    let leavers = planner::place::leavers(state, room.min(limit::BATCH_MAX));
    if leavers.is_empty() {
        return;
    }
    let rows = leavers.into_iter().map(|vm| (vm, operation())).collect();
    if let Err(error) =
        store.propose_as_node(Command::Instance(InstanceCommand::Evacuate(rows))).await
    {
        tracing::debug!(%error, "an evacuation was not decided");
    }
}

async fn propose(
    store: &Store,
    state: &State,
    plan: Placement,
    how: fn(Vec<Place>) -> InstanceCommand,
    explain: bool,
) {
    if !plan.placed.is_empty() {
        let rows = plan.placed.into_iter().map(|(vm, host)| {
            let instance = InstanceId::from_untyped_uuid(uuid::Uuid::now_v7());
            Place { vm, instance, host }
        });
        if let Err(error) = store.propose_as_node(Command::Instance(how(rows.collect()))).await {
            tracing::debug!(%error, "a placement was not decided");
        }
    }
    let news: BTreeMap<_, _> = plan
        .unplaceable
        .into_iter()
        .filter(|(vm, reason)| why(state, *vm) != Some(&*limit::clip(reason)))
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

/// What is known already of why no host takes it.
fn why(state: &State, vm: VmId) -> Option<&str> {
    match state.migration_of(vm) {
        Some((operation, _)) => Some(&operation.message),
        None => state.vms.get(&vm)?.placement_failure.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fits_nowhere_is_left_alone() {
        // How long the plan took, for how many it found hosts and for how many none, and how long they are left alone.
        for (took_ms, placed, hopeless, ms) in [
            (10, 0, 0, 0),
            (10, 1, 0, 0),
            (10, 1_024, 0, 0),
            (10, 0, 1, 90),
            (10, 0, 100_000, 90),
            (10, 50, 50, 45),
            (2_000, 0, 100_000, 1_000),
        ] {
            let rests = rest(Duration::from_millis(took_ms), (placed, hopeless));
            assert_eq!(rests, Duration::from_millis(ms), "{placed} placed, {hopeless} not");
        }
    }
}
