//! `novacron-lab-reaper FILE ENDS COMMAND…`: keeps a command running, as an init system does, until FILE
//! exists, and collects every process that it leaves behind. Of each it writes into ENDS, at once, when it
//! was certainly gone: `PID MICROSECONDS`, since 1970.
//!
//! QEMU detaches itself. Without this its zombies wait for PID 1, which in a container may take
//! seconds, and libvirt waits with them. Ends when nothing is left to collect.

use std::{
    ffi::OsString,
    fs::File,
    io::Write,
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::{Pid, Signal, WaitOptions};

/// Before the command is started again.
const PAUSE: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let mut path = || arguments.next().map(PathBuf::from);
    let (Some(until), Some(ends), Some(program)) = (path(), path(), path()) else {
        return ExitCode::FAILURE;
    };
    let ends = File::options().create(true).append(true).open(ends);
    let Ok(mut ends) = ends else { return ExitCode::FAILURE };
    let arguments: Vec<OsString> = arguments.collect();
    let me = rustix::process::getpid();
    let ready = rustix::process::set_child_subreaper(Some(me));
    // When the lab is killed, its hypervisors go too.
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if ready.is_err() || tied.is_err() {
        return ExitCode::FAILURE;
    }
    let start = || Command::new(&program).args(&arguments).spawn().ok();
    let Some(mut main) = start().map(|child| Pid::from_child(&child)) else {
        return ExitCode::FAILURE;
    };
    let mut code = ExitCode::SUCCESS;
    while let Ok(ended) = rustix::process::wait(WaitOptions::empty()) {
        let Some((pid, status)) = ended else { continue };
        // An end that could not be noted is one that nobody may rely on: the guest counts as running.
        let _ = note(&mut ends, pid);
        if pid != main {
            continue;
        }
        if status.exit_status() == Some(0) {
            continue;
        }
        code = ExitCode::FAILURE;
        // One that was killed is started again; one that cannot start says so by its own code.
        if status.signaled() && !until.exists() {
            std::thread::sleep(PAUSE);
            match start() {
                Some(child) if !until.exists() => main = Pid::from_child(&child),
                Some(mut child) => drop(child.kill()),
                None => {}
            }
        }
    }
    code
}

fn note(ends: &mut File, pid: Pid) -> std::io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(std::io::Error::other)?;
    // One write: what is read is whole lines.
    ends.write_all(format!("{pid} {}\n", now.as_micros()).as_bytes())
}
