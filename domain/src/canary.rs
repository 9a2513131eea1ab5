//! Canaries: VMs that are really made, run and deleted, on one host after the other of each driver, to see whether that
//! works before somebody needs it.
//!
//! Whose turn it is and what is to be done follows from the state ([`State::canary_turn`]); the leader proposes the
//! turn, and brings the ids along that the law may not make up.

use serde::{Deserialize, Serialize};

use crate::{
    Draft, Revision, State, host,
    host::{Host, Schedule},
    id::{HostId, OperationId, VmId},
    limit,
    name::Name,
    project::Project,
    rejected::{Reason, Rejected},
    setting::Key,
    vm::{self, Failover, Phase, RunPolicy, VmSpec},
};

/// What is known of a host by its canaries. It is no row: it comes again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The VM, while there is one.
    pub vm: Option<VmId>,
    /// Lease time at which it was begun, milliseconds.
    pub begun_ms: u64,
    /// Why it has failed, when it has.
    pub failure: Option<String>,
    /// How many have failed, one after the other.
    pub failures: u32,
}

/// What may be asked of canaries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum CanaryCommand {
    /// Do what is next with a host's canary. Only nodes ask for it.
    Turn {
        /// The host.
        host: HostId,
        /// An id for a VM, if one is made.
        vm: VmId,
        /// An id for an operation, if one is begun.
        operation: OperationId,
    },
}

impl Canary {
    fn failed(self, why: &str) -> Canary {
        let failures = self.failures.saturating_add(1);
        Canary { failure: Some(limit::clip(why)), failures, ..self }
    }
}

/// What is next.
enum Act {
    Make,
    Delete,
    /// It has failed, and is deleted.
    Fail(String),
    /// It has failed, and is on its way out already.
    Note(String),
    /// It is gone.
    Settle,
}

/// The project that canaries are in, and the name of the image that they start from.
#[must_use]
pub fn name() -> Name {
    Name::new("canary").expect("the literal is a name")
}

impl State {
    /// The host whose turn it is, if there is something to do.
    #[must_use]
    pub fn canary_turn(&self) -> Option<HostId> {
        let under_way = self.canaries.keys().find(|host| act(self, **host).is_some());
        under_way.copied().or_else(|| self.next_canary())
    }

    /// The host on which the next one is made: of each driver the one whose turn was longest ago.
    fn next_canary(&self) -> Option<HostId> {
        let interval_ms = self.setting(Key::CanaryIntervalMs);
        if interval_ms == 0 || self.image_named(&name()).is_none() {
            return None;
        }
        let begun_ms = |host: HostId| self.canaries.get(&host).map_or(0, |it| it.begun_ms);
        // A host without room is full, and not broken.
        let has_room = |host: &Host| {
            let left = host.allocatable().minus(self.used_on(host.id));
            let memory_mib = self.setting(Key::CanaryMemoryMib);
            left.cpu_millicores >= 1_000 && left.memory_mib >= memory_mib
        };
        let takes = |host: &Host| {
            host.status == host::Status::Ready && host.schedule == Schedule::Open && has_room(host)
        };
        let open = self.hosts.values().filter(|host| takes(host));
        let mut hosts: Vec<_> = open.map(|host| (begun_ms(host.id), host)).collect();
        hosts.sort_by_key(|(begun_ms, host)| (*begun_ms, host.id));
        let due = hosts.iter().find(|(_, host)| {
            let driven_alike = self.canaries.iter().filter(|(other, _)| {
                self.hosts.get(*other).is_some_and(|other| other.driver == host.driver)
            });
            driven_alike.into_iter().all(|(_, canary)| {
                canary.vm.is_none() && canary.begun_ms + interval_ms <= self.now_ms
            })
        });
        due.map(|(_, host)| host.id)
    }
}

