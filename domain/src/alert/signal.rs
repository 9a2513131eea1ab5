//! What rules may look at. All of it is in the state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Rule, Subject};
use crate::{
    State,
    host::{self, Host, Schedule},
    name::Name,
    node::Condition,
    operation::Class,
    vm::{Desired, Phase, Vm},
};

/// What a rule looks at: a whole number for each subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Whether a VM should run and does not.
    VmDown,
    /// Whether a VM's guest runs.
    VmRunning,
    /// Whether a host is heard of.
    HostUp,
    /// Voters that are not heard of.
    SilentVoters,
    /// How many more voters may be lost.
    LosableVoters,
    /// Operations that are stuck.
    StuckOperations,
    /// For how long the next operation of a queue has waited, seconds.
    QueueAgeS,
    /// Use of a node's disk, percent.
    DiskUsedPercent,
    /// The slowest sync of a node's log within the last half minute, milliseconds.
    SyncMs,
    /// Days until a node's certificate expires.
    CertificateDays,
    /// By how much a node's clock differs from the leader's, milliseconds.
    ClockSkewMs,
    /// Canaries of a host that have failed, one after the other.
    CanaryFailures,
}

/// What a signal is.
pub struct Definition {
    /// The name in the API and the CLI; its last word is the unit, where there is one.
    pub name: &'static str,
    /// Of what there is one each.
    pub of: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// Whether rules may name a project.
    pub is_of_vms: bool,
    /// Whether rules may name labels.
    pub has_labels: bool,
    /// Whether it is an amount that may rise.
    pub can_rise: bool,
}

const fn of_vms(name: &'static str, meaning: &'static str) -> Definition {
    Definition { name, of: "VM", meaning, is_of_vms: true, has_labels: true, can_rise: false }
}

const fn amount(name: &'static str, of: &'static str, meaning: &'static str) -> Definition {
    Definition { name, of, meaning, is_of_vms: false, has_labels: false, can_rise: true }
}

/// What a rule found: of what, and how much.
pub(super) type Found = (Subject, i64);

impl Signal {
    /// Every signal.
    pub const ALL: [Signal; 12] = [
        Signal::VmDown,
        Signal::VmRunning,
        Signal::HostUp,
        Signal::SilentVoters,
        Signal::LosableVoters,
        Signal::StuckOperations,
        Signal::QueueAgeS,
        Signal::DiskUsedPercent,
        Signal::SyncMs,
        Signal::CertificateDays,
        Signal::ClockSkewMs,
        Signal::CanaryFailures,
    ];

    /// What it is.
    #[must_use]
    pub const fn definition(self) -> Definition {
        match self {
            Signal::VmDown => {
                of_vms("vm-down", "1 for a VM that should run and does not, 0 for one that does")
            }
            Signal::VmRunning => {
                of_vms("vm-running", "1 for a VM whose guest runs, 0 for any other")
            }
            Signal::HostUp => Definition {
                name: "host-up",
                of: "host",
                meaning: "1 for a host that is heard of, 0 for one that is lost",
                is_of_vms: false,
                has_labels: true,
                can_rise: false,
            },
            Signal::SilentVoters => {
                amount("silent-voters", "cluster", "voters that the leader does not hear of")
            }
            Signal::LosableVoters => amount(
                "losable-voters",
                "cluster",
                "how many more voters may be lost before nothing can be decided, in a cluster of three nodes or more",
            ),
            Signal::StuckOperations => {
                amount("stuck-operations", "cluster", "operations that are stuck")
            }
            Signal::QueueAgeS => amount(
                "queue-age-s",
                "queue",
                "for how long the next operation of a class has waited for a worker, seconds",
            ),
            Signal::DiskUsedPercent => {
                amount("disk-used-percent", "node", "use of the disk under the node's data")
            }
            Signal::SyncMs => amount(
                "sync-ms",
                "node",
                "the slowest sync of the node's log within the last half minute, milliseconds",
            ),
            Signal::CertificateDays => {
                amount("certificate-days", "node", "days until the node's certificate expires")
            }
            Signal::ClockSkewMs => amount(
                "clock-skew-ms",
                "node",
                "by how much the node's clock differs from the leader's, milliseconds",
            ),
            Signal::CanaryFailures => amount(
                "canary-failures",
                "host",
                "canaries that have failed on the host, one after the other",
            ),
        }
    }

    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.definition().name
    }
}

