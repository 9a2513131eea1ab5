//! What a configuration says, in the terms of the parts that go by it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use actors::{FencingAgent, Receiver};
use domain::{host::Capacity, name::Name};
use raft_store::Timing;

use super::{Config, HostSection, ReceiverKind, TimingPreset, TracesSection};

impl Config {
    /// How fast things are expected to go on this node.
    #[must_use]
    pub fn timing(&self) -> Timing {
        let snapshot_entries = self.node.snapshot_entries.get();
        let preset = match self.cluster.timing {
            TimingPreset::Normal => Timing::default(),
            TimingPreset::Relaxed => Timing::relaxed(),
        };
        Timing { snapshot_entries, kept_entries: snapshot_entries / 4, ..preset }
    }

    /// Where this node listens for other nodes.
    ///
    /// # Panics
    /// Never: it was checked when the file was read.
    #[must_use]
    pub fn peer_listen(&self) -> SocketAddr {
        let address = self.node.peer_listen.as_ref().unwrap_or(&self.node.peer_address);
        address.get_ref().parse().expect("checked when the file was read")
    }

    /// Where this node listens for clients.
    ///
    /// # Panics
    /// Never: it was checked when the file was read.
    #[must_use]
    pub fn api_listen(&self) -> SocketAddr {
        let address = self.node.api_listen.as_ref().unwrap_or(&self.node.api_address);
        address.get_ref().parse().expect("checked when the file was read")
    }

    /// What cuts the power of hosts.
    ///
    /// # Panics
    /// Never: names were checked when the file was read.
    #[must_use]
    pub fn agents(&self) -> Arc<[FencingAgent]> {
        let agents = self.fencing.iter().map(|section| FencingAgent {
            host: Name::new(section.host.get_ref()).expect("checked when the file was read"),
            program: section.program.clone(),
            arguments: section.arguments.clone(),
            timeout: Duration::from_secs(section.timeout_seconds.get().into()),
        });
        agents.collect()
    }

    /// Who is told of alerts.
    ///
    /// # Errors
    /// Which of their files cannot be read, and why.
    pub fn receivers(&self) -> Result<Arc<[Receiver]>, String> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let receivers = self.receiver.iter().map(|section| {
            let bearer = section.bearer_file.as_ref().map(read).transpose()?;
            Ok(Receiver {
                name: Name::new(section.name.get_ref()).expect("checked when the file was read"),
                kind: match section.kind {
                    ReceiverKind::Alertmanager => actors::ReceiverKind::Alertmanager,
                    ReceiverKind::Webhook => actors::ReceiverKind::Webhook,
                },
                url: section.url.get_ref().clone(),
                bearer: bearer.map(|bearer| bearer.trim().to_owned()),
                authority: section.authority.as_ref().map(read).transpose()?,
                least: section.least,
            })
        });
        receivers.collect()
    }

    /// This node's name.
    ///
    /// # Panics
    /// Never: it was checked when the file was read.
    #[must_use]
    pub fn node_name(&self) -> Name {
        Name::new(self.node.name.get_ref()).expect("checked when the file was read")
    }
}

impl HostSection {
    /// What may be given out; what is not told is `whole`'s.
    #[must_use]
    pub fn capacity(&self, whole: Capacity) -> Capacity {
        Capacity {
            cpu_millicores: self.cpus.map_or(whole.cpu_millicores, |cpus| u64::from(cpus) * 1_000),
            memory_mib: self.memory_mib.unwrap_or(whole.memory_mib),
            disk_mib: self.disk_mib.unwrap_or(whole.disk_mib),
        }
    }
}

impl TracesSection {
    /// How traces are told of a node of this name.
    ///
    /// # Errors
    /// Why the certificates cannot be read.
    pub fn told_by(&self, node: &str) -> Result<telemetry::trace::Options, String> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(telemetry::trace::Options {
            endpoint: self.endpoint.get_ref().clone(),
            authority: self.authority.as_ref().map(read).transpose()?,
            percent: self.sample_percent,
            node: Some(node.to_owned()),
            version: env!("CARGO_PKG_VERSION"),
        })
    }
}
