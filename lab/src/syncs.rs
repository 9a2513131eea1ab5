//! Syncs of a process that fail, as on a disk that is broken, or take long: somebody stands between it and the
//! system.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::programs;

/// What becomes of syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// They fail with EIO.
    Fail,
    /// Each takes so much longer.
    Delay(Duration),
}

impl Tampering {
    fn injection(self) -> String {
        match self {
            Tampering::Fail => "error=EIO".to_owned(),
            Tampering::Delay(by) => format!("delay_exit={}", by.as_micros()),
        }
    }
}

/// Why this machine cannot have such syncs, if it cannot.
///
/// # Errors
/// The reason in a sentence.
pub fn is_possible() -> Result<(), String> {
    programs::require(&["strace"])
}

/// Syncs that are tampered with until it is ended or dropped.
pub struct TamperedSyncs {
    tracer: Child,
    record: PathBuf,
}

/// How long it may take to stand between a process and the system.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to let go of it in peace.
const DETACH: Duration = Duration::from_secs(2);

impl TamperedSyncs {
    pub(crate) fn begin(pid: u32, how: Tampering, directory: &Path) -> Result<TamperedSyncs> {
        let record = directory.join("tampered-syncs");
        let _ = std::fs::remove_file(&record);
        let tracer = Command::new("strace")
            .env("PATH", programs::path())
            .args(["-f", "-qq", "-p", &pid.to_string(), "-e", "trace=fsync,fdatasync"])
            .args(["-e", &format!("inject=fsync,fdatasync:{}", how.injection()), "-o"])
            .arg(&record)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run strace")?;
        let syncs = TamperedSyncs { tracer, record };
        let begun = Instant::now();
        while !is_traced(pid) {
            ensure!(begun.elapsed() < PATIENCE, "nobody stands before process {pid}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(syncs)
    }

    /// Lets syncs be; the answer is how many were tampered with.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn end(mut self) -> Result<usize> {
        self.detach();
        let record = std::fs::read_to_string(&self.record)?;
        Ok(record
            .lines()
            .filter(|line| line.contains("(INJECTED)") || line.contains("(DELAYED)"))
            .count())
    }

    fn detach(&mut self) {
        let begun = Instant::now();
        let mut asked = false;
        while let Ok(None) = self.tracer.try_wait() {
            // It lets go of what it holds in peace when it is asked to.
            if !asked {
                let _ = kill_process(Pid::from_child(&self.tracer), Signal::INT);
                asked = true;
            }
            // With a process that is ending it can wait for ever.
            if begun.elapsed() > DETACH {
                let _ = self.tracer.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for TamperedSyncs {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Whether somebody stands before a process, or it has ended meanwhile.
fn is_traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_none_or(|tracer| tracer.trim() != "0")
}
