//! Ends what a lab that was killed has left behind: only what lies in a lab's own directory and only
//! when its owner is gone.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

/// The file in a lab's directory that names the process it belongs to.
pub(crate) const OWNER: &str = "lab.pid";

/// Ends the processes of labs whose owner is gone and removes their directories; the answer is how
/// many were ended.
#[must_use]
pub fn sweep() -> usize {
    let labs = std::fs::read_dir("/tmp").into_iter().flatten().flatten();
    let labs = labs.map(|entry| entry.path()).filter(|path| is_abandoned(path));
    labs.map(|lab| {
        let processes = processes_of(&lab);
        for pid in &processes {
            let _ = kill_process(*pid, Signal::KILL);
        }
        let _ = std::fs::remove_dir_all(&lab);
        processes.len()
    })
    .sum()
}

fn is_abandoned(path: &Path) -> bool {
    let Ok(owner) = std::fs::read_to_string(path.join(OWNER)) else { return false };
    !Path::new("/proc").join(owner.trim()).exists()
}

/// Processes that were started with a path in the lab among their arguments, or run in it.
fn processes_of(lab: &Path) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = pids.filter(|pid| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let named = arguments
            .split(|byte| *byte == 0)
            .any(|argument| mentions(OsStr::from_bytes(argument), lab));
        let inside = std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(lab));
        let mounted = std::fs::read_to_string(process.join("mountinfo"))
            .is_ok_and(|mounts| mounts.contains(&format!("{}/", lab.display())));
        named || inside || mounted
    });
    ours.filter_map(Pid::from_raw).collect()
}

fn mentions(argument: &OsStr, lab: &Path) -> bool {
    let lab = lab.as_os_str().as_bytes();
    argument
        .as_bytes()
        .windows(lab.len() + 1)
        .any(|part| part.starts_with(lab) && part.ends_with(b"/"))
}
