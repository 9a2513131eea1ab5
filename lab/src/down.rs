//! Ends what a lab that was killed has left behind: only what lies in a lab's own directory and only
//! when its owner is gone.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::cgroup;

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
            cgroup::free(pid.as_raw_nonzero().get());
            let _ = kill_process(*pid, Signal::KILL);
        }
        for mount in mounts_of(&lab) {
            // Who waits for a frozen disk does not end.
            let _ = Command::new("fsfreeze").arg("-u").arg(&mount).status();
            // Lazily: the processes may not have ended yet.
            let _ = Command::new("umount").arg("--lazy").arg(mount).status();
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
        let mounts = std::fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        named || inside || mounts.lines().any(|mount| is_hypervisor_of(mount, lab))
    });
    ours.filter_map(Pid::from_raw).collect()
}

/// Whether a line of a process' mounts shows that it lives in a hypervisor's namespace of the lab.
/// Its disks do not tell: every process of the machine sees them.
fn is_hypervisor_of(mount: &str, lab: &Path) -> bool {
    let mut fields = mount.split(' ').skip(3);
    let (source, target) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    target == "/run/libvirt" && lab.file_name().is_some_and(|name| has_part(source, name))
}

fn has_part(path: &str, part: &OsStr) -> bool {
    Path::new(path).components().any(|component| component.as_os_str() == part)
}

fn mounts_of(lab: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut ours: Vec<PathBuf> = points.filter(|point| point.starts_with(lab)).collect();
    // What is mounted in another comes before that.
    ours.reverse();
    ours
}

fn mentions(argument: &OsStr, lab: &Path) -> bool {
    let lab = lab.as_os_str().as_bytes();
    argument
        .as_bytes()
        .windows(lab.len() + 1)
        .any(|part| part.starts_with(lab) && part.ends_with(b"/"))
}
