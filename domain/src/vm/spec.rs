//! What a user may ask of a VM.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::PlacementRules;
use crate::name::Name;

/// When a guest that ended by itself is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunPolicy {
    /// However it ended.
    Always,
    /// When it crashed, but not when it shut itself down.
    #[default]
    OnFailure,
    /// Never; the VM becomes stopped.
    Manual,
}

/// What becomes of a VM when its host is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failover {
    /// It waits for its host, with its disks. If the host is only cut off, the guest runs on.
    #[default]
    Stay,
    /// It is made anew on another host, with disks made from the image, as soon as it is known that its
    /// guest has ended. A guard ends the guest when its host cannot renew its lease.
    Rebuild,
    /// It is started on another host with its disks, which lie in a pool, as soon as it is known that its
    /// guest has ended. A guard ends the guest when its host cannot renew its lease.
    Restart,
}

impl Failover {
    /// Whether it is started on another host, and so ended when its own cannot renew its lease.
    #[must_use]
    pub const fn goes_elsewhere(self) -> bool {
        match self {
            Failover::Stay => false,
            Failover::Rebuild | Failover::Restart => true,
        }
    }

    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Failover::Stay => "stay",
            Failover::Rebuild => "rebuild",
            Failover::Restart => "restart",
        }
    }
}

/// The priority of a VM for which nobody gave one.
#[must_use]
pub const fn default_priority() -> u8 {
    50
}

/// What a network card is plugged into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A private network of the host with address translation.
    Nat,
    /// A bridge that the host's administrator made.
    Bridge(Name),
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// What it is plugged into.
    pub network: Network,
}

/// An empty disk beside the one that the image brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Size, MiB.
    pub size_mib: u32,
}

/// What a user wants a VM to be like. [`FIELDS`](super::FIELDS) says what may change when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Virtual CPUs, 1 to [`VCPUS_MAX`](crate::limit::VCPUS_MAX).
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// The image it boots from.
    pub image: Name,
    /// Size of the disk the image brings, MiB; 0 keeps the image's own size.
    #[serde(default)]
    pub root_disk_mib: u32,
    /// Further disks.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// The pool in which its disks lie; none for disks on its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// Network cards; none is a VM without a network.
    #[serde(default)]
    pub nics: Vec<Nic>,
    /// Appended to the kernel command line; only for images that are a kernel with an initrd.
    #[serde(default)]
    pub cmdline: String,
    /// cloud-init user data, handed over as a NoCloud seed.
    #[serde(default)]
    pub user_data: String,
    /// When a guest that ended by itself is started again.
    #[serde(default)]
    pub run_policy: RunPolicy,
    /// What becomes of it when its host is lost.
    #[serde(default)]
    pub failover: Failover,
    /// Of VMs that are to be started elsewhere the one with the higher priority goes first, 0 to
    /// [`PRIORITY_MAX`](crate::limit::PRIORITY_MAX).
    #[serde(default = "default_priority")]
    pub failover_priority: u8,
    /// VMs of the same project that are started elsewhere before it, if they are to be.
    #[serde(default)]
    pub failover_after: Vec<Name>,
    /// Refuses deletion until it is switched off.
    #[serde(default)]
    pub deletion_protection: bool,
    /// The one host it may be placed on. A pinned VM passes every other rule too.
    #[serde(default)]
    pub host: Option<Name>,
    /// Labels, for selectors.
    #[serde(default)]
    pub labels: BTreeMap<Name, String>,
    /// Where it is to be.
    #[serde(default, skip_serializing_if = "PlacementRules::is_default")]
    pub placement: PlacementRules,
}

impl VmSpec {
    /// Bytes of its texts of any length.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let labels = self.labels.iter().map(|(label, value)| label.as_str().len() + value.len());
        let rules = [&self.placement.host_labels, &self.placement.near, &self.placement.apart_from];
        let rules =
            rules.into_iter().flatten().map(|(label, value)| label.as_str().len() + value.len());
        self.user_data.len() + self.cmdline.len() + labels.chain(rules).sum::<usize>()
    }

    /// Disk space the VM may come to use on its host, MiB.
    #[must_use]
    pub fn disk_mib(&self) -> u64 {
        if self.pool.is_some() {
            return 0;
        }
        u64::from(self.root_disk_mib)
            + self.disks.iter().map(|disk| u64::from(disk.size_mib)).sum::<u64>()
    }
}
