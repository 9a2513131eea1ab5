//! The power of a host: what runs on one is ended all at once, and that it has ended is read back.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// What runs on a host, by the first fifteen letters of its programs. Its libvirtd is left: it starts
/// nothing by itself, and a real one would be back after the boot.
const PROGRAMS: &[&str] = &["novacron", "novacron-driver", "novacron-guard", "qemu-system-x86"];

/// Cuts the power of the host that lies in `directory`; the answer is how many processes were ended.
///
/// # Errors
/// When some have not ended after a minute.
pub fn cut(directory: &Path) -> Result<usize> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (begun, mut ended) = (Instant::now(), 0);
    loop {
        let running = running(directory);
        if running.is_empty() {
            return Ok(ended);
        }
        ensure!(begun.elapsed() < PATIENCE, "{} processes have not ended", running.len());
        ended = ended.max(running.len());
        for pid in running {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn running(directory: &Path) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| is_on(*pid, directory)).filter_map(Pid::from_raw).collect()
}

fn is_on(pid: i32, directory: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let program = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    if !PROGRAMS.contains(&program.trim_end()) {
        return false;
    }
    // One that has ended and was not buried yet has no arguments and no directory.
    let inside =
        std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
    let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let wanted = format!("{}/", directory.display());
    inside || arguments.windows(wanted.len()).any(|part| part == wanted.as_bytes())
}
