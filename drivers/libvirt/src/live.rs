//! What libvirt says of a domain that is there.

use drivers::{DriverError, ErrorKind};
use serde::{Deserialize, de::IgnoredAny};

#[derive(Deserialize)]
struct Live {
    devices: LiveDevices,
}

#[derive(Deserialize)]
struct LiveDevices {
    #[serde(default)]
    disk: Vec<LiveDisk>,
}

#[derive(Deserialize)]
struct LiveDisk {
    target: LiveTarget,
    readonly: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct LiveTarget {
    #[serde(rename = "@dev")]
    device: String,
}

/// The disks that a guest writes to, by the names that it has for them.
pub(crate) fn written_disks(domain: &virt::domain::Domain) -> Result<Vec<String>, DriverError> {
    let text = domain.xml_desc(0).map_err(|error| crate::error::libvirt(&error))?;
    let live: Live = quick_xml::de::from_str(&text).map_err(|error| {
        DriverError::new(ErrorKind::Protocol, format!("libvirt's definition: {error}"))
    })?;
    let written = live.devices.disk.into_iter().filter(|disk| disk.readonly.is_none());
    Ok(written.map(|disk| disk.target.device).collect())
}

/// The host in a libvirt address: `qemu+tcp://HOST/system`.
pub(crate) fn host_of(address: &str) -> Option<&str> {
    let rest = address.split_once("://")?.1;
    let host = rest.split(['/', '?']).next()?;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let bare = match host.rsplit_once(':') {
        // A port, unless the colon is one of an IPv6 address.
        Some((bare, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => bare,
        _ => host,
    };
    (!bare.is_empty()).then_some(bare)
}
