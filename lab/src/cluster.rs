//! A cluster of real processes: set up as on real machines, with `novacron init` and `join`.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use cli::Access;
use client::{
    Client, Options,
    v1::{self, clusters_client::ClustersClient},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{disk::Disk, down, hypervisor::Hypervisor};

/// What the cluster is to be like.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many nodes.
    pub nodes: usize,
    /// Whether each node has a real hypervisor, or a simulated host.
    pub real: bool,
    /// The directory with the programs.
    pub programs: PathBuf,
    /// How each node keeps its data.
    pub storage: Storage,
}

/// How nodes keep their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// In a directory of this machine.
    #[default]
    Directory,
    /// On a disk of its own whose power can be cut; snapshots are made often.
    Disk,
    /// The same, and the log is never synced: to show that a test would notice.
    DiskNeverSynced,
}

struct Node {
    directory: PathBuf,
    process: Option<Child>,
    hypervisor: Option<Hypervisor>,
    disk: Option<Disk>,
}

/// A running cluster.
pub struct Cluster {
    root: tempfile::TempDir,
    options: ClusterOptions,
    nodes: Vec<Node>,
    /// What a client needs.
    pub access: Access,
}

/// How long a node may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Sets a cluster up and starts it. `tell` hears of each step.
    ///
    /// # Errors
    /// When a step fails; what was started is ended again.
    pub async fn start(options: ClusterOptions, mut tell: impl FnMut(&str)) -> Result<Cluster> {
        // Short: QEMU's sockets lie in it.
        let root = tempfile::Builder::new().prefix("nc").tempdir_in("/tmp")?;
        std::fs::write(root.path().join(down::OWNER), std::process::id().to_string())?;
        let access = Access {
            endpoints: Vec::new(),
            authority: String::new(),
            server_name: String::new(),
            bearer: String::new(),
        };
        let mut cluster = Cluster { root, options, nodes: Vec::new(), access };
        let mut addresses = Vec::new();
        for number in 0..cluster.options.nodes {
            let name = format!("n{}", number + 1);
            let directory = cluster.root.path().join(&name);
            std::fs::create_dir_all(&directory)?;
            let hypervisor = if cluster.options.real {
                tell(&format!("hypervisor {}", number + 1));
                let programs = cluster.options.programs.clone();
                let name = format!("h{}", number + 1);
                Some(Hypervisor::start(&directory.join("h"), &name, &programs)?)
            } else {
                None
            };
            let disk = match cluster.options.storage {
                Storage::Directory => None,
                Storage::Disk | Storage::DiskNeverSynced => {
                    Some(Disk::make(&directory.join("disk"), &directory.join("data"))?)
                }
            };
            let pair = (free()?, free()?);
            cluster.write_config(number, &directory, &pair, hypervisor.as_ref())?;
            addresses.push(pair.1);
            cluster.nodes.push(Node { directory, process: None, hypervisor, disk });
        }
        tell("founding the cluster");
        let said = cluster.novacron(0, &["init", "--access-out", "access.json"])?;
        let access = std::fs::read_to_string(cluster.nodes[0].directory.join("access.json"))?;
        cluster.access = serde_json::from_str(&access)?;
        cluster.access.endpoints = addresses;
        std::fs::write(cluster.access_file(), serde_json::to_string_pretty(&cluster.access)?)?;
        cluster.run(0)?;
        cluster.await_ready(0).await?;
        let tokens = said.lines().filter_map(|line| line.trim().strip_prefix("novacron join "));
        let tokens: Vec<String> = tokens.map(str::to_owned).collect();
        for (number, token) in (1..cluster.options.nodes).zip(tokens) {
            tell(&format!("node {} joins", number + 1));
            cluster.novacron(number, &["join", &token])?;
            cluster.run(number)?;
            cluster.await_ready(number).await?;
        }
        Ok(cluster)
    }

    fn write_config(
        &self,
        number: usize,
        directory: &Path,
        (peer, api): &(String, String),
        hypervisor: Option<&Hypervisor>,
    ) -> Result<()> {
        use std::fmt::Write;
        let expect: Vec<String> =
            (2..=self.options.nodes).map(|number| format!("\"n{number}\"")).collect();
        let mut text = format!(
            "[cluster]\nname = \"lab\"\nexpect = [{}]\ntiming = \"relaxed\"\n\n[node]\nname = \"n{}\"\n\
             data_directory = \"{}\"\npeer_address = \"{peer}\"\napi_address = \"{api}\"\n\
             snapshot_entries = {}\n\n[[host]]\nname = \"h{}\"\n",
            expect.join(", "),
            number + 1,
            data(directory).display(),
            match self.options.storage {
                Storage::Directory => 20_000,
                Storage::Disk | Storage::DiskNeverSynced => 1_000,
            },
            number + 1,
        );
        match hypervisor {
            Some(hypervisor) => write!(
                text,
                "driver = \"libvirt\"\nvirt_type = \"qemu\"\nuri = \"{}\"\nstate_directory = \"{}\"\n\
                 cpus = 8\nmemory_mib = 2048\n",
                hypervisor.uri(),
                directory.join("d").display(),
            )?,
            None => text.push_str("driver = \"simulator\"\n"),
        }
        std::fs::write(directory.join("cluster.toml"), text)?;
        Ok(())
    }

    /// Runs a command of `novacron` in a node's directory, to its end.
    ///
    /// # Errors
    /// With what it said, when it fails.
    pub fn novacron(&self, node: usize, arguments: &[&str]) -> Result<String> {
        let output = Command::new(self.options.programs.join("novacron"))
            .args(arguments)
            .current_dir(&self.nodes[node].directory)
            .env("NOVACRON_ACCESS", self.access_file())
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("novacron {}: {}: {said}", arguments.join(" "), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The file that operator commands take.
    #[must_use]
    pub fn access_file(&self) -> PathBuf {
        self.root.path().join("access.json")
    }

    /// Starts a node's process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&mut self, node: usize) -> Result<()> {
        let row = &mut self.nodes[node];
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(row.directory.join("node.log"))?;
        let mut command = Command::new(self.options.programs.join("novacron"));
        if self.options.storage == Storage::DiskNeverSynced {
            command.env("NOVACRON_TEST_NEVER_SYNC", "1");
        }
        let process = command
            .arg("run")
            .current_dir(&row.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start a node")?;
        row.process = Some(process);
        Ok(())
    }

    /// A client of one node alone.
    ///
    /// # Errors
    /// Never, for an access that was written by `novacron init`.
    pub fn client_of(&self, node: usize) -> Result<Client> {
        self.client_with(vec![self.access.endpoints[node].clone()], Duration::from_secs(2))
    }

    /// A client of all nodes.
    ///
    /// # Errors
    /// As [`Cluster::client_of`].
    pub fn client(&self) -> Result<Client> {
        self.client_with(self.access.endpoints.clone(), Duration::from_secs(60))
    }

    fn client_with(&self, endpoints: Vec<String>, deadline: Duration) -> Result<Client> {
        let access = self.access.clone();
        Ok(Client::new(Options {
            endpoints,
            authority: access.authority,
            server_name: access.server_name,
            bearer: access.bearer,
            deadline,
        })?)
    }

    /// Waits until a node answers a linearizable read.
    ///
    /// # Errors
    /// When it does not in time, or has ended.
    pub async fn await_ready(&mut self, node: usize) -> Result<()> {
        let client = self.client_of(node)?;
        let begun = Instant::now();
        loop {
            if status(&client).await.is_ok() {
                return Ok(());
            }
            let row = &mut self.nodes[node];
            let ended = row.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            if let Some(status) = ended {
                let log = std::fs::read_to_string(row.directory.join("node.log"))?;
                bail!("node {} ended with {status}:\n{log}", node + 1);
            }
            if begun.elapsed() > PATIENCE {
                bail!("node {} was not ready after {PATIENCE:?}", node + 1);
            }
        }
    }

    /// The number of the node that leads, if one does.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn leader(&self) -> Result<Option<usize>> {
        let leader = status(&self.client()?).await?.leader;
        Ok(leader.strip_prefix('n').and_then(|n| n.parse::<usize>().ok()).map(|n| n - 1))
    }

    /// Waits until so many nodes vote, and any majority of them can go on alone.
    ///
    /// # Errors
    /// When nobody answers, or they do not in time.
    pub async fn await_voters(&self, count: usize) -> Result<()> {
        let (client, begun) = (self.client()?, Instant::now());
        loop {
            let nodes = status(&client).await?.nodes;
            let votes = |node: &&v1::Node| matches!(node.role.as_str(), "leader" | "voter");
            if nodes.iter().filter(votes).count() == count {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "not {count} voters after {PATIENCE:?}: {nodes:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Kills a node's process at once, as a power cut does. Its guests run on.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        if let Some(mut process) = self.nodes[node].process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Cuts the power of a killed node's disk and gives it back; the answer is how many bytes that
    /// were not synced are known to be lost.
    ///
    /// # Errors
    /// When the node has no disk of its own, runs, or nothing was lost.
    pub fn cut_power(&self, node: usize) -> Result<u64> {
        let node = &self.nodes[node];
        ensure!(node.process.is_none(), "the node still runs");
        node.disk.as_ref().context("the node has no disk of its own")?.cut_power()
    }

    /// Kills the driver process of a node.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_driver(&self, node: usize) -> Result<()> {
        let pid = self.driver(node).context("there is no driver process")?;
        kill_process(pid, Signal::KILL)?;
        Ok(())
    }

    /// The driver's pid: the one process of ours that holds the lock of the driver's state.
    fn driver(&self, node: usize) -> Option<Pid> {
        let lock = self.nodes[node].directory.join("d/lock");
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.into_iter().find_map(|pid| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
            let holds = files
                .into_iter()
                .any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == lock));
            let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (holds && program.starts_with("novacron-driver")).then(|| Pid::from_raw(pid)).flatten()
        })
    }

    /// Empties a node's data directory, as a new disk does.
    ///
    /// # Errors
    /// When it cannot be emptied.
    pub fn wipe(&self, node: usize) -> Result<()> {
        Ok(std::fs::remove_dir_all(data(&self.nodes[node].directory))?)
    }

    /// The pids of a node's guests.
    #[must_use]
    pub fn guests(&self, node: usize) -> Vec<i32> {
        self.nodes[node].hypervisor.as_ref().map(Hypervisor::guests).unwrap_or_default()
    }

    /// How many bodies' files lie on a node's host.
    #[must_use]
    pub fn bodies(&self, node: usize) -> usize {
        let bodies = self.nodes[node].directory.join("d/bodies");
        std::fs::read_dir(bodies).map_or(0, Iterator::count)
    }

    /// A node's log.
    #[must_use]
    pub fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.nodes[node].directory.join("node.log")).unwrap_or_default()
    }
}

/// Where the cluster stands.
///
/// # Errors
/// When nobody answers.
pub async fn status(client: &Client) -> Result<v1::Cluster, client::Error> {
    let call = client.call(v1::GetClusterRequest::default(), async |channel, request| {
        ClustersClient::new(channel).get_cluster(request).await
    });
    call.await
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in 0..self.nodes.len() {
            let _ = self.kill(number);
            if let Some(driver) = self.driver(number) {
                let _ = kill_process(driver, Signal::KILL);
            }
        }
        for node in &mut self.nodes {
            node.hypervisor = None;
            node.disk = None;
        }
    }
}

/// A node's data directory: a directory of its disk's, beside what the file system keeps there.
fn data(directory: &Path) -> PathBuf {
    directory.join("data/novacron")
}

/// An address that nobody listens on. It is below the ports that the kernel hands out: one of
/// those could be somebody's before the node listens.
fn free() -> Result<String> {
    const TRIES: usize = 64;
    for _ in 0..TRIES {
        let address = (Ipv4Addr::LOCALHOST, fastrand::u16(10_240..32_768));
        if let Ok(listener) = TcpListener::bind(address) {
            return Ok(listener.local_addr()?.to_string());
        }
    }
    bail!("no free port after {TRIES} tries")
}
