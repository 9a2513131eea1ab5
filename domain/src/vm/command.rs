//! What may be asked of VMs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Failover, Nic, RunPolicy, VmSpec};
use crate::{
    Revision,
    id::{HostId, OperationId, VmId},
    name::Name,
    operation::CopyWish,
};

/// A request about one VM. `operation` is the id under which the work may be followed; `etag`, when
/// given, must be the VM's revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum VmCommand {
    /// Promise a new VM. Since protocol version 1, as all of these.
    Create {
        /// The new VM's id, minted by the proposer.
        vm: VmId,
        /// Its project.
        project: Name,
        /// Its name, unique in the project.
        name: Name,
        /// What it is to be like.
        spec: Box<VmSpec>,
        /// Whether it is started; otherwise it is made ready and stays stopped.
        start: bool,
        /// The operation's id.
        operation: OperationId,
    },
    /// Change the spec.
    Update {
        /// The VM.
        vm: VmId,
        /// What changes.
        patch: Box<SpecPatch>,
        /// The revision the change is based on.
        etag: Option<Revision>,
    },
    /// Run the guest; also resumes a paused one.
    Start {
        /// The VM.
        vm: VmId,
        /// The operation's id.
        operation: OperationId,
    },
    /// Shut the guest down, or cut its power.
    Stop {
        /// The VM.
        vm: VmId,
        /// Cut the power at once; also overtakes an operation under way.
        force: bool,
        /// The operation's id.
        operation: OperationId,
    },
    /// Restart the guest within its body.
    Reboot {
        /// The VM.
        vm: VmId,
        /// The operation's id.
        operation: OperationId,
    },
    /// Let the guest stand still in memory.
    Pause {
        /// The VM.
        vm: VmId,
        /// The operation's id.
        operation: OperationId,
    },
    /// Let a paused guest go on.
    Resume {
        /// The VM.
        vm: VmId,
        /// The operation's id.
        operation: OperationId,
    },
    /// End the guest, remove its disks and forget the VM. Overtakes an operation under way.
    Delete {
        /// The VM.
        vm: VmId,
        /// The revision the decision is based on.
        etag: Option<Revision>,
        /// The operation's id.
        operation: OperationId,
    },
    /// Move the VM to another host, with its guest if that runs or is paused.
    Migrate {
        /// The VM.
        vm: VmId,
        /// The host it is to go to; any that can take it, when none is named.
        to: Option<HostId>,
        /// What is wanted otherwise than its policy says.
        wish: CopyWish,
        /// Of the migrations that wait, the one with the higher priority goes first.
        priority: u8,
        /// The operation's id.
        operation: OperationId,
    },
    /// Note why no host takes these VMs.
    Unplaceable(BTreeMap<VmId, String>),
}

/// A partial change of a spec: what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpecPatch {
    /// See [`VmSpec::vcpus`].
    pub vcpus: Option<u32>,
    /// See [`VmSpec::memory_mib`].
    pub memory_mib: Option<u32>,
    /// See [`VmSpec::nics`].
    pub nics: Option<Vec<Nic>>,
    /// See [`VmSpec::cmdline`].
    pub cmdline: Option<String>,
    /// See [`VmSpec::run_policy`].
    pub run_policy: Option<RunPolicy>,
    /// See [`VmSpec::failover`].
    pub failover: Option<Failover>,
    /// See [`VmSpec::failover_priority`].
    pub failover_priority: Option<u8>,
    /// See [`VmSpec::failover_after`].
    pub failover_after: Option<Vec<Name>>,
    /// See [`VmSpec::deletion_protection`].
    pub deletion_protection: Option<bool>,
    /// See [`VmSpec::labels`].
    pub labels: Option<BTreeMap<Name, String>>,
    /// The whole spec, as `apply` sends it. The other fields must then be absent.
    pub whole: Option<Box<VmSpec>>,
}

impl SpecPatch {
    /// The spec after the change.
    #[must_use]
    pub fn apply(self, old: &VmSpec) -> VmSpec {
        let mut new = self.whole.map_or_else(|| old.clone(), |whole| *whole);
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut new.vcpus, self.vcpus);
        set(&mut new.memory_mib, self.memory_mib);
        set(&mut new.nics, self.nics);
        set(&mut new.cmdline, self.cmdline);
        set(&mut new.run_policy, self.run_policy);
        set(&mut new.failover, self.failover);
        set(&mut new.failover_priority, self.failover_priority);
        set(&mut new.failover_after, self.failover_after);
        set(&mut new.deletion_protection, self.deletion_protection);
        set(&mut new.labels, self.labels);
        new
    }
}
