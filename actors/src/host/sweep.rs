//! Compares what the driver has with what the state says, and reports the difference: guests that
//! ended by themselves, what somebody changed behind our back, bodies that belong nowhere.

use std::{collections::BTreeMap, time::Duration};

use domain::{
    State,
    envelope::Command,
    host::HostCommand,
    id::VmId,
    instance::{Body, Instance, Phase, Report, Role},
};
use drivers::Observation;
use raft_store::Consistency;
use tokio::time::Instant;

use super::{HostState, SWEEP_INTERVAL, instance::within};

impl HostState {
    pub(super) async fn sweep(&mut self, state: &State) {
        if Instant::now() < self.next_sweep {
            return;
        }
        self.next_sweep = Instant::now() + SWEEP_INTERVAL;
        self.tell_pools(state).await;
        let observed = match within(self.tools.host.driver.observe_all()).await {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(host = %self.tools.host.name, %error, "the host cannot be looked over");
                return;
            }
        };
        let observed: BTreeMap<VmId, Observation> =
            observed.into_iter().map(|seen| (seen.vm, seen)).collect();
        let mut reports = tokio::task::JoinSet::new();
        for body in state.instances_on(self.tools.host.id) {
            // What is being worked on is reported by who works on it.
            if self.working.contains_key(&body.id) {
                continue;
            }
            if let Some(report) = difference(body, observed.get(&body.vm)) {
                let reporter = self.tools.reporter.clone();
                reports.spawn(async move { reporter.report(report).await });
            }
        }
        while let Some(reported) = reports.join_next().await {
            if let Ok(Err(error)) = reported {
                tracing::debug!(%error, "what was seen was not reported");
            }
        }
        let strays = observed.values().filter(|seen| !self.belongs_here(state, seen.vm));
        for stray in strays {
            self.remove_stray(stray).await;
        }
    }

    /// Tells which pools the host sees, when that is not what the state says.
    async fn tell_pools(&self, state: &State) {
        // A file system that hangs is not waited for.
        const PATIENCE: Duration = Duration::from_secs(3);
        let host = &self.tools.host;
        let Some(row) = state.hosts.get(&host.id) else { return };
        let Ok(Ok(pools)) = tokio::time::timeout(PATIENCE, host.driver.pools()).await else {
            tracing::warn!(host = %host.name, "its pools cannot be looked at");
            return;
        };
        if pools == row.pools {
            return;
        }
        let command = HostCommand::Pools { host: host.id, fence: row.fence, pools };
        if let Err(error) = self.tools.store.propose_as_node(Command::Host(command)).await {
            tracing::debug!(host = %host.name, %error, "its pools were not told");
        }
    }

    fn belongs_here(&self, state: &State, vm: VmId) -> bool {
        state.body_on(vm, self.tools.host.id).is_some()
    }

    /// Removes a body of ours that the state does not place anywhere: a call that was under way
    /// when its VM was deleted has left it. Asked of the newest state, since this view may be old.
    async fn remove_stray(&self, stray: &Observation) {
        let Ok(view) = self.tools.store.read(Consistency::Linearizable).await else { return };
        if self.belongs_here(&view.state, stray.vm) {
            return;
        }
        if stray.fence.epoch() < view.state.epoch {
            return self.set_aside(&view.state, stray).await;
        }
        tracing::warn!(vm = %stray.vm, "a body that belongs to no VM is removed");
        if let Err(error) = within(self.tools.host.driver.release(stray.vm, stray.fence)).await {
            tracing::warn!(vm = %stray.vm, %error, "it could not be removed");
        }
    }
}

impl HostState {
    /// A body from before the cluster was recovered, of which it does not know: what a person may still
    /// want is not removed. But a VM that is known goes on elsewhere, so its guest may not go on here.
    async fn set_aside(&self, state: &State, stray: &Observation) {
        let runs = match stray.body {
            Body::Running | Body::Paused | Body::Incoming | Body::Arrived => true,
            Body::Absent | Body::Ready | Body::Stopped(_) => false,
        };
        if !runs || !state.vms.contains_key(&stray.vm) {
            tracing::debug!(vm = %stray.vm, "a body from before the recovery is left as it is");
            return;
        }
        tracing::warn!(vm = %stray.vm, "a guest from before the recovery is ended; its disks are left");
        if let Err(error) = within(self.tools.host.driver.kill(stray.vm, stray.fence)).await {
            tracing::warn!(vm = %stray.vm, %error, "it could not be ended");
        }
    }
}

/// The report that is due, if what was seen is not what the row says.
fn difference(row: &Instance, seen: Option<&Observation>) -> Option<Report> {
    // Of what is to be released only the release itself tells.
    if row.role == Role::Retiring {
        return None;
    }
    let body = seen.map_or(Body::Absent, |seen| seen.body);
    let same = row.phase.next(body) == row.phase
        && seen.is_none_or(|seen| seen.reboots <= row.reboots && seen.starts <= row.starts);
    // A body that is not there yet is made by its own action.
    let expected = row.phase == Phase::Reserved && body == Body::Absent;
    (!same && !expected).then(|| Report {
        generation: seen.and_then(|seen| seen.generation),
        reboots: seen.map_or(0, |seen| seen.reboots),
        starts: seen.map_or(0, |seen| seen.starts),
        ..Report::seen(row.id, row.fence, body)
    })
}
