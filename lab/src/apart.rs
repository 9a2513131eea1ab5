//! A simulated host apart from its node: a process of its own, whose bodies outlive it and the node.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use drivers::simulator;

/// The port where guests come from other hosts.
const GUESTS_PORT: u16 = 7300;

pub(crate) struct Apart {
    program: PathBuf,
    pub(crate) state: PathBuf,
    /// On the node's disk: it loses its power with that.
    durable: PathBuf,
    guests: SocketAddr,
    guard: PathBuf,
    /// The one that was started here. The node starts others.
    process: Option<Child>,
}

impl Apart {
    pub(crate) fn new(directory: &Path, programs: &Path, address: std::net::Ipv4Addr) -> Apart {
        Apart {
            program: programs.join("novacron-driver-simulator"),
            state: directory.join("d"),
            durable: directory.join("data/fences"),
            guests: (address, GUESTS_PORT).into(),
            guard: crate::guard::socket(directory),
            process: None,
        }
    }

    /// What a cluster.toml says of the host.
    pub(crate) fn text(&self) -> String {
        format!(
            "driver = \"libvirt\"\nprogram = \"{}\"\nstate_directory = \"{}\"\nuri = \"{}\"\n\
             migration_uri = \"{}\"\nguard = \"{}\"\n",
            self.program.display(),
            self.state.display(),
            self.uri(),
            self.migration_uri(),
            self.guard.display(),
        )
    }

    fn uri(&self) -> String {
        format!("simulator:{}", self.durable.display())
    }

    fn migration_uri(&self) -> String {
        format!("simulator:{}", self.guests)
    }

    /// Starts it, by a command that runs on the host, as its node would.
    pub(crate) fn start(&mut self, command: impl FnOnce(&Path) -> Command) -> Result<()> {
        std::fs::create_dir_all(&self.state)?;
        let log = self.state.join("driver.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = command(&self.program);
        command.arg("--socket").arg(self.state.join("driver.sock"));
        command.arg("--state").arg(&self.state);
        command.args(["--uri", &self.uri(), "--virt-type", "kvm"]);
        command.args(["--migration-uri", &self.migration_uri()]);
        command.arg("--guard").arg(&self.guard);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(mut before) = self.process.take() {
            // It has ended, or is about to: there would be no need for another one.
            before.kill()?;
            before.wait()?;
        }
        self.process = Some(command.spawn().context("cannot start a host's driver")?);
        Ok(())
    }

    /// See [`simulator::lose_power`].
    pub(crate) fn lose_power(&self) -> Result<()> {
        Ok(simulator::lose_power(&self.state)?)
    }
}
