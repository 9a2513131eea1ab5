//! From a `[[host]]` of the configuration to a host with a driver.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use actors::LocalHost;
use anyhow::{Context, Result};
use domain::{
    host::Capacity,
    id::{BootId, HostId, PoolId},
    name::Name,
};
use drivers::{
    Guard, GuardProcess, Measured,
    protocol::RemoteDriver,
    simulator::{Options, Simulator},
};
use newtype_uuid::GenericUuid;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;

use crate::{config::HostSection, files};

/// The hosts of a configuration. Their identities are kept in the data directory.
///
/// # Errors
/// When an identity cannot be kept.
pub fn local_hosts(data: &Path, sections: &[HostSection]) -> Result<Vec<Arc<LocalHost>>> {
    let mut hosts = Vec::new();
    for section in sections {
        let name = Name::new(section.name.get_ref())?;
        let id = kept_id(data, &name)?;
        let reserved = Capacity { memory_mib: section.reserved_memory_mib, ..Capacity::default() };
        hosts.push(match section.driver.get_ref().as_str() {
            "libvirt" => libvirt(data, section, id, name, reserved)?,
            _ => {
                let whole = Options::default();
                let options = Options {
                    seed: seed(&name),
                    capacity: section.capacity(whole.capacity),
                    pools: section.pools.keys().map(simulated_pool).collect(),
                    failures_per_mille: section.failures_per_mille,
                    ..whole
                };
                simulated(id, name, reserved, options)
            }
        });
    }
    Ok(hosts)
}

/// A host of this machine's libvirt, through a driver process that is started and watched.
fn libvirt(
    data: &Path,
    section: &HostSection,
    id: HostId,
    name: Name,
    reserved: Capacity,
) -> Result<Arc<LocalHost>> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("cannot read the machine's boot id")?;
    let boot: BootId = boot.trim().parse().context("the machine's boot id is no UUID")?;
    let state =
        section.state_directory.clone().unwrap_or_else(|| data.join("drivers").join(name.as_str()));
    let process = DriverProcess {
        program: program(section)?,
        socket: state.join("driver.sock"),
        state,
        uri: section.uri.clone(),
        migration_uri: section.migration_uri.clone(),
        virt_type: section.virt_type.as_str(),
        guard: section.guard.clone(),
        pools: section.pools.iter().map(|(name, at)| format!("{name}={}", at.display())).collect(),
        host: name.clone(),
    };
    let driver = Arc::new(RemoteDriver::new(&process.socket));
    let driver = Arc::new(Measured::new("libvirt", driver));
    tokio::spawn(process.watch());
    let guard_socket = section.guard.clone();
    let guard = section.guard.clone().map(GuardProcess::new);
    let guard = guard.map(|guard| Arc::new(guard) as Arc<dyn Guard>);
    let section = section.clone();
    let offered = Box::new(move |whole| section.capacity(whole));
    Ok(Arc::new(LocalHost {
        id,
        name,
        boot,
        reserved,
        offered,
        driver,
        guard,
        guard_socket,
        held_until_ns: AtomicU64::new(0),
    }))
}

/// The program of a libvirt host's driver.
///
/// # Errors
/// When it is not said where it is, nor known where this program is.
pub(crate) fn program(section: &HostSection) -> std::io::Result<PathBuf> {
    match &section.program {
        Some(program) => Ok(program.clone()),
        None => Ok(std::env::current_exe()?.with_file_name("novacron-driver-libvirt")),
    }
}

/// A driver process.
struct DriverProcess {
    program: PathBuf,
    socket: PathBuf,
    state: PathBuf,
    uri: String,
    migration_uri: Option<String>,
    virt_type: &'static str,
    guard: Option<PathBuf>,
    /// `NAME=DIRECTORY` each.
    pools: Vec<String>,
    host: Name,
}

