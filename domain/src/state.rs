//! The state of the cluster: what every node holds in memory and agrees on.

mod alone;
mod record;

pub use alone::Anew;
pub use record::{Loader, Meta, Record, RecordError, Records};

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::{
    Revision,
    alert::{Alert, AlertKey, Rule, Silence, Trend, Voters},
    canary::Canary,
    cluster::{Cluster, Mark, PROTOCOL_FIRST},
    credential::Credential,
    event::Ring,
    host::{Capacity, Host, Lease},
    id::{Digest, HostId, ImageId, InstanceId, NodeId, OperationId, VmId},
    image::Image,
    instance::Instance,
    lock::{Lock, LockKey},
    migration_policy::MigrationPolicy,
    name::Name,
    node::{Condition, Node},
    operation::{Class, Grown, Operation, Turn},
    project::Project,
    request::Requests,
    setting::Setting,
    table::Table,
    token::JoinToken,
    vm::Vm,
};

/// The whole cluster. Persistent maps make a clone cost about a microsecond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Raised by a recovery that gives up on a majority.
    pub epoch: u16,
    /// The newest log entry in it.
    pub index: u64,
    /// Lease time, milliseconds.
    pub now_ms: u64,
    /// The hash of all entries so far, each with its effect.
    pub chain: Digest,
    /// The chain as it was at the last tick.
    pub mark: Mark,
    /// The protocol version that is in force.
    pub protocol_version: u32,
    /// The entry since which it is; 0 for the first.
    pub protocol_since: u64,
    /// Who the cluster is, once it is founded.
    pub cluster: Option<Cluster>,

    /// Projects by name.
    pub projects: Table<Project>,
    /// VMs.
    pub vms: Table<Vm>,
    /// Bodies.
    pub instances: Table<Instance>,
    /// Hosts.
    pub hosts: Table<Host>,
    /// Images.
    pub images: Table<Image>,
    /// Operations.
    pub operations: Table<Operation>,
    /// Locks that are held.
    pub locks: Table<Lock>,
    /// Settings that somebody set.
    pub settings: Table<Setting>,
    /// Migration policies.
    pub migration_policies: Table<MigrationPolicy>,
    /// Rules that say what must not be so.
    pub alert_rules: Table<Rule>,
    /// What they found.
    pub alerts: Table<Alert>,
    /// What people are not told of.
    pub silences: Table<Silence>,
    /// Members.
    pub nodes: Table<Node>,
    /// Join tokens.
    pub tokens: Table<JoinToken>,
    /// Credentials.
    pub credentials: Table<Credential>,

    /// Leases of hosts; see [`crate::host::Lease`] for why they are no rows.
    pub leases: OrdMap<HostId, Lease>,
    /// Workers that have grown. They are no rows either: they come and go with every wave.
    pub grown: OrdMap<Class, Grown>,
    /// What nodes said of themselves last.
    pub conditions: OrdMap<NodeId, Condition>,
    /// What is known of hosts by their canaries.
    pub canaries: OrdMap<HostId, Canary>,
    /// What the leader said of the voters last.
    pub voters: Option<Voters>,
    /// When rules are looked at again, lease time, milliseconds.
    pub alerts_look_ms: u64,
    /// What rules remember that look whether something rises.
    pub trends: OrdMap<AlertKey, Trend>,
    /// Requests that are remembered.
    pub requests: Requests,
    /// The newest events.
    pub events: Ring,

    // Secondary indexes; each is kept by its noun's `reindex`.
    pub(crate) vm_names: OrdMap<(Name, Name), VmId>,
    pub(crate) vms_by_image: OrdSet<(ImageId, VmId)>,
    pub(crate) unplaced: OrdSet<VmId>,
    pub(crate) neighbours: OrdSet<(Name, VmId)>,
    pub(crate) instances_by_vm: OrdMap<VmId, InstanceId>,
    pub(crate) spares_by_vm: OrdMap<VmId, InstanceId>,
    pub(crate) instances_by_host: OrdSet<(HostId, InstanceId)>,
    pub(crate) used: OrdMap<HostId, Capacity>,
    pub(crate) movable: OrdMap<HostId, Capacity>,
    pub(crate) host_names: OrdMap<Name, HostId>,
    pub(crate) image_names: OrdMap<Name, ImageId>,
    pub(crate) operations_open: OrdSet<(u64, OperationId)>,
    pub(crate) operations_ended: OrdSet<(Revision, OperationId)>,
    /// By the VMs that they are of.
    pub(crate) operations_stuck: OrdSet<(Option<VmId>, OperationId)>,
    pub(crate) locks_by_end: OrdSet<(u64, LockKey)>,
    pub(crate) operations_by_parent: OrdSet<(OperationId, OperationId)>,
    pub(crate) operations_waiting: OrdMap<Class, OrdSet<Turn>>,
    pub(crate) operations_working: OrdMap<Class, u64>,
    pub(crate) operations_by_host: OrdSet<(HostId, OperationId)>,
}

