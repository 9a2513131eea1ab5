//! Canaries: VMs that are really made, run and deleted, on one host after the other of each driver, to see whether that
//! works before somebody needs it.
//!
//! Whose turn it is and what is to be done follows from the state ([`State::canary_turn`]); the leader proposes the
//! turn, and brings the ids along that the law may not make up.

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use crate::{
    Draft, Revision, State, host,
    host::{Host, Schedule},
    id::{HostId, OperationId, VmId},
    limit,
    name::Name,
    operation::Status,
    project::Project,
    rejected::{Category, Reason, Rejected},
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
    /// Whether its guest has run.
    #[serde(default)]
    pub ran: bool,
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
    /// Whether it is made, runs or is deleted, and nothing is wrong yet.
    fn flies(&self) -> bool {
        self.vm.is_some() && self.failure.is_none()
    }

    fn failed(self, why: &str) -> Canary {
        let failures = self.failures.saturating_add(1);
        Canary { failure: Some(limit::clip(why)), failures, ..self }
    }
}

/// What is next.
enum Act {
    Make,
    /// Its guest runs, and is deleted.
    Delete,
    /// It only waited, and is deleted: nothing is known of the host.
    GiveUp,
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

/// The canaries of one driver. Hosts on which one has failed are tried beside the others, so that one that is broken
/// holds up no other, and one that is mended is known soon.
#[derive(Default)]
struct Lanes {
    /// One of a host on which none has failed is under way.
    flies: bool,
    /// The same, of a host on which one has.
    flies_again: bool,
    /// When the newest was begun on a host on which none has failed.
    begun_ms: Option<u64>,
}

impl State {
    /// The host whose turn it is, if there is something to do.
    #[must_use]
    pub fn canary_turn(&self) -> Option<HostId> {
        let under_way = self.canaries.keys().find(|host| act(self, **host).is_some());
        under_way.copied().or_else(|| self.next_canary())
    }

    /// Whether canaries are made at all.
    #[must_use]
    pub fn has_canaries(&self) -> bool {
        self.setting(Key::CanaryIntervalMs) > 0 && self.image_named(&name()).is_some()
    }

