//! What a host has and what a body takes.

use serde::{Deserialize, Serialize};

use crate::vm::VmSpec;

/// Amounts of what is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capacity {
    /// Processor time, thousandths of a CPU. A host counts its CPUs times its overcommit.
    pub cpu_millicores: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Disk space, MiB.
    pub disk_mib: u64,
}

impl Capacity {
    /// What a body of `spec` takes.
    #[must_use]
    pub fn of(spec: &VmSpec) -> Capacity {
        Capacity {
            cpu_millicores: u64::from(spec.vcpus) * 1000,
            memory_mib: u64::from(spec.memory_mib),
            disk_mib: spec.disk_mib(),
        }
    }

    /// Whether this much more fits beside `used` into `whole`.
    #[must_use]
    pub fn fits(self, whole: Capacity, used: Capacity) -> bool {
        self.shortage(whole, used).is_none()
    }

    /// The first amount that does not fit beside `used` into `whole`.
    #[must_use]
    pub fn shortage(self, whole: Capacity, used: Capacity) -> Option<&'static str> {
        let with = self.plus(used);
        if with.cpu_millicores > whole.cpu_millicores {
            Some("cpu")
        } else if with.memory_mib > whole.memory_mib {
            Some("memory")
        } else if with.disk_mib > whole.disk_mib {
            Some("disk")
        } else {
            None
        }
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Capacity) -> Capacity {
        Capacity {
            cpu_millicores: self.cpu_millicores.saturating_add(other.cpu_millicores),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            disk_mib: self.disk_mib.saturating_add(other.disk_mib),
        }
    }

    /// The greater of each amount.
    #[must_use]
    pub fn at_least(self, other: Capacity) -> Capacity {
        Capacity {
            cpu_millicores: self.cpu_millicores.max(other.cpu_millicores),
            memory_mib: self.memory_mib.max(other.memory_mib),
            disk_mib: self.disk_mib.max(other.disk_mib),
        }
    }

    /// The difference, never below nothing.
    #[must_use]
    pub fn minus(self, other: Capacity) -> Capacity {
        Capacity {
            cpu_millicores: self.cpu_millicores.saturating_sub(other.cpu_millicores),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            disk_mib: self.disk_mib.saturating_sub(other.disk_mib),
        }
    }
}
