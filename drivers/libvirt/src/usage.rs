//! What guests use, as libvirt counts it.

use domain::id::VmId;
use drivers::{DriverError, ErrorKind, Usage};
use serde::Deserialize;
use virt::{connect::Connect, domain::Domain, sys};

use crate::{
    error::libvirt,
    host::{Inner, lock},
};

/// Of a running domain's definition, how its devices are called on the host.
#[derive(Deserialize)]
struct Live {
    devices: Devices,
}

#[derive(Deserialize)]
struct Devices {
    #[serde(default)]
    disk: Vec<Device>,
    #[serde(default)]
    interface: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    #[serde(rename = "@dev")]
    name: String,
}

/// Guests that are asked at one time. One whose QEMU hangs is not answered for, and holds one of the twenty workers of
/// libvirt's daemon; from a client it takes five requests at one time, and hears nothing more before one is answered.
pub(crate) const ASKED_MAX: usize = 3;

impl Inner {
    pub(crate) fn usage(&self, id: VmId) -> Result<Usage, DriverError> {
        let connect = self.measuring()?;
        let found = connect.lookup_domain_by_uuid_string(&id.to_string());
        found.map_err(Unread::Libvirt).and_then(|domain| read(&domain)).map_err(|error| match error
        {
            Unread::Libvirt(error) => {
                if !connect.is_alive().unwrap_or(false) {
                    *lock(&self.measuring) = None;
                }
                libvirt(&error)
            }
            Unread::Definition(error) => {
                let message = format!("the domain's definition cannot be read: {error}");
                DriverError::new(ErrorKind::Protocol, message)
            }
        })
    }

    fn measuring(&self) -> Result<Connect, DriverError> {
        let mut measuring = lock(&self.measuring);
        if let Some(connect) = &*measuring {
            return Ok(connect.clone());
        }
        let connect = self.connect_anew()?;
        *measuring = Some(connect.clone());
        Ok(connect)
    }
}

enum Unread {
    Libvirt(virt::error::Error),
    Definition(quick_xml::DeError),
}

impl From<virt::error::Error> for Unread {
    fn from(error: virt::error::Error) -> Unread {
        Unread::Libvirt(error)
    }
}

fn read(domain: &Domain) -> Result<Usage, Unread> {
    if !domain.is_active()? {
        return Ok(Usage::default());
    }
    let live = domain.xml_desc(0)?;
    let live: Live = quick_xml::de::from_str(&live).map_err(Unread::Definition)?;
    let mut usage = Usage { cpu_ns: domain.info()?.cpu_time, ..Usage::default() };
    for stat in domain.memory_stats(0)? {
        if stat.tag == sys::VIR_DOMAIN_MEMORY_STAT_RSS {
            usage.memory_mib = stat.val / 1_024;
        }
    }
    // A count that libvirt does not have is -1.
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    for disk in live.devices.disk.into_iter().filter_map(|disk| disk.target) {
        let stats = domain.block_stats(&disk.name)?;
        usage.disk_read_bytes += count(stats.rd_bytes);
        usage.disk_written_bytes += count(stats.wr_bytes);
    }
    for interface in live.devices.interface.into_iter().filter_map(|card| card.target) {
        // Counted at the host's end of the cable.
        let stats = domain.interface_stats(&interface.name)?;
        usage.network_received_bytes += count(stats.rx_bytes);
        usage.network_sent_bytes += count(stats.tx_bytes);
    }
    Ok(usage)
}
