//! A host: a machine that runs VMs, driven by one node at a time.
//!
//! ```text
//!            grant                lease lapsed
//!  (absent) ───────▶ Ready ──────────────────────▶ Lost
//!                      ▲                             │
//!                      └───────── new grant ─────────┘
//! ```
//!
//! Beside that, a person may cordon a host, so that no bodies come, or drain it, so that VMs leave. It is drained when nothing is left on it. Of a lost host `fencing` says whether its guests are
//! known to have ended.

mod capacity;
mod fencing;
mod lease;
mod reserve;
mod schedule;

pub use capacity::Capacity;
pub(crate) use fencing::forget_bodies;
pub use fencing::{Evidence, Fencing};
pub use lease::Lease;
pub(crate) use lease::expire;
pub use reserve::{Reserve, Share};
pub use schedule::Schedule;
pub(crate) use schedule::settle_drains;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Draft, Fence, Revision, State, canary,
    event::Change,
    id::{BootId, HostId, NodeId, OperationId, PoolId, VmId},
    limit,
    name::Name,
    operation,
    principal::Principal,
    rejected::{Reason, Rejected, Violation},
    setting::Key,
    table::{Resource, Row, Table},
    vm,
};

/// Whether the host is heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It holds its lease.
    Ready,
    /// Its lease lapsed: its bodies are unknown, not dead.
    Lost,
}

impl Status {
    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Ready => "ready",
            Status::Lost => "lost",
        }
    }
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its identity.
    pub id: HostId,
    /// Its name, unique in the cluster.
    pub name: Name,
    /// The node that drives it.
    pub node: NodeId,
    /// The driver's kind: `libvirt` or `simulator`.
    pub driver: Name,
    /// What the machine has.
    pub capacity: Capacity,
    /// What is kept back for the machine itself.
    pub reserved: Capacity,
    /// Whether it is heard of.
    pub status: Status,
    /// The boot the lease was granted to.
    pub boot: BootId,
    /// The fence of the lease.
    pub fence: Fence,
    /// Domains that are not ours, as its driver counted them; they are never touched.
    #[serde(default)]
    pub foreign: u32,
    /// Whether bodies may come, and are to leave.
    #[serde(default)]
    pub schedule: Schedule,
    /// Labels that people gave it, for the rules of VMs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Name, String>,
    /// The pools that it sees, by the names that it has for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pools: BTreeMap<Name, PoolId>,
    /// The operation that empties it, while one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<OperationId>,
    /// Whether it came back with less than is booked on it.
    #[serde(default)]
    pub shrank: bool,
    /// What ends its guests when it cannot renew its lease.
    #[serde(default)]
    pub fencing: Fencing,
    /// Lease time at which it was taken up, milliseconds.
    #[serde(default)]
    pub granted_ms: u64,
    /// How it is known that its guests have ended, when it is lost and that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Evidence>,
    /// The entry that changed it last.
    pub revision: Revision,
}

impl Host {
    /// Whether bodies may come.
    #[must_use]
    pub fn takes_bodies(&self) -> bool {
        self.status == Status::Ready && self.schedule == Schedule::Open
    }

    /// What VMs may take in all.
    #[must_use]
    pub fn allocatable(&self) -> Capacity {
        self.capacity.minus(self.reserved)
    }
}

/// What may be asked of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum HostCommand {
    /// A node took up driving a host, after the host's boot or its own start: grants the lease.
    Grant(Box<Grant>),
    /// A node still drives these hosts; the fences show that it is still the one.
    Renew(Vec<(HostId, Fence)>),
    /// Whether bodies may come to a host, and whether those on it are to leave.
    Schedule {
        /// The host.
        host: HostId,
        /// What is wanted.
        schedule: Schedule,
        /// The operation's id, when guests are to leave.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        operation: Option<OperationId>,
    },
    /// Let bodies come to a host again, and have VMs come back that left it when it was drained.
    Restore {
        /// The host.
        host: HostId,
        /// The operation's id.
        operation: OperationId,
        /// The VMs that may be asked to, each with the id of its migration.
        moves: Vec<(VmId, OperationId)>,
    },
    /// Give it labels, and take some away.
    Label {
        /// The host.
        host: HostId,
        /// The labels, each with its value; none takes it away.
        labels: BTreeMap<Name, Option<String>>,
    },
    /// The pools that a host sees, told by who holds the lease that has this fence.
    Pools {
        /// The host.
        host: HostId,
        /// The lease's fence.
        fence: Fence,
        /// The pools, by name.
        pools: BTreeMap<Name, PoolId>,
    },
    /// What ends a host's guests when it cannot renew the lease that has this fence. Its node says `Guard` or `Watchdog`
    /// after the guard has its deadline, and takes it back before it lets the guard go.
    Fencing {
        /// The host.
        host: HostId,
        /// The lease's fence.
        fence: Fence,
        /// What it is.
        fencing: Fencing,
    },
    /// A fencing agent has cut a host's power and read it back as off.
    PoweredOff {
        /// The host.
        host: HostId,
        /// The boot that ended.
        boot: BootId,
        /// The fence of the lease that the host held when the agent was sent.
        fence: Fence,
    },
    /// A person has seen that a lost host is off: its bodies ended. `boot` names which life of the
    /// host that is; if it renews later, it is refused.
    ConfirmDead {
        /// The host.
        host: HostId,
        /// The boot that ended.
        boot: BootId,
    },
    /// Forget a lost host that has no bodies.
    Remove {
        /// The host.
        host: HostId,
    },
}

