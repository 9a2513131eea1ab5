//! The QEMUs of one host: found by their arguments, ended by SIGKILL.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use guard::SPARED_FAMILY;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The directory that has one directory for each body of the host.
pub(crate) struct Guests(PathBuf);

impl Guests {
    pub(crate) fn of(bodies: PathBuf) -> Guests {
        Guests(bodies)
    }

    /// Sends SIGKILL to the host's guests; those that are to stay only if `all`. The answer is how many
    /// there were.
    pub(crate) fn kill(&self, all: bool) -> usize {
        let doomed = |arguments: &[u8]| self.is_ours(arguments) && (all || !is_spared(arguments));
        self.pids().filter(|pid| kill_if(*pid, &doomed)).count()
    }

    /// The same for one VM's guest alone.
    pub(crate) fn kill_one(&self, id: &str) -> usize {
        let doomed = |arguments: &[u8]| {
            after(arguments, b"-uuid") == Some(id.as_bytes()) && self.is_ours(arguments)
        };
        self.pids().filter(|pid| kill_if(*pid, &doomed)).count()
    }

    fn pids(&self) -> impl Iterator<Item = Pid> {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(Pid::from_raw)
    }

    /// Whether a process executes a guest of this host: it is told a VM's id, and a file of that VM's
    /// body here.
    fn is_ours(&self, arguments: &[u8]) -> bool {
        let Some(id) = after(arguments, b"-uuid") else { return false };
        let mut body = self.0.join(OsStr::from_bytes(id)).into_os_string();
        body.push("/");
        let body = body.as_bytes();
        split(arguments).any(|argument| argument.windows(body.len()).any(|part| part == body))
    }
}

/// Kills a process if its arguments say so. The process is pinned before they are read, so that no
/// other takes its number in between.
fn kill_if(pid: Pid, doomed: &impl Fn(&[u8]) -> bool) -> bool {
    let arguments = || std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
    if !arguments().is_ok_and(|arguments| doomed(&arguments)) {
        return false;
    }
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    arguments().is_ok_and(|arguments| doomed(&arguments))
        && pidfd_send_signal(process, Signal::KILL).is_ok()
}

fn is_spared(arguments: &[u8]) -> bool {
    let wanted = format!("family={SPARED_FAMILY}");
    let smbios = after(arguments, b"-smbios").unwrap_or_default();
    smbios.split(|byte| *byte == b',').any(|part| part == wanted.as_bytes())
}

fn after<'a>(arguments: &'a [u8], option: &[u8]) -> Option<&'a [u8]> {
    split(arguments).skip_while(|argument| *argument != option).nth(1)
}

fn split(arguments: &[u8]) -> impl Iterator<Item = &[u8]> {
    arguments.split(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_known_by_its_arguments() {
        let guests = Guests::of("/state/bodies".into());
        let line = |text: &str| text.replace(' ', "\0").into_bytes();
        let rows = [
            ("qemu -uuid 7 -chardev file,path=/state/bodies/7/console.log", true, false),
            ("qemu -uuid 7 -smbios type=1,family=failover-stay -x /state/bodies/7/a", true, true),
            // Said by the guest's owner, in the kernel's arguments.
            ("qemu -uuid 7 -append family=failover-stay -x /state/bodies/7/a", true, false),
            ("qemu -uuid 7 -append -smbios,family=failover-stay -x /state/bodies/7/a", true, false),
            // Another host's, another VM's, somebody who reads.
            ("qemu -uuid 7 -chardev file,path=/other/bodies/7/console.log", false, false),
            ("qemu -uuid 7 -chardev file,path=/state/bodies/77/console.log", false, false),
            ("tail -f /state/bodies/7/console.log", false, false),
            ("qemu -uuid", false, false),
            ("", false, false),
        ];
        for (text, ours, spared) in rows {
            assert_eq!(guests.is_ours(&line(text)), ours, "{text}");
            assert_eq!(is_spared(&line(text)), spared, "{text}");
        }
    }
}
