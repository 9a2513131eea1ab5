//! A cluster of real processes: set up as on real machines, with `novacron init` and `join`.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use crate::{
    apart::Apart,
    config::{Config, Real},
    disk::Disk,
    guard::{self, Boot},
    hypervisor::{self, Hypervisor, LIBVIRT_DRIVER},
    network::{BRIDGE, Network},
    node::Node,
    options::{ClusterOptions, Fencing, Hosts, Storage},
    programs,
    root::Root,
    wall_clock::WallClock,
    watchdog::Watchdog,
};
use anyhow::{Context, Result, bail, ensure};
use cli::Access;
use client::Client;

/// A running cluster.
pub struct Cluster {
    pub(crate) options: ClusterOptions,
    // Before the network: they run in it.
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Option<Network>,
    /// What a client on this machine needs.
    pub access: Access,
    // Last: what runs is found by its files, and ended before they go.
    pub(crate) root: Root,
}

/// Where all hosts of a network of one's own reach a collector of traces.
pub const COLLECTOR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(BRIDGE), 4317);

/// Ports of nodes that have an address of their own.
const PEER_PORT: u16 = 7201;
const API_PORT: u16 = 7200;

/// What operator commands need: on the cluster's hosts, and on this machine.
const INSIDE: &str = "inside.json";
const ACCESS: &str = "access.json";