/// What a node says of a host that it takes up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The host's identity, kept on the host.
    pub host: HostId,
    /// Its name.
    pub name: Name,
    /// The driver's kind.
    pub driver: Name,
    /// What the machine has.
    pub capacity: Capacity,
    /// What is kept back for the machine itself.
    pub reserved: Capacity,
    /// The present boot.
    pub boot: BootId,
    /// Domains that are not ours.
    #[serde(default)]
    pub foreign: u32,
}

impl Resource for Host {
    type Key = HostId;

    fn key(&self) -> HostId {
        self.id
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Host> {
        &state.hosts
    }
    fn table_mut(state: &mut State) -> &mut Table<Host> {
        &mut state.hosts
    }
    fn change(row: Row<Host>) -> Change {
        Change::Host(row)
    }

    fn reindex(state: &mut State, old: Option<&Host>, new: Option<&Host>) {
        if let Some(old) = old {
            state.host_names.remove(&old.name);
        }
        if let Some(new) = new {
            state.host_names.insert(new.name.clone(), new.id);
        }
    }
}

impl State {
    /// The host called `name`.
    #[must_use]
    pub fn host_named(&self, name: &Name) -> Option<&std::sync::Arc<Host>> {
        self.hosts.get(self.host_names.get(name)?)
    }

    /// All hosts in the order of their names.
    pub fn hosts_by_name(&self) -> impl Iterator<Item = &std::sync::Arc<Host>> {
        self.host_names.values().filter_map(|id| self.hosts.get(id))
    }