impl Default for State {
    fn default() -> State {
        State {
            epoch: 1,
            index: 0,
            now_ms: 0,
            chain: Digest::ZERO,
            mark: Mark { index: 0, chain: Digest::ZERO },
            protocol_version: PROTOCOL_FIRST,
            protocol_since: 0,
            cluster: None,
            projects: Table::new(),
            vms: Table::new(),
            instances: Table::new(),
            hosts: Table::new(),
            images: Table::new(),
            operations: Table::new(),
            locks: Table::new(),
            settings: Table::new(),
            migration_policies: Table::new(),
            alert_rules: Table::new(),
            alerts: Table::new(),
            silences: Table::new(),
            nodes: Table::new(),
            tokens: Table::new(),
            credentials: Table::new(),
            leases: OrdMap::new(),
            grown: OrdMap::new(),
            conditions: OrdMap::new(),
            canaries: OrdMap::new(),
            voters: None,
            alerts_look_ms: 0,
            trends: OrdMap::new(),
            requests: Requests::default(),
            events: Ring::default(),
            vm_names: OrdMap::new(),
            vms_by_image: OrdSet::new(),
            unplaced: OrdSet::new(),
            neighbours: OrdSet::new(),
            instances_by_vm: OrdMap::new(),
            spares_by_vm: OrdMap::new(),
            instances_by_host: OrdSet::new(),
            used: OrdMap::new(),
            movable: OrdMap::new(),
            host_names: OrdMap::new(),
            image_names: OrdMap::new(),
            operations_open: OrdSet::new(),
            operations_ended: OrdSet::new(),
            operations_stuck: OrdSet::new(),
            locks_by_end: OrdSet::new(),
            operations_by_parent: OrdSet::new(),
            operations_waiting: OrdMap::new(),
            operations_working: OrdMap::new(),
            operations_by_host: OrdSet::new(),
        }
    }
}

impl State {
    /// The newest entry in it, as a revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision::new(self.epoch, self.index)
    }

    /// The VMs of one project, by name.
    pub fn vms_in(&self, project: &Name) -> impl Iterator<Item = &Arc<Vm>> {
        self.vms_from(project, None)
    }

    /// Those of them whose names are `first` or come after it; all without one.
    pub fn vms_from(&self, project: &Name, first: Option<Name>) -> impl Iterator<Item = &Arc<Vm>> {
        let from = (project.clone(), first.unwrap_or_else(Name::first));
        self.vm_names
            .range(from..)
            .take_while(move |((of, _), _)| of == project)
            .filter_map(|(_, id)| self.vms.get(id))
    }

    /// The VMs that no host has, oldest id first.
    pub fn unplaced(&self) -> impl Iterator<Item = &Arc<Vm>> {
        self.unplaced.iter().filter_map(|id| self.vms.get(id))
    }

    /// How many operations are unfinished.
    #[must_use]
    pub fn open_operations(&self) -> usize {
        self.operations_open.len()
    }

    /// How many operations need a person.
    #[must_use]
    pub fn stuck_operations(&self) -> usize {
        self.operations_stuck.len()
    }

    /// Moves on to an entry that changes nothing here: a new leader's blank, a membership change.
    #[must_use]
    pub fn skip(&self, index: u64) -> State {
        debug_assert!(index > self.index || self.index == 0, "{index} after {}", self.index);
        State { index, ..self.clone() }
    }
}
