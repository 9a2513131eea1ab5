//! The libvirt driver: runs bodies on one host, for the node on the same machine.
//!
//! It is the one serial point of its host: calls on a body queue here, and each is checked against
//! the highest fence ever seen for that body, which is on the disk before libvirt is called. A call
//! outlives whoever asked for it, and even this process; so a late one must find the fence raised.

mod agent;
mod body;
mod disk;
mod error;
mod event;
mod host;
mod job;
mod landing;
mod live;
mod migration;
mod nat;
mod observe;
mod pool;
mod process;
mod record;
mod terms;
mod usage;
mod xml;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::Parser;
use rustix::fs::{FlockOperation, flock};

use host::LibvirtHost;

/// Runs bodies on one host through libvirt, for a NovaCron node on the same machine.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The Unix socket on which the node finds this driver.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Where disks, consoles, images and the durable fence record lie. Keep the path short: QEMU's
    /// sockets in it may have at most 107 characters.
    #[arg(long, value_name = "DIRECTORY")]
    state: PathBuf,
    /// The libvirt connection.
    #[arg(long, value_name = "URI", default_value = "qemu:///system")]
    uri: String,
    /// The accelerator: `kvm`, or `qemu` for none. It is never guessed: a /dev/kvm that opens proves
    /// nothing.
    #[arg(long, value_name = "TYPE", default_value = "kvm", value_parser = ["kvm", "qemu"])]
    virt_type: String,
    /// Where other hosts' libvirt daemons reach this one, for guests that move: `qemu+tls://h1/system`
    /// encrypts what is copied, `qemu+tcp://h1/system` does not. Without it no guest can come here.
    #[arg(long, value_name = "URI")]
    migration_uri: Option<String>,
    /// A pool of disks and where it is mounted; repeat for more. `novacron node make-pool` makes a directory
    /// one.
    #[arg(long = "pool", value_name = "NAME=DIRECTORY", value_parser = pool::read)]
    pools: Vec<(domain::name::Name, PathBuf)>,
    /// The socket of the host's guard. No guest is let execute unless it says that it may.
    #[arg(long, value_name = "PATH")]
    guard: Option<PathBuf>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    // The node that has started it takes small pages, which what it starts inherits: a libvirt daemon of a session, and
    // its guests.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(false) {
        tracing::warn!(%error, "guests may have to do with small pages");
    }
    std::fs::create_dir_all(&options.state)
        .with_context(|| format!("cannot make {}", options.state.display()))?;
    let lock = std::fs::File::create(options.state.join("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        anyhow::anyhow!("another driver serves {}; there is one per host", options.state.display())
    })?;
    event::start()?;
    let host = LibvirtHost::open(
        &options.uri,
        &options.state,
        &options.virt_type,
        options.migration_uri,
        options.guard,
        pool::Pools::new(options.pools),
    )?;
    let host = Arc::new(host);
    host.listen()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Each call into libvirt holds one of these for as long as it takes.
        .max_blocking_threads(64)
        .enable_all()
        .build()?;
    tracing::info!(uri = options.uri, "the driver serves");
    runtime.block_on(drivers::protocol::serve(host, &options.socket))?;
    Ok(())
}
