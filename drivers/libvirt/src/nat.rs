//! The network that `nat` means: private to the host, with address translation.

use drivers::{DriverError, ErrorKind};
use serde::Serialize;

/// Its name. The driver makes it when it is missing.
pub(crate) const NETWORK: &str = "novacron-nat";

#[derive(Serialize)]
#[serde(rename = "network")]
struct Network {
    name: &'static str,
    forward: Mode,
    bridge: BridgeName,
    ip: Ip,
}

#[derive(Serialize)]
struct Mode {
    #[serde(rename = "@mode")]
    mode: &'static str,
}

#[derive(Serialize)]
struct BridgeName {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@stp")]
    stp: &'static str,
    #[serde(rename = "@delay")]
    delay: u8,
}

#[derive(Serialize)]
struct Ip {
    #[serde(rename = "@address")]
    address: &'static str,
    #[serde(rename = "@netmask")]
    netmask: &'static str,
    dhcp: Dhcp,
}

#[derive(Serialize)]
struct Dhcp {
    range: Range,
}

#[derive(Serialize)]
struct Range {
    #[serde(rename = "@start")]
    start: &'static str,
    #[serde(rename = "@end")]
    end: &'static str,
}

/// The definition of the network that `nat` means.
pub(crate) fn definition() -> Result<String, DriverError> {
    let network = Network {
        name: NETWORK,
        forward: Mode { mode: "nat" },
        bridge: BridgeName { name: "novacron0", stp: "off", delay: 0 },
        ip: Ip {
            address: "192.168.222.1",
            netmask: "255.255.255.0",
            dhcp: Dhcp { range: Range { start: "192.168.222.10", end: "192.168.222.250" } },
        },
    };
    quick_xml::se::to_string(&network)
        .map_err(|error| DriverError::new(ErrorKind::Permanent, error.to_string()))
}
