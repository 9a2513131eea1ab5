//! What may change in a VM's spec, and when the change takes.

use super::VmSpec;
use crate::rejected::{Reason, Rejected};

/// When a changed field takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// At once, whatever the guest does.
    Live,
    /// When the body starts the next time.
    NextStart,
    /// It cannot change.
    Never,
}

/// Whether a field differs between two specs.
type Differs = fn(&VmSpec, &VmSpec) -> bool;

/// Every field of [`VmSpec`] and when a change of it takes. A test holds it complete.
pub const FIELDS: &[(&str, Takes, Differs)] = &[
    ("vcpus", Takes::NextStart, |a, b| a.vcpus != b.vcpus),
    ("memory_mib", Takes::NextStart, |a, b| a.memory_mib != b.memory_mib),
    ("image", Takes::Never, |a, b| a.image != b.image),
    ("root_disk_mib", Takes::Never, |a, b| a.root_disk_mib != b.root_disk_mib),
    ("disks", Takes::Never, |a, b| a.disks != b.disks),
    ("pool", Takes::Never, |a, b| a.pool != b.pool),
    ("nics", Takes::NextStart, |a, b| a.nics != b.nics),
    ("cmdline", Takes::NextStart, |a, b| a.cmdline != b.cmdline),
    ("user_data", Takes::Never, |a, b| a.user_data != b.user_data),
    ("run_policy", Takes::Live, |a, b| a.run_policy != b.run_policy),
    // A running guest's guard knows it as it was started.
    ("failover", Takes::NextStart, |a, b| a.failover != b.failover),
    ("failover_priority", Takes::Live, |a, b| a.failover_priority != b.failover_priority),
    ("failover_after", Takes::Live, |a, b| a.failover_after != b.failover_after),
    ("deletion_protection", Takes::Live, |a, b| a.deletion_protection != b.deletion_protection),
    ("host", Takes::Never, |a, b| a.host != b.host),
    ("labels", Takes::Live, |a, b| a.labels != b.labels),
    // When it is placed or moves the next time; what runs is not moved for it.
    ("placement", Takes::Live, |a, b| a.placement != b.placement),
];

/// When the whole change from `old` to `new` takes: the latest of its fields.
///
/// # Errors
/// [`Reason::FieldImmutable`], naming the field, when one of them never can.
pub(crate) fn check(old: &VmSpec, new: &VmSpec) -> Result<Takes, Rejected> {
    let mut takes = Takes::Live;
    for (field, when, differs) in FIELDS {
        match (differs(old, new), when) {
            (false, _) | (true, Takes::Live) => {}
            (true, Takes::NextStart) => takes = Takes::NextStart,
            (true, Takes::Never) => {
                let message = format!("spec.{field} can never change; create a new VM");
                return Err(Rejected::new(Reason::FieldImmutable, message));
            }
        }
    }
    Ok(takes)
}
