//! `cluster.toml`: what a node is told by the machine's administrator. What can change while the
//! cluster runs is a setting of the cluster and not here.

pub(crate) mod problems;
mod terms;

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroU64},
    path::{Path, PathBuf},
};

use domain::{alert::Severity, name::Name};
use serde::Deserialize;
use toml::Spanned;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster; read by `novacron init`.
    pub cluster: ClusterSection,
    /// This node.
    pub node: NodeSection,
    /// The hosts this node drives; none for a node that only votes and serves.
    #[serde(default)]
    pub host: Vec<HostSection>,
    /// Programs that cut the power of hosts, of this node or of others. The leading node runs them, so
    /// every node needs them.
    #[serde(default)]
    pub fencing: Vec<FencingSection>,
    /// Who is told of alerts. The leading node tells them, so every node needs them.
    #[serde(default)]
    pub receiver: Vec<ReceiverSection>,
    /// What is logged, and how.
    #[serde(default)]
    pub log: LogSection,
    /// Where traces go; nowhere without this section.
    #[serde(default)]
    pub traces: Option<TracesSection>,
    /// Limits of the API.
    #[serde(default)]
    pub api: ApiSection,
}

/// The cluster, as `novacron init` founds it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSection {
    /// Its name: 1 to 63 of a-z, 0-9 and '-'.
    pub name: Spanned<String>,
    /// Names of further nodes that are expected; `init` prints a join command for each.
    #[serde(default)]
    pub expect: Vec<Spanned<String>>,
    /// `normal` for machines on one network, `relaxed` for several nodes on one busy machine.
    #[serde(default)]
    pub timing: TimingPreset,
}

/// How fast nodes expect each other to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimingPreset {
    /// A lost leader is replaced within about a second.
    #[default]
    Normal,
    /// A lost leader is replaced within about three seconds.
    Relaxed,
}

/// This node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// Its name, unique in the cluster: 1 to 63 of a-z, 0-9 and '-'.
    pub name: Spanned<String>,
    /// Where everything lies that must survive.
    pub data_directory: PathBuf,
    /// Where other nodes reach it, `host:port`.
    pub peer_address: Spanned<String>,
    /// Where clients reach it, `host:port`.
    pub api_address: Spanned<String>,
    /// Where it listens for other nodes, `ip:port`; the peer address if absent.
    #[serde(default)]
    pub peer_listen: Option<Spanned<String>>,
    /// Where it listens for clients, `ip:port`; the API address if absent.
    #[serde(default)]
    pub api_listen: Option<Spanned<String>>,
    /// Entries of the log between two snapshots; a quarter as many are kept for peers that are a
    /// little behind.
    #[serde(default = "default_snapshot_entries")]
    pub snapshot_entries: NonZeroU64,
}

fn default_snapshot_entries() -> NonZeroU64 {
    NonZeroU64::new(50_000).unwrap_or(NonZeroU64::MIN)
}

/// A host this node drives.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSection {
    /// Its name, unique in the cluster: 1 to 63 of a-z, 0-9 and '-'.
    pub name: Spanned<String>,
    /// `libvirt` or `simulator`.
    pub driver: Spanned<String>,
    /// Only for libvirt: the connection.
    #[serde(default = "default_uri")]
    pub uri: String,
    /// Only for libvirt: `kvm`, or `qemu` for no acceleration. It is never guessed.
    #[serde(default)]
    pub virt_type: VirtType,
    /// Only for libvirt: where the other hosts' libvirt daemons reach this one's, for guests that
    /// migrate: `qemu+tls://h1.example/system`, or `qemu+tcp://…`, which encrypts nothing. Without it
    /// no guest can migrate to this host.
    #[serde(default)]
    pub migration_uri: Option<String>,
    /// Only for libvirt: the socket of the host's guard, `novacron-guard`. Without it nothing ends guests of
    /// a host that is cut off, and so they are not started elsewhere.
    #[serde(default)]
    pub guard: Option<PathBuf>,
    /// Pools of disks: each name with the directory where it is mounted on this machine, as in
    /// `pools = { fast = "/mnt/fast" }`. Hosts that share storage give it one name. `novacron node make-pool`
    /// makes a directory a pool.
    #[serde(default)]
    pub pools: BTreeMap<Name, PathBuf>,
    /// Only for libvirt: the driver's program; beside `novacron` if absent.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// Only for libvirt: where disks, consoles and the fence record lie; in the data directory if
    /// absent. At most 40 characters: QEMU's sockets lie in it.
    #[serde(default)]
    pub state_directory: Option<PathBuf>,
    /// CPUs that may be given out; the machine's, times an overcommit of your choice.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// Memory that may be given out, MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Disk space that may be given out, MiB.
    #[serde(default)]
    pub disk_mib: Option<u64>,
    /// Memory kept back for the machine itself, MiB.
    #[serde(default)]
    pub reserved_memory_mib: u64,
    /// Only for the simulator: calls that fail, out of a thousand.
    #[serde(default)]
    pub failures_per_mille: u64,
}

