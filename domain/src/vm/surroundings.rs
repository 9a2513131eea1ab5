//! Where a VM may be beside others: rules about VMs of its project, by their labels.
//!
//! A rule names a domain: the label of hosts that tells which of them fail together, such as `rack`. Without
//! one each host is a domain of its own. To be apart goes both ways: a VM does not come to where one is that
//! is to be apart from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Vm;
use crate::{
    State,
    host::Host,
    id::{HostId, VmId},
    instance::Role,
    name::Name,
};

/// Which of the possible hosts is best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scoring {
    /// The emptiest: the loss of a host costs the fewest VMs.
    #[default]
    Spread,
    /// The fullest: hosts that are not needed stay empty.
    Pack,
}

impl Scoring {
    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Scoring::Spread => "spread",
            Scoring::Pack => "pack",
        }
    }
}

/// Where a VM is to be. It holds when the VM is placed or moves; what runs is not moved for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlacementRules {
    /// Labels that its host has.
    pub host_labels: BTreeMap<Name, String>,
    /// It is where VMs with these labels are, when there are any.
    pub near: BTreeMap<Name, String>,
    /// It is not where VMs with these labels are.
    pub apart_from: BTreeMap<Name, String>,
    /// The label of hosts that `near` and `apart_from` speak of; the host itself when there is none.
    pub domain: Option<Name>,
    /// Which of the possible hosts is best.
    pub scoring: Scoring,
}

impl PlacementRules {
    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == PlacementRules::default()
    }

    /// Whether it speaks of other VMs.
    #[must_use]
    pub fn has_neighbours(&self) -> bool {
        !self.near.is_empty() || !self.apart_from.is_empty()
    }
}

/// A domain: the label and its value; without a label, one host.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Domain {
    Host(HostId),
    Labelled(Name, String),
}

impl Domain {
    /// The one that a host is in; hosts without the label are in none.
    fn of(host: &Host, label: Option<&Name>) -> Option<Domain> {
        match label {
            None => Some(Domain::Host(host.id)),
            Some(label) => {
                host.labels.get(label).map(|value| Domain::Labelled(label.clone(), value.clone()))
            }
        }
    }

    fn has(&self, host: &Host) -> bool {
        match self {
            Domain::Host(id) => *id == host.id,
            Domain::Labelled(label, value) => host.labels.get(label) == Some(value),
        }
    }

    fn words(&self) -> String {
        match self {
            Domain::Host(_) => "there".to_owned(),
            Domain::Labelled(label, value) => format!("in {label} {value}"),
        }
    }
}

/// Where a VM may be, as things are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Domains where it may not be, each with the VM that is there.
    away: Vec<(Domain, Name)>,
    /// Domains of which one must be its; any, when there is no list.
    near: Option<Vec<(Domain, Name)>>,
}

impl Surroundings {
    /// What the rules of a VM, and those of others about it, mean now. `planned` is where VMs are that a
    /// plan has placed.
    #[must_use]
    pub fn of(state: &State, vm: &Vm, planned: &[(VmId, HostId)]) -> Surroundings {
        let rules = &vm.spec.placement;
        let mut surroundings = Surroundings::default();
        if vm.spec.labels.is_empty() && !rules.has_neighbours() {
            return surroundings;
        }
        let others = state.vms_with_neighbours(&vm.project).filter(|other| other.id != vm.id);
        for other in others {
            let rules = &other.spec.placement;
            if matches(&rules.apart_from, vm) {
                let at = domains(state, other, rules.domain.as_ref(), planned);
                surroundings.away.extend(at.map(|domain| (domain, other.name.clone())));
            }
        }
        if !rules.has_neighbours() {
            return surroundings;
        }
        let mut near = Vec::new();
        for other in state.vms_in(&vm.project).filter(|other| other.id != vm.id) {
            let label = rules.domain.as_ref();
            if matches(&rules.apart_from, other) {
                let at = domains(state, other, label, planned);
                surroundings.away.extend(at.map(|domain| (domain, other.name.clone())));
            }
            if matches(&rules.near, other) {
                // Where nobody can go any more nobody is waited for.
                let at = hosts(state, other, planned).filter(|host| host.takes_bodies());
                let at = at.filter_map(|host| Domain::of(host, label));
                near.extend(at.map(|domain| (domain, other.name.clone())));
            }
        }
        surroundings.near = Some(near).filter(|near| !near.is_empty());
        surroundings
    }

    /// Whether any host will do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.away.is_empty() && self.near.is_none()
    }

    /// Why the VM may not be on a host, worded to follow a count of hosts.
    #[must_use]
    pub fn refusal(&self, host: &Host) -> Option<String> {
        if let Some((domain, other)) = self.away.iter().find(|(domain, _)| domain.has(host)) {
            return Some(format!("to be apart from VM {other}, which is {}", domain.words()));
        }
        let near = self.near.as_ref()?;
        if near.iter().any(|(domain, _)| domain.has(host)) {
            return None;
        }
        let (domain, other) = near.first()?;
        let elsewhere = match domain {
            Domain::Host(_) => "elsewhere".to_owned(),
            Domain::Labelled(..) => domain.words(),
        };
        Some(format!("to be near VM {other}, which is {elsewhere}"))
    }
}

/// Whether a VM has all of some labels. No labels are nobody's.
fn matches(labels: &BTreeMap<Name, String>, vm: &Vm) -> bool {
    !labels.is_empty()
        && labels.iter().all(|(label, value)| vm.spec.labels.get(label) == Some(value))
}

/// The hosts on which a VM is, or is about to be.
fn hosts<'a>(
    state: &'a State,
    vm: &Vm,
    planned: &'a [(VmId, HostId)],
) -> impl Iterator<Item = &'a Host> + 'a {
    let id = vm.id;
    let bodies = [state.instance_of(id), state.spare_of(id)];
    let bodies = bodies.into_iter().flatten().filter(|body| body.role != Role::Retiring);
    let planned = planned.iter().filter(move |(planned, _)| *planned == id).map(|(_, host)| *host);
    let hosts = bodies.map(|body| body.host).chain(planned);
    hosts.filter_map(|host| state.hosts.get(&host).map(|host| &**host))
}

/// The domains in which a VM is, or is about to be.
fn domains<'a>(
    state: &'a State,
    vm: &Vm,
    label: Option<&'a Name>,
    planned: &'a [(VmId, HostId)],
) -> impl Iterator<Item = Domain> + 'a {
    hosts(state, vm, planned).filter_map(move |host| Domain::of(host, label))
}

/// Why a host's labels are not those that a VM wants, worded to follow a count of hosts.
#[must_use]
pub fn missing_label(rules: &PlacementRules, host: &Host) -> Option<String> {
    let wanted = rules.host_labels.iter();
    let mut missing = wanted.filter(|(label, value)| host.labels.get(*label) != Some(*value));
    missing.next().map(|(label, value)| format!("without label {label}={value}"))
}

impl State {
    /// The VMs of a project whose rules speak of others.
    fn vms_with_neighbours(&self, project: &Name) -> impl Iterator<Item = &std::sync::Arc<Vm>> {
        use newtype_uuid::GenericUuid;
        let from = (project.clone(), VmId::from_untyped_uuid(uuid::Uuid::nil()));
        self.neighbours
            .range(from..)
            .take_while(move |(of, _)| of == project)
            .filter_map(|(_, id)| self.vms.get(id))
    }
}
