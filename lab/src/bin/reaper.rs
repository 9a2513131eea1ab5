//! `novacron-lab-reaper COMMAND…`: runs a command and collects every process it leaves behind.
//!
//! QEMU detaches itself. Without this its zombies wait for PID 1, which in a container may take
//! seconds, and libvirt waits with them. Ends when nothing is left to collect.

use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else { return ExitCode::FAILURE };
    let me = rustix::process::getpid();
    let ready = rustix::process::set_child_subreaper(Some(me));
    // When the lab is killed, its hypervisors go too.
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if ready.is_err() || tied.is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(child) = Command::new(program).args(arguments).spawn() else {
        return ExitCode::FAILURE;
    };
    let main = Pid::from_child(&child);
    let mut code = ExitCode::SUCCESS;
    while let Ok(ended) = rustix::process::wait(WaitOptions::empty()) {
        if let Some((pid, status)) = ended
            && pid == main
            && status.exit_status() != Some(0)
        {
            code = ExitCode::FAILURE;
        }
    }
    code
}
