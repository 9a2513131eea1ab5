//! The guard of a host, and the boot that it, the node and the driver find themselves in.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::network::Space;

/// A host's own boot id: the machine's would be the same for all.
pub(crate) struct Boot(PathBuf);

impl Boot {
    /// The first boot of a host that lies in `directory`.
    pub(crate) fn first(directory: &Path) -> Result<Boot> {
        let boot = Boot(directory.join("boot_id"));
        boot.anew()?;
        Ok(boot)
    }

    /// The host boots anew.
    pub(crate) fn anew(&self) -> Result<()> {
        Ok(std::fs::write(&self.0, format!("{}\n", uuid::Uuid::new_v4()))?)
    }

    /// A program that finds itself in this boot.
    pub(crate) fn command(&self, space: &Space, program: &std::ffi::OsStr) -> Command {
        const SCRIPT: &str = r#"
            mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"
        "#;
        let mut command = space.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"])
            .arg(&self.0)
            .arg(program)
            .env("PATH", crate::programs::path());
        command
    }
}

/// Where a host's guard listens.
pub(crate) fn socket(directory: &Path) -> PathBuf {
    directory.join("guard.sock")
}

/// Starts the guard of a host, and waits until it guards.
pub(crate) fn start(mut command: Command, directory: &Path, bodies: &Path) -> Result<Child> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let file = directory.join("guard.log");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&file)?;
    let socket = socket(directory);
    let _ = std::fs::remove_file(&socket);
    let mut guard = command
        .arg("--socket")
        .arg(&socket)
        .arg("--bodies")
        .arg(bodies)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot start a guard")?;
    let begun = Instant::now();
    while !socket.exists() {
        if let Some(status) = guard.try_wait()? {
            let log = std::fs::read_to_string(&file)?;
            anyhow::bail!("the guard ended with {status}:\n{log}");
        }
        ensure!(begun.elapsed() < PATIENCE, "the guard was not ready after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(guard)
}
