//! The QEMUs of one host: found by what they were started with and hold open, ended by SIGKILL.

use std::{
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use guard::{MANUFACTURER, SPARED_FAMILY};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// The directory that has one directory for each body of the host.
pub(crate) struct Guests(PathBuf);

impl Guests {
    pub(crate) fn of(bodies: PathBuf) -> Guests {
        Guests(bodies)
    }

    /// Sends SIGKILL to the host's guests; those that are to stay only if `all`. The answer is those that
    /// there were.
    pub(crate) fn kill(&self, all: bool) -> Vec<Ending> {
        pids().filter_map(|pid| self.kill_if(pid, |guest| all || !guest.stays)).collect()
    }

    /// The same for one VM's guest alone.
    pub(crate) fn kill_one(&self, id: &str) -> Vec<Ending> {
        pids().filter_map(|pid| self.kill_if(pid, |guest| guest.id == id)).collect()
    }

    /// Whether there is one that [`Guests::kill`] would end.
    pub(crate) fn has_any(&self, all: bool) -> bool {
        pids().any(|pid| {
            Guest::of(pid).is_some_and(|guest| (all || !guest.stays) && self.has(pid, &guest))
        })
    }

    /// Whether there is a guest of this VM here: one that would be found.
    pub(crate) fn has_one(&self, id: &str) -> bool {
        pids()
            .any(|pid| Guest::of(pid).is_some_and(|guest| guest.id == id && self.has(pid, &guest)))
    }

    /// Kills a process if it is a guest of this host and doomed. It is pinned before it is looked at for
    /// the second time, so that no other takes its number in between.
    fn kill_if(&self, pid: Pid, doomed: impl Fn(&Guest) -> bool) -> Option<Ending> {
        let is_doomed =
            || Guest::of(pid).is_some_and(|guest| doomed(&guest) && self.has(pid, &guest));
        if !is_doomed() {
            return None;
        }
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let killed = is_doomed() && pidfd_send_signal(&process, Signal::KILL).is_ok();
        killed.then_some(Ending(process))
    }

    /// Whether a guest is this host's: it holds a file or a socket of its body open here, its console at
    /// least. What it was started with tells nothing: a guest that has come from elsewhere must find
    /// itself in the same machine.
    fn has(&self, pid: Pid, guest: &Guest) -> bool {
        let body = self.0.join(&guest.id);
        let process = Path::new("/proc").join(pid.to_string());
        let sockets = std::fs::read(process.join("net/unix")).unwrap_or_default();
        let ours = bound_in(&sockets, &body);
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|open| {
            open.starts_with(&body) || ours.iter().any(|socket| open.as_os_str() == &**socket)
        })
    }
}

/// A process that was sent SIGKILL, by its pidfd. It may take a while, or for ever, when it waits for a disk.
pub(crate) struct Ending(OwnedFd);

impl Ending {
    /// Whether all of it has ended.
    pub(crate) fn is_over(&self) -> bool {
        let mut process = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut process, Some(&Timespec::default())).is_ok_and(|ready| ready == 1)
    }
}

fn pids() -> impl Iterator<Item = Pid> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw)
}

/// The sockets of a network that are bound in a directory, as `/proc/PID/fd` names them. `table` is
/// `/proc/PID/net/unix`.
fn bound_in(table: &[u8], directory: &Path) -> Vec<String> {
    const INODE: usize = 6;
    let rows = table.split(|byte| *byte == b'\n').filter_map(|row| {
        let mut fields = row.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
        let inode = std::str::from_utf8(fields.nth(INODE)?).ok()?.to_owned();
        Some((inode, Path::new(OsStr::from_bytes(fields.next()?))))
    });
    rows.filter(|(_, path)| path.starts_with(directory))
        .map(|(inode, _)| format!("socket:[{inode}]"))
        .collect()
}

/// A guest of whatever host.
#[derive(Debug, PartialEq, Eq)]
struct Guest {
    /// Its VM's id.
    id: String,
    /// Whether it is to stay.
    stays: bool,
}

impl Guest {
    fn of(pid: Pid) -> Option<Guest> {
        let arguments = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
        Guest::started_with(&arguments.ok()?)
    }

    fn started_with(arguments: &[u8]) -> Option<Guest> {
        let after = |option: &[u8]| {
            let mut arguments = arguments.split(|byte| *byte == 0);
            arguments.by_ref().find(|argument| *argument == option)?;
            arguments.next()
        };
        let smbios = after(b"-smbios")?;
        let says = |name: &str, value: &str| {
            let wanted = format!("{name}={value}");
            smbios.split(|byte| *byte == b',').any(|part| part == wanted.as_bytes())
        };
        if !says("manufacturer", MANUFACTURER) {
            return None;
        }
        let id = std::str::from_utf8(after(b"-uuid")?).ok()?.to_owned();
        Some(Guest { id, stays: says("family", SPARED_FAMILY) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_known_by_its_arguments() {
        let rows = [
            ("qemu -uuid 7 -smbios type=1,manufacturer=NovaCron", Some(false)),
            ("qemu -uuid 7 -smbios type=1,manufacturer=NovaCron,family=failover-stay", Some(true)),
            // Said by the guest's owner, in the kernel's arguments.
            (
                "qemu -uuid 7 -smbios type=1,manufacturer=NovaCron -append family=failover-stay",
                Some(false),
            ),
            ("qemu -uuid 7 -smbios type=1,manufacturer=NovaCronX", None),
            ("qemu -uuid 7 -append manufacturer=NovaCron", None),
            ("qemu -smbios type=1,manufacturer=NovaCron", None),
            ("qemu -smbios", None),
            ("", None),
        ];
        for (text, stays) in rows {
            let guest = Guest::started_with(&text.replace(' ', "\0").into_bytes());
            assert_eq!(guest.map(|guest| guest.stays), stays, "{text}");
        }
    }

    #[test]
    fn a_socket_is_known_by_where_it_is_bound() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            ffff: 00000002 00000000 00010000 0001 01  21 /state/bodies/7/console.sock\n\
            ffff: 00000002 00000000 00010000 0001 01  22 /state/bodies/77/console.sock\n\
            ffff: 00000002 00000000 00010000 0001 01  23\n\
            ffff: 00000002 00000000 00010000 0001 01  24 @abstract\n";
        assert_eq!(bound_in(table, Path::new("/state/bodies/7")), ["socket:[21]"]);
    }
}
