//! Somebody between two hosts' libvirt daemons, who strikes at a message of a migration once.

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    network::{Network, Space},
    rpc::Strike,
};

/// Where libvirtd listens for others.
const LIBVIRT_PORT: u16 = 16_514;
/// Where the proxy does.
const PROXY_PORT: u16 = 16_515;

/// A proxy before one host's libvirtd; when it is dropped, its connections break and the next ones are
/// made as if it had never been.
#[derive(Debug)]
pub struct Proxy {
    process: Child,
    space: Arc<Space>,
    /// Where it writes what it has done.
    proof: PathBuf,
}

impl Proxy {
    /// Stands before the libvirtd of a host whose network this is and whose files lie in `directory`.
    pub(crate) fn start(
        program: &Path,
        space: Arc<Space>,
        host: usize,
        directory: &Path,
        strike: Strike,
    ) -> Result<Proxy> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let (orders, proof) = (directory.join("strike"), directory.join("struck"));
        let _ = std::fs::remove_file(&proof);
        std::fs::write(&orders, strike.to_string())?;
        let address = Network::address(host);
        let log = std::fs::File::create(directory.join("log/proxy.log"))?;
        let process = space
            .command(program)
            .arg(format!("{address}:{PROXY_PORT}"))
            .arg(format!("{address}:{LIBVIRT_PORT}"))
            .arg(directory.join("etc/pki"))
            .args([&orders, &proof])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start a proxy")?;
        let mut proxy = Proxy { process, space, proof };
        let begun = Instant::now();
        // It makes the file of its proofs when it listens.
        while !proxy.proof.exists() {
            let ended = proxy.process.try_wait()?;
            ensure!(ended.is_none(), "the proxy has ended; see {}/log", directory.display());
            ensure!(begun.elapsed() < PATIENCE, "the proxy was not ready after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        // What the host itself sends does not pass here: so the proxy reaches the daemon.
        let rules = format!(
            "table ip proxy {{\nchain before {{\ntype nat hook prerouting priority -100; policy accept;\n\
             tcp dport {LIBVIRT_PORT} redirect to :{PROXY_PORT}\n}}\n}}\n"
        );
        proxy.space.feed(&["nft", "-f", "-"], &rules)?;
        Ok(proxy)
    }

    /// What was struck and when, microseconds since 1970; none while nothing was.
    ///
    /// # Errors
    /// When the proof is damaged.
    pub fn struck(&self) -> Result<Option<(u64, Strike)>> {
        let text = std::fs::read_to_string(&self.proof)?;
        let Some((at, strike)) = text.trim().split_once(' ') else { return Ok(None) };
        Ok(Some((at.parse()?, strike.parse()?)))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.space.feed(&["nft", "delete", "table", "ip", "proxy"], "");
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