/// What a rule finds, each subject once.
pub(super) fn find(state: &State, rule: &Rule, wall_ms: u64) -> Vec<Found> {
    let whole = |value: i64| vec![(Subject::Cluster, value)];
    let nodes = |value: &dyn Fn(&Condition) -> i64| {
        let known = state.nodes.keys().filter_map(|node| Some((*node, state.condition_of(*node)?)));
        known.map(|(node, condition)| (Subject::Node(node), value(condition))).collect()
    };
    let has_labels = |labels: &BTreeMap<Name, String>| {
        rule.labels.iter().all(|(label, value)| labels.get(label) == Some(value))
    };
    match rule.signal {
        Signal::VmDown | Signal::VmRunning => {
            let vms = state.vms.values().filter(|vm| {
                rule.project.as_ref().is_none_or(|project| *project == vm.project)
                    && has_labels(&vm.spec.labels)
                    && !vm.deleting
            });
            let runs = |vm: &Vm| {
                let phase = state.phase(vm);
                matches!(
                    phase,
                    Phase::Running | Phase::Migrating | Phase::Pausing | Phase::Stopping
                )
            };
            let is_down = rule.signal == Signal::VmDown;
            let vms = vms.filter(|vm| !is_down || vm.desired == Desired::Running);
            vms.map(|vm| (Subject::Vm(vm.id), i64::from(runs(vm) != is_down))).collect()
        }
        Signal::HostUp => {
            let hosts = state.hosts.values().filter(|host| has_labels(&host.labels));
            let is_up = |host: &Host| i64::from(host.status == host::Status::Ready);
            hosts.map(|host| (Subject::Host(host.id), is_up(host))).collect()
        }
        Signal::SilentVoters => state.voters.map_or_else(Vec::new, |it| whole(it.silent.into())),
        // Fewer can never lose one: that is no news.
        Signal::LosableVoters => {
            let voters = state.voters.filter(|_| state.nodes.len() >= 3);
            voters.map_or_else(Vec::new, |it| whole(it.losable.into()))
        }
        Signal::StuckOperations => {
            whole(i64::try_from(state.stuck_operations()).unwrap_or(i64::MAX))
        }
        Signal::QueueAgeS => {
            let age_s = |class: Class| {
                let next = state.waiting(class).next();
                let age_ms = next.map_or(0, |it| state.now_ms.saturating_sub(it.accepted_ms));
                i64::try_from(age_ms / 1_000).unwrap_or(i64::MAX)
            };
            Class::ALL.into_iter().map(|class| (Subject::Queue(class), age_s(class))).collect()
        }
        // Before its first report it is not known, and no 0 from which it rises. It does not become empty by being
        // silent.
        Signal::DiskUsedPercent => {
            let known = state.nodes.values().filter(|it| state.conditions.contains_key(&it.id));
            known.map(|it| (Subject::Node(it.id), it.disk_used_percent.into())).collect()
        }
        Signal::SyncMs => nodes(&|condition| condition.slowest_sync_ms.into()),
        Signal::CertificateDays => nodes(&|condition| {
            const DAY_MS: i64 = 86_400_000;
            let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
            let until_ms = signed(condition.certificate_until_wall_ms);
            until_ms.saturating_sub(signed(wall_ms)).div_euclid(DAY_MS)
        }),
        Signal::ClockSkewMs => nodes(&|condition| condition.clock_skew_ms.saturating_abs()),
        Signal::CanaryFailures => {
            // Where none is made any more nothing is known.
            let known = state.canaries.iter().filter(|(host, _)| {
                let host = state.hosts.get(*host);
                state.has_canaries() && host.is_some_and(|it| it.schedule == Schedule::Open)
            });
            known.map(|(host, it)| (Subject::Host(*host), it.failures.into())).collect()
        }
    }
}

/// The project of something, and what people call it.
pub(super) fn named(state: &State, of: Subject) -> (Option<Name>, String) {
    let name = |name: Option<&Name>| name.map(Name::to_string).unwrap_or_default();
    match of {
        Subject::Cluster => (None, name(state.cluster.as_ref().map(|it| &it.name))),
        Subject::Node(id) => (None, name(state.nodes.get(&id).map(|it| &it.name))),
        Subject::Host(id) => (None, name(state.hosts.get(&id).map(|it| &it.name))),
        Subject::Vm(id) => {
            let vm = state.vms.get(&id);
            (vm.map(|vm| vm.project.clone()), name(vm.map(|vm| &vm.name)))
        }
        Subject::Queue(class) => (None, class.as_str().to_owned()),
    }
}