/// How long a node may take to be ready.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Sets a cluster up and starts it. `tell` hears of each step.
    ///
    /// # Errors
    /// When a step fails; what was started is ended again.
    pub async fn start(options: ClusterOptions, mut tell: impl FnMut(&str)) -> Result<Cluster> {
        ensure!(!options.real_too || options.hosts == Hosts::Apart, "only beside hosts apart");
        if options.real_too || options.hosts == Hosts::Real {
            let driver = options.programs.join(LIBVIRT_DRIVER);
            ensure!(
                driver.exists(),
                "{} is not built: `scripts/cargo-all build`",
                driver.display()
            );
        }
        let mut root = Root::make()?;
        if options.real_too {
            // What guests boot from lies on the nodes' disks.
            root.share()?;
        }
        let access = Access {
            endpoints: Vec::new(),
            authority: String::new(),
            server_name: String::new(),
            bearer: String::new(),
        };
        let network = match options.hosts {
            Hosts::Simulated => None,
            Hosts::Bridged | Hosts::Apart | Hosts::Real => {
                Some(Network::make(options.nodes + usize::from(options.spare), API_PORT)?)
            }
        };
        let mut cluster = Cluster { options, nodes: Vec::new(), network, access, root };
        let mut inside = Vec::new();
        for number in 0..cluster.options.nodes {
            if cluster.options.hosts == Hosts::Real || cluster.options.real_too {
                tell(&format!("hypervisor {}", number + 1));
            }
            inside.push(cluster.add(number)?);
        }
        std::fs::create_dir(cluster.pool())?;
        cluster.novacron(0, &["node", "make-pool", &cluster.pool().to_string_lossy()])?;
        tell("founding the cluster");
        let said = cluster.novacron(0, &["init", "--access-out", "access.json"])?;
        let access = std::fs::read_to_string(cluster.nodes[0].directory.join("access.json"))?;
        cluster.access = serde_json::from_str(&access)?;
        cluster.access.endpoints = inside.iter().map(ToString::to_string).collect();
        cluster.write(INSIDE, &cluster.access)?;
        if let Some(network) = &cluster.network {
            let doors = (0..inside.len()).map(|node| network.door(node).to_string());
            cluster.access.endpoints = doors.collect();
        }
        cluster.write(ACCESS, &cluster.access)?;
        cluster.run(0)?;
        cluster.await_ready(0).await?;
        for (setting, value) in &cluster.options.settings {
            cluster.novacron(0, &["setting", "set", setting, &value.to_string()])?;
        }
        let tokens = said.lines().filter_map(|line| line.trim().strip_prefix("novacron join "));
        let tokens: Vec<String> = tokens.map(str::to_owned).collect();
        for (number, token) in (1..cluster.options.nodes).zip(tokens) {
            tell(&format!("node {} joins", number + 1));
            cluster.novacron(number, &["join", &token])?;
            cluster.run(number)?;
            cluster.await_ready(number).await?;
        }
        if cluster.options.spare {
            cluster.add(cluster.options.nodes)?;
        }
        Ok(cluster)
    }

    /// Lets one more node join; the answer is its number. Clients that exist do not know it.
    ///
    /// # Errors
    /// When the hosts have a network of their own, or it cannot join.
    pub async fn grow(&mut self) -> Result<usize> {
        ensure!(self.network.is_none(), "the network has no place for one more host");
        let number = self.nodes.len();
        let api = self.add(number)?;
        self.access.endpoints.push(api.to_string());
        let said = self.novacron(0, &["token", "create", "--node", &format!("n{}", number + 1)])?;
        let token = said.trim().strip_prefix("novacron join ").context("there is no token")?;
        self.novacron(number, &["join", token])?;
        self.run(number)?;
        self.await_ready(number).await?;
        Ok(number)
    }

    /// Makes a node's place. The answer is its API's address, as its host's network has it.
    fn add(&mut self, number: usize) -> Result<SocketAddr> {
        let directory = self.root.path().join(format!("n{}", number + 1));
        std::fs::create_dir_all(&directory)?;
        let programs = self.options.programs.clone();
        let space = self.network.as_ref().map(|network| network.space(number));
        // A spare node has no host, but a place on the hosts' network.
        let spare = self.options.spare && number == self.options.nodes;
        let hosts = if spare { Hosts::Bridged } else { self.options.hosts };
        let real = hosts == Hosts::Real;
        let real_too = self.options.real_too && !spare;
        let hypervisor = match &self.network {
            Some(network) if real || real_too => {
                let (files, ledgers) = (directory.join("h"), self.ledgers());
                Some(Hypervisor::start(&files, number, network, &programs, &ledgers)?)
            }
            Some(_) | None => None,
        };
        let disk = match self.options.storage {
            Storage::Directory => None,
            Storage::Disk => Some(Disk::make(&directory.join("disk"), &directory.join("data"))?),
        };
        let (peer, api) = match space {
            Some(_) => {
                let address = Network::address(number);
                ((address, PEER_PORT).into(), (address, API_PORT).into())
            }
            None => (free_address()?, free_address()?),
        };
        let watched = real && self.options.fencing == Fencing::Watchdogs;
        let apart = (hosts == Hosts::Apart)
            .then(|| Apart::new(&directory, &programs, Network::address(number)));
        let mut node = Node {
            boot: real.then(|| Boot::first(&directory)).transpose()?,
            slow: self.options.slow_clock == Some(number),
            guarded: real && self.options.fencing != Fencing::None,
            watchdog: watched.then(|| Watchdog::make(&directory)).transpose()?,
            guard: None,
            wall_clock: self
                .options
                .movable_clocks
                .then(|| WallClock::make(&directory))
                .transpose()?,
            real_state: directory.join(if real { "d" } else { "r" }),
            directory,
            programs,
            spare,
            previous: self.options.previous.clone().filter(|_| !spare),
            space,
            hypervisor,
            apart,
            disk,
            process: None,
        };
        node.run_guard()?;
        let driver = real_too.then(|| hypervisor::write_driver(&node.directory, &node.programs));
        let driver = driver.transpose()?;
        let config = Config {
            number,
            nodes: self.options.nodes,
            data: &node.data(),
            peer,
            api,
            snapshot_entries: self.options.snapshot_entries.unwrap_or(match self.options.storage {
                Storage::Directory => 50_000,
                Storage::Disk => 1_000,
            }),
            has_host: !spare,
            apart: node.apart.as_ref(),
            real: node.hypervisor.as_ref().map(|hypervisor| Real {
                hypervisor,
                state: &node.real_state,
                program: driver.as_deref(),
            }),
            pool: &self.pool(),
            pace: self.options.pace,
            more_hosts: self.options.more_hosts,
            json_log: self.options.json_log,
            traces: self.options.traces,
            guard: node.guarded.then(|| guard::socket(&node.directory)),
            agents: match self.options.fencing {
                Fencing::None | Fencing::Guards | Fencing::Watchdogs => None,
                Fencing::GuardsAndAgents => {
                    Some((node.programs.join("novacron-lab-power"), self.root.path().to_owned()))
                }
            },
        };
        std::fs::write(node.directory.join("cluster.toml"), config.text())?;
        self.nodes.push(node);
        Ok(api)
    }

    /// Has the commands that run on the cluster's hosts use another access.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn write_access(&self, access: &Access) -> Result<()> {
        self.write(INSIDE, access)
    }

    fn write(&self, file: &str, access: &Access) -> Result<()> {
        let text = serde_json::to_string_pretty(access)?;
        Ok(std::fs::write(self.root.path().join(file), text)?)
    }

    /// Runs a command of `novacron` on a node's host and in its directory, to its end.
    ///
    /// # Errors
    /// With what it said, when it fails.
    pub fn novacron(&self, node: usize, arguments: &[&str]) -> Result<String> {
        self.novacron_for(None, node, arguments)
    }

    /// The same, as a part of a trace, a `traceparent`.
    ///
    /// # Errors
    /// As [`Cluster::novacron`].
    pub fn novacron_for(
        &self,
        trace: Option<&str>,
        node: usize,
        arguments: &[&str],
    ) -> Result<String> {
        let mut command = self.nodes[node].novacron();
        let access = self.root.path().join(INSIDE);
        command.args(arguments).env("NOVACRON_ACCESS", access);
        let output = command.envs(trace.map(|trace| ("TRACEPARENT", trace))).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("novacron {}: {}: {said}", arguments.join(" "), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Listens at [`COLLECTOR`], where traces are told with [`ClusterOptions::traces`].
    ///
    /// # Errors
    /// When the cluster has no network of its own.
    pub fn collector(&self) -> Result<TcpListener> {
        self.network.as_ref().context("it has no network of its own")?.listen(COLLECTOR.port())
    }

    /// A program of the system on a node's host: in its network.
    #[must_use]
    pub fn on_host(&self, node: usize, program: &str) -> Command {
        let mut command = self.nodes[node].command(program);
        command.env("PATH", programs::path());
        command
    }

    /// Where other hypervisors reach a node's, if it has one.
    #[must_use]
    pub fn migration_uri(&self, node: usize) -> Option<String> {
        self.nodes[node].hypervisor.as_ref().map(Hypervisor::migration_uri)
    }

    /// Where what guests have in memory comes to a node's hypervisor.
    #[must_use]
    pub fn memory_uri(&self, node: usize) -> String {
        format!("tcp://{}", Network::address(node))
    }

    /// Where a node's libvirt is reached, if it has one.
    #[must_use]
    pub fn libvirt_uri(&self, node: usize) -> Option<String> {
        self.nodes[node].hypervisor.as_ref().map(Hypervisor::uri)
    }

    /// Has `virsh` ask a node's libvirt for something; the answer is what it says.
    ///
    /// # Errors
    /// With what it complains of, and when the node has no libvirt.
    pub fn virsh(&self, node: usize, arguments: &[&str]) -> Result<String> {
        let uri = self.libvirt_uri(node).context("it has no libvirt")?;
        let mut command = self.on_host(node, "timeout");
        let said = command.args(["60", "virsh", "-q", "-c", &uri]).args(arguments).output()?;
        let complaint = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success(), "virsh {}: {complaint}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    }

    /// The file that operator commands take.
    #[must_use]
    pub fn access_file(&self) -> PathBuf {
        self.root.path().join(ACCESS)
    }

    /// What `novacron init` wrote into a file of a node's.
    ///
    /// # Errors
    /// When it is not there.
    pub fn access_of(&self, node: usize, file: &str) -> Result<Access> {
        let text = std::fs::read_to_string(self.nodes[node].directory.join(file))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// A copy of a node's file in which one bit is not as it was; the answer is its name.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn bend(&self, node: usize, file: &str) -> Result<String> {
        let directory = &self.nodes[node].directory;
        let mut bytes = std::fs::read(directory.join(file))?;
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).context("the file is empty")? ^= 1;
        let bent = format!("{file}.bent");
        std::fs::write(directory.join(&bent), bytes)?;
        Ok(bent)
    }

    /// Starts a node's process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&mut self, node: usize) -> Result<()> {
        let environment = self.options.broken.environment();
        self.nodes[node].run_apart(environment)?;
        self.nodes[node].run(environment)
    }

    /// Has a node begin again from a backup, as when all machines are lost. The others are ended. The answer is a
    /// client of the new cluster.
    ///
    /// # Errors
    /// When it cannot, or is not ready in time.
    pub async fn begin_again(&mut self, node: usize, backup: &Path) -> Result<Client> {
        const FILE: &str = "again.json";
        for node in 0..self.nodes.len() {
            self.kill(node)?;
        }
        self.wipe(node)?;
        let backup = backup.canonicalize()?;
        let backup = backup.to_str().context("a path is no text")?;
        self.novacron(node, &["init", "--restore", backup, "--access-out", FILE])?;
        let access = self.access_of(node, FILE)?;
        self.access = Access { endpoints: self.access.endpoints.clone(), ..access };
        self.run(node)?;
        self.await_ready(node).await?;
        self.client_with(vec![self.access.endpoints[node].clone()], PATIENCE)
    }

    /// Empties a node's data directory, as a new disk does.
    ///
    /// # Errors
    /// When it cannot be emptied.
    pub fn wipe(&self, node: usize) -> Result<()> {
        Ok(std::fs::remove_dir_all(self.nodes[node].data())?)
    }
}

/// An address that nobody listens on, and that this process has not handed out before: a node that is not started yet,
/// or was killed, keeps its own. It is below the ports that the kernel hands out: one of those could be somebody's
/// before the node listens.
///
/// # Errors
/// When none is found.
pub fn free_address() -> Result<SocketAddr> {
    const TRIES: usize = 64;
    const PORTS: Range<u16> = 10_240..32_768;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    for _ in 0..TRIES {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, PORTS.start + step)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no free port after {TRIES} tries")
}
