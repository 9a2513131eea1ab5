//! A hypervisor host with a driver and no node: for what must be said to a driver directly.

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{cluster::Root, hypervisor::Hypervisor, network::Network};

/// A driver process and its host; both end when this is dropped.
pub struct DriverHost {
    driver: Child,
    hypervisor: Hypervisor,
    _network: Network,
    root: Root,
}

impl DriverHost {
    /// Starts them.
    ///
    /// # Errors
    /// When one cannot be started or is not ready in time.
    pub fn start(programs: &Path) -> Result<DriverHost> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let root = Root::make()?;
        // Nobody comes through its door.
        let network = Network::make(1, 1)?;
        let space = network.space(0);
        let (files, ledgers) = (root.path().join("h"), root.path().join("ledgers"));
        let hypervisor = Hypervisor::start(&files, 0, &network, programs, &ledgers)?;
        let (state, socket) = (root.path().join("d"), root.path().join("driver.sock"));
        let log = std::fs::File::create(root.path().join("driver.log"))?;
        let driver = space
            .command(programs.join("novacron-driver-libvirt"))
            .arg("--socket")
            .arg(&socket)
            .arg("--state")
            .arg(&state)
            .args(["--virt-type", "qemu", "--uri", &hypervisor.uri()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the driver")?;
        let mut host = DriverHost { driver, hypervisor, _network: network, root };
        let begun = Instant::now();
        while !socket.exists() {
            if let Some(status) = host.driver.try_wait()? {
                let log = std::fs::read_to_string(host.root.path().join("driver.log"))?;
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
        self.root.path().join("driver.sock")
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

impl Drop for DriverHost {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