/// A program that cuts the power of a host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FencingSection {
    /// The host's name.
    pub host: Spanned<String>,
    /// The program. It exits with 0 only after it has read the power back as off; whatever else it does is
    /// no evidence. The agents of the package `fence-agents` do so.
    pub program: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// How long it may take, seconds; then it is killed, and tried again.
    #[serde(default = "default_fencing_seconds")]
    pub timeout_seconds: NonZeroU32,
}

fn default_fencing_seconds() -> NonZeroU32 {
    NonZeroU32::new(30).unwrap_or(NonZeroU32::MIN)
}

fn default_uri() -> String {
    "qemu:///system".to_owned()
}

/// How guests are accelerated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VirtType {
    /// By the kernel.
    #[default]
    Kvm,
    /// Not at all.
    Qemu,
}

impl VirtType {
    /// The name in libvirt.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            VirtType::Kvm => "kvm",
            VirtType::Qemu => "qemu",
        }
    }
}

/// Who is told of alerts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverSection {
    /// Its name: 1 to 63 of a-z, 0-9 and '-'.
    pub name: Spanned<String>,
    /// `alertmanager`, by the second version of its API, or `webhook`, anything that takes JSON.
    pub kind: ReceiverKind,
    /// Its address, `http://…` or `https://…`: of an Alertmanager without `/api/v2/alerts`, of a webhook the whole.
    pub url: Spanned<String>,
    /// A file with the credential that it wants, sent as `Authorization: Bearer`.
    #[serde(default)]
    pub bearer_file: Option<PathBuf>,
    /// The certificates that it is trusted by, a file in PEM; those that the machine trusts, if absent.
    #[serde(default)]
    pub authority: Option<PathBuf>,
    /// It is told of nothing less bad: `info`, `warning` or `critical`; `info` if absent.
    #[serde(default = "default_least")]
    pub least: Severity,
}

fn default_least() -> Severity {
    Severity::Info
}

/// What a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiverKind {
    /// Prometheus' Alertmanager.
    Alertmanager,
    /// Anything that takes JSON.
    Webhook,
}

/// What is logged.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// `human` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter by target such as
    /// `info,novacron_raft_store=debug`.
    pub level: String,
}

impl Default for LogSection {
    fn default() -> LogSection {
        LogSection { format: LogFormat::Human, level: "info".to_owned() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Where traces go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesSection {
    /// The gRPC address of a collector that takes OTLP: `http://127.0.0.1:4317`, or `https://…`.
    pub endpoint: Spanned<String>,
    /// The certificates that a collector behind `https` is trusted by, a file in PEM.
    #[serde(default)]
    pub authority: Option<PathBuf>,
    /// Of a hundred calls, so many are traced, 0 to 100; 5 if absent. A call that brings a `traceparent` is traced
    /// as that says, and what nobody called for, as a failover, always.
    #[serde(default = "default_sample_percent")]
    pub sample_percent: f64,
}

fn default_sample_percent() -> f64 {
    5.0
}

/// Limits of the API.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSection {
    /// Connections at one time, 1 to 100000.
    pub connections: usize,
    /// Requests a second of one address, before anybody knows who asks.
    pub requests_per_second: NonZeroU32,
}

impl Default for ApiSection {
    fn default() -> ApiSection {
        let requests_per_second = NonZeroU32::new(20_000).unwrap_or(NonZeroU32::MIN);
        ApiSection { connections: 4_096, requests_per_second }
    }
}

/// What is wrong with a file: every problem, each with its line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with all problems at once.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let failed =
            |what: &dyn std::fmt::Display| ConfigError(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        Config::parse(&text).map_err(|error| failed(&format!("\n{error}")))
    }

    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let config: Config =
            toml::from_str(text).map_err(|error| ConfigError(problems::of_toml(&error, text)))?;
        problems::check(&config, text)?;
        Ok(config)
    }
}