    /// The host on which the next one is made: of each driver the one whose turn was longest ago.
    fn next_canary(&self) -> Option<HostId> {
        if !self.has_canaries() {
            return None;
        }
        let (interval_ms, memory_mib) =
            (self.setting(Key::CanaryIntervalMs), self.setting(Key::CanaryMemoryMib));
        let mut lanes: BTreeMap<&Name, Lanes> = BTreeMap::new();
        for (host, canary) in &self.canaries {
            let Some(host) = self.hosts.get(host) else { continue };
            let lanes = lanes.entry(&host.driver).or_default();
            if canary.failures > 0 {
                lanes.flies_again |= canary.flies();
            } else {
                lanes.flies |= canary.flies();
                lanes.begun_ms = lanes.begun_ms.max(Some(canary.begun_ms));
            }
        }
        let is_over = |begun_ms: u64| begun_ms + interval_ms <= self.now_ms;
        // A host without room is full, and not broken.
        let has_room = |host: &Host| {
            let left = host.allocatable().minus(self.used_on(host.id));
            left.cpu_millicores >= 1_000 && left.memory_mib >= memory_mib
        };
        let none = (Canary::default(), Lanes::default());
        let due = self.hosts.values().filter_map(|host| {
            let canary = self.canaries.get(&host.id).unwrap_or(&none.0);
            let lanes = lanes.get(&host.driver).unwrap_or(&none.1);
            let is_due = if canary.failures > 0 {
                !lanes.flies_again && is_over(canary.begun_ms)
            } else {
                !lanes.flies && lanes.begun_ms.is_none_or(is_over)
            };
            let takes = canary.vm.is_none()
                && host.status == host::Status::Ready
                && host.schedule == Schedule::Open;
            (is_due && takes && has_room(host)).then_some((canary.begun_ms, host.id))
        });
        due.min().map(|(_, host)| host)
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
    // It could not be deleted, and somebody has to.
    if canary.failure.is_some() {
        return None;
    }
    let body = state.instance_of(vm.id);
    let operation = vm.operation.and_then(|operation| state.operations.get(&operation));
    let waits = body.is_none() || operation.is_some_and(|it| it.status == Status::Queued);
    match (state.phase(vm), operation) {
        (Phase::Running, None) => Some(Act::Delete),
        (Phase::Failed, _) => {
            let why = body.and_then(|body| body.failure.clone());
            Some(Act::Fail(why.unwrap_or_else(|| "its guest does not run".to_owned())))
        }
        // There was no worker or no room for it: that is not the host's fault.
        _ if !state.hosts.contains_key(&host) => Some(Act::GiveUp),
        (_, None) if waits => Some(Act::GiveUp),
        (_, None) => Some(Act::Fail("its guest does not run".to_owned())),
        (_, Some(_)) if took_ms <= limit::CANARY_MS_MAX => None,
        (_, Some(_)) if waits => Some(Act::GiveUp),
        (_, Some(_)) => Some(Act::Fail(late("did not run"))),
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
    // What is refused is not asked again at once: another host has its turn then.
    let canary = match next {
        Act::Make => {
            let begun_ms = draft.state().now_ms;
            let begun = Canary { vm: None, begun_ms, ran: false, failure: None, ..canary };
            match whole(draft, |draft| make(draft, host, vm, operation)) {
                Ok(()) => Canary { vm: Some(vm), ..begun },
                // The cluster takes nothing more: that is not the host's fault.
                Err(refused) if refused.reason.category() == Category::Exhausted => begun,
                Err(refused) => begun.failed(&refused.message),
            }
        }
        Act::Delete => removed(draft, &canary, Canary { ran: true, ..canary.clone() }, operation),
        Act::GiveUp => removed(draft, &canary, canary.clone(), operation),
        Act::Fail(why) => removed(draft, &canary, canary.clone().failed(&why), operation),
        Act::Note(why) => canary.failed(&why),
        // One that somebody deleted tells nothing.
        Act::Settle => {
            let failures = if canary.ran && canary.failure.is_none() { 0 } else { canary.failures };
            Canary { vm: None, failures, ..canary }
        }
    };
    let is_known = canary.vm.is_some() || draft.state().hosts.contains_key(&host);
    draft.note_canary(host, is_known.then_some(canary));
    Ok(())
}

/// Does something as a whole: what is refused changes nothing.
fn whole(
    draft: &mut Draft,
    what: impl FnOnce(&mut Draft) -> Result<(), Rejected>,
) -> Result<(), Rejected> {
    let mut attempt = draft.clone();
    what(&mut attempt)?;
    *draft = attempt;
    Ok(())
}

/// A canary as it is when its VM is deleted, or cannot be.
fn removed(draft: &mut Draft, before: &Canary, after: Canary, operation: OperationId) -> Canary {
    let Some(vm) = before.vm else { return after };
    match whole(draft, |draft| vm::delete(draft, vm, None, operation)) {
        Ok(()) => after,
        // It is asked again: what the cluster takes no more of now it takes soon.
        Err(refused) if refused.reason.category() == Category::Exhausted => before.clone(),
        Err(_) if after.failure.is_some() => after,
        Err(refused) => after.failed(&refused.message),
    }
}

/// What is known of a host that is removed is forgotten; a canary that was to be there is deleted first.
pub(crate) fn host_gone(draft: &mut Draft, host: HostId) {
    if draft.state().canaries.get(&host).is_some_and(|canary| canary.vm.is_none()) {
        draft.note_canary(host, None);
    }
}

fn make(draft: &mut Draft, id: HostId, vm: VmId, operation: OperationId) -> Result<(), Rejected> {
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
    vm::create(draft, vm, name(), host, spec, true, operation)
}
