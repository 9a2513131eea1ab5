//! Hypervisor hosts with a driver and no node: for what must be said to a driver directly.

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    hypervisor::{Hypervisor, LIBVIRT_DRIVER},
    network::Network,
    root::Root,
};

/// A driver process and its host; both end when this is dropped.
pub struct DriverHost {
    driver: Child,
    hypervisor: Hypervisor,
    directory: PathBuf,
    _around: Arc<Around>,
}

/// What hosts share that guests can move between.
struct Around {
    network: Network,
    root: Root,
}

impl DriverHost {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot be started or is not ready in time.
    pub fn start(programs: &Path) -> Result<DriverHost> {
        let around = Around::make(1)?;
        DriverHost::start_in(&around, 0, programs)
    }

    /// Starts two, between which guests can move.
    ///
    /// # Errors
    /// When one cannot be started or is not ready in time.
    pub fn start_pair(programs: &Path) -> Result<[DriverHost; 2]> {
        let around = Around::make(2)?;
        let start = |number| DriverHost::start_in(&around, number, programs);
        Ok([start(0)?, start(1)?])
    }

    fn start_in(around: &Arc<Around>, number: usize, programs: &Path) -> Result<DriverHost> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let (network, root) = (&around.network, around.root.path());
        let directory = root.join(number.to_string());
        std::fs::create_dir(&directory)?;
        let ledgers = root.join("ledgers");
        let files = directory.join("h");
        let hypervisor = Hypervisor::start(&files, number, network, programs, &ledgers)?;
        let log = std::fs::File::create(directory.join("driver.log"))?;
        let driver = network
            .space(number)
            .command(programs.join(LIBVIRT_DRIVER))
            .arg("--socket")
            .arg(directory.join("driver.sock"))
            .arg("--state")
            .arg(directory.join("d"))
            .args(["--virt-type", "qemu", "--uri", &hypervisor.uri()])
            .args(["--migration-uri", &hypervisor.migration_uri()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the driver")?;
        let mut host = DriverHost { driver, hypervisor, directory, _around: around.clone() };
        let begun = Instant::now();
        while !host.socket().exists() {
            if let Some(status) = host.driver.try_wait()? {
                let log = std::fs::read_to_string(host.directory.join("driver.log"))?;
                bail!("the driver ended with {status}:\n{log}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("the driver was not ready after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(host)
    }

    /// Where the driver listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("driver.sock")
    }

    /// The pid of the QEMU that runs a body.
    #[must_use]
    pub fn guest(&self, body: &str) -> Option<i32> {
        let runs = |pid: &i32| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(body)
        };
        self.hypervisor.guests().into_iter().find(runs)
    }
}

impl Around {
    fn make(hosts: usize) -> Result<Arc<Around>> {
        // Nobody comes through the hosts' doors.
        Ok(Arc::new(Around { network: Network::make(hosts, 1)?, root: Root::make()? }))
    }
}

impl Drop for DriverHost {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