    /// What bodies take of `host`.
    #[must_use]
    pub fn used_on(&self, host: HostId) -> Capacity {
        self.used.get(&host).copied().unwrap_or_default()
    }
}

/// Decides about hosts.
pub(crate) fn decide(draft: &mut Draft, command: HostCommand) -> Result<(), Rejected> {
    match command {
        HostCommand::Grant(grant) => take_up(draft, *grant),
        HostCommand::Renew(rows) => lease::renew(draft, &rows),
        HostCommand::Schedule { host, schedule, operation } => {
            schedule::set(draft, host, schedule, operation)
        }
        HostCommand::Restore { host, operation, moves } => {
            schedule::restore(draft, host, operation, moves)
        }
        HostCommand::Label { host, labels } => label(draft, host, labels),
        HostCommand::Pools { host, fence, pools } => {
            let host = fencing::driven(draft, host, fence)?;
            if pools.len() > limit::HOST_POOLS_MAX {
                let message = format!("a host has at most {} pools", limit::HOST_POOLS_MAX);
                return Err(Rejected::new(Reason::TooLarge, message));
            }
            draft.put(Host { pools, ..host });
            vm::clear_pools(draft);
            Ok(())
        }
        HostCommand::Fencing { host, fence, fencing } => {
            let host = fencing::driven(draft, host, fence)?;
            draft.put(Host { fencing, ..host });
            Ok(())
        }
        HostCommand::PoweredOff { host, boot, fence } => {
            fencing::powered_off(draft, host, boot, fence)
        }
        HostCommand::ConfirmDead { host, boot } => fencing::confirm_dead(draft, host, boot),
        HostCommand::Remove { host } => remove(draft, host),
    }
}

fn take_up(draft: &mut Draft, grant: Grant) -> Result<(), Rejected> {
    let Principal::Node(node) = *draft.principal() else {
        return Err(Rejected::new(Reason::PermissionDenied, "only nodes take up hosts"));
    };
    let state = draft.state();
    let old = state.hosts.get(&grant.host).cloned();
    let holder = state.host_named(&grant.name).map(|host| host.id);
    if holder.is_some_and(|id| id != grant.host) {
        let message = format!("a host named {} exists already; choose another name", grant.name);
        return Err(Rejected::new(Reason::NameTaken, message));
    }
    if old.is_none() {
        draft.room_for("hosts", state.hosts.len(), limit::HOSTS_MAX)?;
    }
    if !grant.reserved.fits(grant.capacity, Capacity::default()) {
        let violation = Violation::new("hosts.reserved", "more is reserved than the host has");
        return Rejected::unless_empty(vec![violation]);
    }
    // While another node holds the lease the host has an owner; it may be taken over only after it
    // lapsed.
    if let Some(old) = &old
        && old.node != node
        && old.status == Status::Ready
    {
        let message = format!("host {} is driven by node {}", old.name, old.node);
        return Err(Rejected::new(Reason::Fenced, message));
    }
    // Whoever said that it was off was wrong: its guests may run, and elsewhere too.
    if let Some(old) = &old
        && old.boot == grant.boot
        && matches!(old.ended, Some(Evidence::Agent | Evidence::Person))
    {
        let message = format!(
            "host {} was said to be off and comes back from the same boot; its guests may run elsewhere \
             too: reboot it",
            old.name
        );
        return Err(Rejected::new(Reason::HostSaidDead, message));
    }
    let fence = draft.revision();
    let ttl_ms = state.setting(Key::HostLeaseTtlMs);
    let whole = grant.capacity.minus(grant.reserved);
    let shrank = !state.used_on(grant.host).fits(whole, Capacity::default());
    draft.grant_lease(grant.host, Lease { fence, boot: grant.boot, at_ms: state.now_ms, ttl_ms });
    draft.put(Host {
        id: grant.host,
        name: grant.name,
        node,
        driver: grant.driver,
        capacity: grant.capacity,
        reserved: grant.reserved,
        status: Status::Ready,
        boot: grant.boot,
        fence,
        foreign: grant.foreign,
        schedule: old.as_ref().map(|old| old.schedule).unwrap_or_default(),
        drain: old.as_ref().and_then(|old| old.drain),
        pools: old.as_ref().map(|old| old.pools.clone()).unwrap_or_default(),
        labels: old.map(|old| old.labels.clone()).unwrap_or_default(),
        shrank,
        // Its node tells as soon as it has seen it.
        fencing: Fencing::None,
        granted_ms: draft.state().now_ms,
        ended: None,
        revision: fence,
    });
    settle_operations(draft, grant.host);
    vm::clear_pools(draft);
    draft.reply_object("host", grant.host);
    Ok(())
}

fn label(
    draft: &mut Draft,
    id: HostId,
    changes: BTreeMap<Name, Option<String>>,
) -> Result<(), Rejected> {
    let host = draft.state().hosts.get(&id).ok_or_else(|| Rejected::not_found("host", id))?;
    let mut host = Host::clone(host);
    let mut violations = Vec::new();
    for (label, value) in changes {
        match value {
            Some(value) if value.len() > limit::LABEL_VALUE_BYTES_MAX => {
                let message = format!("has more than {} bytes", limit::LABEL_VALUE_BYTES_MAX);
                violations.push(Violation::new(format!("labels.{label}"), message));
            }
            Some(value) => drop(host.labels.insert(label, value)),
            None => drop(host.labels.remove(&label)),
        }
    }
    if host.labels.len() > limit::LABELS_MAX {
        let message = format!("a host has at most {}", limit::LABELS_MAX);
        violations.push(Violation::new("labels", message));
    }
    Rejected::unless_empty(violations)?;
    draft.put(host);
    draft.reply_object("host", id);
    Ok(())
}

/// Takes the lease of a host away at once.
pub(crate) fn lose(draft: &mut Draft, id: HostId) {
    draft.revoke_lease(id);
    if let Some(host) = draft.state().hosts.get(&id) {
        let host = Host { status: Status::Lost, ..Host::clone(host) };
        draft.put(host);
    }
    settle_operations(draft, id);
}

/// What a host's coming and going means for what is to be done on it.
fn settle_operations(draft: &mut Draft, id: HostId) {
    let state = draft.state();
    let ready = state.hosts.get(&id).is_some_and(|host| host.status == Status::Ready);
    let busy = |vm: &VmId| state.vms.get(vm).is_some_and(|vm| vm.operation.is_some());
    let vms: Vec<_> = state.instances_on(id).map(|body| body.vm).filter(busy).collect();
    operation::heard(draft, id, ready);
    for vm in vms {
        operation::begin(draft, vm);
        if draft.state().migration_of(vm).is_some() {
            operation::settle(draft, vm);
        }
    }
}

fn remove(draft: &mut Draft, id: HostId) -> Result<(), Rejected> {
    let state = draft.state();
    let host = state.hosts.get(&id).ok_or_else(|| Rejected::not_found("host", id))?;
    let bodies = state.instances_on(id).count();
    if bodies > 0 || host.status == Status::Ready {
        let message = match bodies {
            0 => format!(
                "host {} is in service; take it out of its node's configuration first",
                host.name
            ),
            n => format!(
                "host {} has {n} VMs, or what is left of them; delete them first",
                host.name
            ),
        };
        return Err(Rejected::new(Reason::HostInUse, message));
    }
    operation::settle_drain(draft, id);
    operation::host_gone(draft, id);
    draft.revoke_lease(id);
    canary::host_gone(draft, id);
    draft.delete::<Host>(id);
    draft.reply_object("host", id);
    Ok(())
}
