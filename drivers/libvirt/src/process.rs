//! The process of a guest: that it is gone is seen here and not believed.

use domain::id::VmId;
use serde::{Deserialize, Serialize};

/// A process of this boot, told from a later one of the same number by when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pid: i32,
    /// Clock ticks from the boot to its beginning.
    began: u64,
}

impl Process {
    /// The process that executes a VM's guest, if there is one: libvirt starts each with the VM's id
    /// among its arguments.
    pub(crate) fn of(vm: VmId) -> Option<Process> {
        let (wanted, processes) = (vm.to_string(), std::fs::read_dir("/proc").ok()?);
        let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let executes = |pid: &i32| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
            arguments.windows(2).any(|pair| pair[0] == b"-uuid" && pair[1] == wanted.as_bytes())
        };
        let pid = pids.into_iter().find(executes)?;
        Some(Process { pid, began: began(pid)? })
    }

    /// Whether it is there. One that has ended and was not buried yet is not.
    pub(crate) fn is_alive(self) -> bool {
        began(self.pid) == Some(self.began)
    }
}

/// When a process began; none for one that has ended.
fn began(pid: i32) -> Option<u64> {
    const STATE: usize = 0;
    const BEGAN: usize = 19;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ended = matches!(*fields.get(STATE)?, "Z" | "X");
    fields.get(BEGAN)?.parse().ok().filter(|_| !ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_until_it_ends() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process { pid, began: began(pid).unwrap() };
        assert!(process.is_alive());
        assert!(!Process { began: process.began + 1, ..process }.is_alive());
        child.kill().unwrap();
        // It is not buried before `wait`.
        while process.is_alive() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.wait().unwrap();
        assert!(!process.is_alive());
    }
}