/// What is next with a host's canary that is under way.
fn act(state: &State, host: HostId) -> Option<Act> {
    let canary = state.canaries.get(&host)?;
    let Some(vm) = state.vms.get(&canary.vm?) else { return Some(Act::Settle) };
    let took_ms = state.now_ms.saturating_sub(canary.begun_ms);
    let late = |what: &str| {
        let seconds = limit::CANARY_MS_MAX / 1_000;
        format!("it {what} after {seconds} s")
    };
    if vm.deleting {
        let is_late = took_ms > 2 * limit::CANARY_MS_MAX && canary.failure.is_none();
        return is_late.then(|| Act::Note(late("was not deleted")));
    }
    match (state.phase(vm), vm.operation) {
        (Phase::Running, None) => Some(Act::Delete),
        (_, None) | (Phase::Failed, _) => {
            let body = state.instance_of(vm.id);
            let why = body.and_then(|body| body.failure.clone());
            let why = why.or_else(|| vm.placement_failure.clone());
            Some(Act::Fail(why.unwrap_or_else(|| "its guest does not run".to_owned())))
        }
        (_, Some(_)) if took_ms > limit::CANARY_MS_MAX => {
            let why = vm.placement_failure.clone();
            Some(Act::Fail(why.unwrap_or_else(|| late("did not run"))))
        }
        (_, Some(_)) => None,
    }
}

/// Decides about canaries.
pub(crate) fn decide(draft: &mut Draft, command: CanaryCommand) -> Result<(), Rejected> {
    let CanaryCommand::Turn { host, vm, operation } = command;
    let state = draft.state();
    let next = match act(state, host) {
        Some(next) => next,
        None if state.next_canary() == Some(host) => Act::Make,
        None => return Err(Rejected::new(Reason::Fenced, "there is nothing to do")),
    };
    let canary = state.canaries.get(&host).cloned().unwrap_or_default();
    match next {
        Act::Make => make(draft, host, &canary, vm, operation),
        Act::Delete => remove(draft, &canary, operation),
        Act::Fail(why) => {
            let canary = canary.failed(&why);
            draft.note_canary(host, Some(canary.clone()));
            remove(draft, &canary, operation)
        }
        Act::Note(why) => {
            draft.note_canary(host, Some(canary.failed(&why)));
            Ok(())
        }
        Act::Settle => {
            let failures = if canary.failure.is_some() { canary.failures } else { 0 };
            draft.note_canary(host, Some(Canary { vm: None, failures, ..canary }));
            Ok(())
        }
    }
}

fn make(
    draft: &mut Draft,
    id: HostId,
    before: &Canary,
    vm: VmId,
    operation: OperationId,
) -> Result<(), Rejected> {
    let state = draft.state();
    let host = state.hosts.get(&id).ok_or_else(|| Rejected::not_found("host", id))?.name.clone();
    let memory_mib = u32::try_from(state.setting(Key::CanaryMemoryMib)).unwrap_or(u32::MAX);
    if !state.projects.contains_key(&name()) {
        draft.room_for("projects", state.projects.len(), limit::PROJECTS_MAX)?;
        draft.put(Project { name: name(), revision: Revision::ZERO });
    }
    let spec = VmSpec {
        vcpus: 1,
        memory_mib,
        image: name(),
        root_disk_mib: 0,
        pool: None,
        disks: Vec::new(),
        nics: Vec::new(),
        cmdline: String::new(),
        user_data: String::new(),
        run_policy: RunPolicy::OnFailure,
        failover: Failover::Stay,
        failover_priority: 0,
        failover_after: Vec::new(),
        deletion_protection: false,
        host: Some(host.clone()),
        labels: Default::default(),
        placement: Default::default(),
    };
    vm::create(draft, vm, name(), host, spec, true, operation)?;
    let begun_ms = draft.state().now_ms;
    let canary = Canary { vm: Some(vm), begun_ms, failure: None, failures: before.failures };
    draft.note_canary(id, Some(canary));
    Ok(())
}

fn remove(draft: &mut Draft, canary: &Canary, operation: OperationId) -> Result<(), Rejected> {
    canary.vm.map_or(Ok(()), |vm| vm::delete(draft, vm, None, operation))
}
