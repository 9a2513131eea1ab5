//! Hosts and images.

use domain::{
    State,
    host::{Host, Schedule},
    id::Digest,
    image::{File, Image, Part},
    rejected::Rejected,
};

use super::invalid;
use crate::v1;

/// A host as the API shows it.
#[must_use]
pub fn host(state: &State, host: &Host) -> v1::Host {
    let node = state.nodes.get(&host.node);
    let (whole, used) = (host.allocatable(), state.used_on(host.id));
    v1::Host {
        id: host.id.to_string(),
        name: host.name.to_string(),
        node: node.map(|node| node.name.to_string()).unwrap_or_default(),
        driver: host.driver.to_string(),
        status: host.status.as_str().to_owned(),
        cpu_millicores: whole.cpu_millicores,
        memory_mib: whole.memory_mib,
        disk_mib: whole.disk_mib,
        used_cpu_millicores: used.cpu_millicores,
        used_memory_mib: used.memory_mib,
        used_disk_mib: used.disk_mib,
        vms: u32::try_from(state.instances_on(host.id).count()).unwrap_or(u32::MAX),
        foreign: host.foreign,
        etag: host.revision.as_u64(),
        schedule: match host.schedule {
            Schedule::Draining if state.instances_on(host.id).next().is_none() => "drained",
            Schedule::Open | Schedule::Cordoned | Schedule::Draining => host.schedule.as_str(),
        }
        .to_owned(),
        fencing: host.fencing.as_str().to_owned(),
        ended: host.ended.map(|ended| ended.as_str().to_owned()).unwrap_or_default(),
        pools: host.pools.keys().map(ToString::to_string).collect(),
        labels: host.labels.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
    }
}

/// An image as the API shows it.
#[must_use]
pub fn image(state: &State, image: &Image) -> v1::Image {
    let names = image.holders.iter().filter_map(|node| state.nodes.get(node));
    v1::Image {
        id: image.id.to_string(),
        name: image.name.to_string(),
        files: image.files.iter().map(file).collect(),
        origin: image.origin.clone(),
        vms: u32::try_from(state.users_of(image.id)).unwrap_or(u32::MAX),
        etag: image.revision.as_u64(),
        holders: names.map(|node| node.name.to_string()).collect(),
    }
}

fn file(file: &File) -> v1::ImageFile {
    v1::ImageFile {
        part: file.part.as_str().to_owned(),
        sha256: file.sha256.to_string(),
        size_bytes: file.size_bytes,
    }
}

/// Reads a file of an image.
///
/// # Errors
/// The field that cannot be read.
pub fn read_file(file: &v1::ImageFile) -> Result<File, Rejected> {
    let part = Part::named(&file.part)
        .ok_or_else(|| invalid("files.part", "use qcow2, raw, kernel or initrd"))?;
    let sha256 = Digest::from_hex(&file.sha256)
        .ok_or_else(|| invalid("files.sha256", "must be 64 hexadecimal digits"))?;
    Ok(File { part, sha256, size_bytes: file.size_bytes })
}
