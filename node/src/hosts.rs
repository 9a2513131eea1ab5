//! From a `[[host]]` of the configuration to a host with a driver.

use std::{path::Path, sync::Arc};

use actors::LocalHost;
use anyhow::{Context, Result};
use domain::{
    host::Capacity,
    id::{BootId, HostId},
    name::Name,
};
use drivers::simulator::{Options, Simulator};
use newtype_uuid::GenericUuid;

use crate::config::HostSection;

/// The hosts of a configuration. Their identities are kept in the data directory.
///
/// # Errors
/// When an identity cannot be kept.
pub fn local_hosts(data: &Path, sections: &[HostSection]) -> Result<Vec<Arc<LocalHost>>> {
    let mut hosts = Vec::new();
    for section in sections {
        let name = Name::new(section.name.get_ref())?;
        let whole = Options::default();
        let options = Options {
            seed: seed(&name),
            capacity: section.capacity(whole.capacity),
            failures_per_mille: section.failures_per_mille,
            ..whole
        };
        let reserved = Capacity { memory_mib: section.reserved_memory_mib, ..Capacity::default() };
        hosts.push(simulated(kept_id(data, &name)?, name, reserved, options));
    }
    Ok(hosts)
}

/// A simulated host that has just booted.
#[must_use]
pub fn simulated(id: HostId, name: Name, reserved: Capacity, options: Options) -> Arc<LocalHost> {
    let boot = BootId::from_untyped_uuid(uuid::Uuid::now_v7());
    let driver = Arc::new(Simulator::new(options, boot));
    Arc::new(LocalHost { id, name, boot, reserved, driver })
}

/// The same name gives the same behaviour.
fn seed(name: &Name) -> u64 {
    name.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn kept_id(data: &Path, name: &Name) -> Result<HostId> {
    let directory = data.join("hosts");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(name.as_str());
    if let Ok(text) = std::fs::read_to_string(&path) {
        return text.trim().parse().with_context(|| format!("{} is damaged", path.display()));
    }
    let id = HostId::from_untyped_uuid(uuid::Uuid::now_v7());
    std::fs::write(&path, format!("{id}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(id)
}