impl DriverProcess {
    /// Starts the driver when none listens, for ever. One that outlived its node is kept, unless the
    /// configuration has changed since it was started.
    async fn watch(self) {
        const LOOK_EVERY: Duration = Duration::from_secs(1);
        const PAUSE_MAX: Duration = Duration::from_secs(30);
        let mut pause = LOOK_EVERY;
        let mut is_ours = false;
        loop {
            if let Ok(driver) = UnixStream::connect(&self.socket).await {
                if !is_ours {
                    self.end_if_changed(&driver);
                    is_ours = true;
                }
                pause = LOOK_EVERY;
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            is_ours = true;
            let started = std::time::Instant::now();
            let ended = self.run().await;
            tracing::warn!(host = %self.host, %ended, "the driver has ended; it is started again");
            if started.elapsed() > PAUSE_MAX {
                pause = LOOK_EVERY;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Ends a driver that was started with other arguments, or whose program was replaced since; guests go
    /// on without it for a moment.
    fn end_if_changed(&self, driver: &UnixStream) {
        let pid = driver.peer_cred().ok().and_then(|peer| peer.pid());
        let Some(pid) = pid.and_then(Pid::from_raw) else { return };
        let file = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
        let Ok(line) = std::fs::read(file) else { return };
        // Each argument ends with a zero; the first one is the program.
        let line = line.strip_suffix(&[0]).unwrap_or(&line);
        let had = line.split(|byte| *byte == 0).skip(1);
        let program = std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
        let replaced =
            program.is_ok_and(|path| path.as_os_str().as_bytes().ends_with(b" (deleted)"));
        if replaced || !had.eq(self.arguments().iter().map(|argument| argument.as_bytes())) {
            tracing::info!(host = %self.host, "its configuration has changed: the driver is started anew");
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            vec!["--socket".into(), (&self.socket).into(), "--state".into(), (&self.state).into()];
        let mut add = |flag: &str, value: &OsStr| arguments.extend([flag.into(), value.into()]);
        add("--uri", self.uri.as_ref());
        add("--virt-type", self.virt_type.as_ref());
        self.migration_uri.iter().for_each(|uri| add("--migration-uri", uri.as_ref()));
        self.pools.iter().for_each(|pool| add("--pool", pool.as_ref()));
        self.guard.iter().for_each(|socket| add("--guard", socket.as_ref()));
        arguments
    }

    async fn run(&self) -> String {
        if let Err(error) = std::fs::create_dir_all(&self.state) {
            return format!("cannot make {}: {error}", self.state.display());
        }
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.state.join("driver.log"));
        let log = log.map_or_else(|_| Stdio::null(), Stdio::from);
        let child = tokio::process::Command::new(&self.program)
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A signal to the node's terminal is not for it.
            .process_group(0)
            .spawn();
        match child {
            Ok(mut child) => match child.wait().await {
                Ok(status) => format!("{status}; see {}", self.state.join("driver.log").display()),
                Err(error) => error.to_string(),
            },
            Err(error) => format!("cannot start {}: {error}", self.program.display()),
        }
    }
}

/// A simulated host that has just booted.
#[must_use]
pub fn simulated(id: HostId, name: Name, reserved: Capacity, options: Options) -> Arc<LocalHost> {
    let boot = BootId::from_untyped_uuid(uuid::Uuid::now_v7());
    let driver = Arc::new(Simulator::new(options, boot));
    let guard = Some(driver.clone() as Arc<dyn Guard>);
    let driver = Arc::new(Measured::new("simulator", driver));
    let held_until_ns = AtomicU64::new(0);
    let offered = Box::new(|whole| whole);
    Arc::new(LocalHost {
        id,
        name,
        boot,
        reserved,
        offered,
        driver,
        guard,
        guard_socket: None,
        held_until_ns,
    })
}

/// A pool that simulated hosts see: the same name is the same pool.
#[must_use]
pub fn simulated_pool(name: &Name) -> (Name, PoolId) {
    let id = PoolId::from_untyped_uuid(uuid::Uuid::from_u128(u128::from(seed(name))));
    (name.clone(), id)
}

/// The same name gives the same behaviour.
fn seed(name: &Name) -> u64 {
    name.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn kept_id(data: &Path, name: &Name) -> Result<HostId> {
    let directory = data.join("hosts");
    files::make_directory(&directory)?;
    let path = directory.join(name.as_str());
    if let Ok(text) = std::fs::read_to_string(&path) {
        return text.trim().parse().with_context(|| format!("{} is damaged", path.display()));
    }
    let id = HostId::from_untyped_uuid(uuid::Uuid::now_v7());
    files::write(&path, &format!("{id}\n"))?;
    Ok(id)
}
