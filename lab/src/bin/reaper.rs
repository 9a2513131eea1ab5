//! `novacron-lab-reaper FILE COMMAND…`: keeps a command running, as an init system does, until FILE
//! exists, and collects every process that it leaves behind.
//!
//! QEMU detaches itself. Without this its zombies wait for PID 1, which in a container may take
//! seconds, and libvirt waits with them. Ends when nothing is left to collect.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions};

/// Before the command is started again.
const PAUSE: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(until), Some(program)) = (arguments.next().map(PathBuf::from), arguments.next())
    else {
        return ExitCode::FAILURE;
    };
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
        let Some((_, status)) = ended.filter(|(pid, _)| *pid == main) else { continue };
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
