//! The agent in a guest, if it has one: QEMU's own, which distributions bring as `qemu-guest-agent`.

use domain::id::VmId;
use drivers::{DriverError, ErrorKind};
use serde::Deserialize;
use virt::domain::Domain;

use crate::host::Inner;

/// The name of the port on which a guest's agent listens.
pub(crate) const PORT: &str = "org.qemu.guest_agent.0";
/// How long an agent is given to answer, seconds.
const PATIENCE_S: i32 = 5;
const PING: &str = r#"{"execute":"guest-ping"}"#;

/// Of a running domain's definition, which of its ports the guest has opened.
#[derive(Deserialize)]
struct Live {
    devices: Devices,
}

#[derive(Deserialize)]
struct Devices {
    #[serde(default)]
    channel: Vec<Channel>,
}

#[derive(Deserialize)]
struct Channel {
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    #[serde(rename = "@name")]
    name: Option<String>,
    #[serde(rename = "@state")]
    state: Option<String>,
}

impl Inner {
    /// Whether the guest's agent answers; none when nothing in the guest listens for it.
    pub(crate) fn answers(&self, vm: VmId) -> Result<Option<bool>, DriverError> {
        let domain = self.existing(vm)?;
        if !self.listens(&domain)? {
            return Ok(None);
        }
        Ok(Some(domain.qemu_agent_command(PING, PATIENCE_S, 0).is_ok()))
    }

    fn listens(&self, domain: &Domain) -> Result<bool, DriverError> {
        let live = domain.xml_desc(0).map_err(|error| self.failed(&error))?;
        let live: Live = quick_xml::de::from_str(&live).map_err(|error| {
            let message = format!("the domain's definition cannot be read: {error}");
            DriverError::new(ErrorKind::Protocol, message)
        })?;
        let targets = live.devices.channel.into_iter().filter_map(|channel| channel.target);
        let ours = |target: Target| {
            target.name.as_deref() == Some(PORT) && target.state.as_deref() == Some("connected")
        };
        Ok(targets.into_iter().any(ours))
    }
}
