//! A guard by itself, and the watchdog that it holds.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use guard::{Request, Warrant, ask, since_boot};
use novacron_lab::Watchdog;
use rustix::process::{Pid, Signal, kill_process};

use crate::{harness::programs, traveller::possible};

const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a watchdog can be had here.
pub fn has_watchdog() -> bool {
    if !Watchdog::is_possible() {
        println!("SKIPPED watchdogs: there is no /dev/fuse");
    }
    Watchdog::is_possible()
}

fn run(host: &Path, device: &Path) -> Child {
    Command::new(programs().join("novacron-guard"))
        .arg("--socket")
        .arg(host.join("guard.sock"))
        .arg("--bodies")
        .arg(host.join("bodies"))
        .arg("--watchdog")
        .arg(device)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a guard takes for a guest.
fn guest(host: &Path) -> Child {
    let body = host.join("bodies/a");
    std::fs::create_dir_all(&body).unwrap();
    let console = body.join("console.sock");
    let guest = Command::new(programs().join("novacron-guard"))
        .arg("victim")
        .arg(&console)
        .args(["-uuid", "a", "-smbios", "type=1,manufacturer=NovaCron"])
        .spawn()
        .unwrap();
    eventually("the guest is there", || console.exists());
    guest
}

fn eventually(what: &str, good: impl Fn() -> bool) {
    let begun = Instant::now();
    while !good() {
        assert!(begun.elapsed() < PATIENCE, "not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What the guard says that it makes sure of under a lease of so many seconds.
fn hold(host: &Path, lease: u64, ttl_s: u64) -> String {
    let warrant = Warrant { lease, asked: since_boot(), ttl: Duration::from_secs(ttl_s) };
    ask(&host.join("guard.sock"), &Request::Hold(warrant)).unwrap()
}

fn end(guard: &mut Child) {
    kill_process(Pid::from_child(guard), Signal::TERM).unwrap();
    assert!(guard.wait().unwrap().success());
}

#[test]
fn a_guard_that_ends_leaves_its_watchdog_counting_for_guests_alone() {
    if !possible("a watchdog") || !has_watchdog() {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    let watchdog = Watchdog::make(host.path()).unwrap();
    let (host, socket) = (host.path(), host.path().join("guard.sock"));
    assert!(!watchdog.counts());
    let mut guard = run(host, watchdog.path());
    eventually("it listens", || socket.exists());
    assert!(watchdog.counts());
    // Under a short lease it could not wait for a renewal.
    assert_eq!(hold(host, 1, 10), "guard");
    assert_eq!(hold(host, 2, 20), "watchdog");
    end(&mut guard);
    // The kernel tells of a closed file when it comes to it, not before the process is gone.
    eventually("nobody is left that it would count for", || !watchdog.counts());

    std::fs::remove_file(&socket).unwrap();
    let mut guard = run(host, watchdog.path());
    eventually("it listens", || socket.exists());
    assert_eq!(hold(host, 2, 20), "watchdog");
    let mut guest = guest(host);
    end(&mut guard);
    assert!(watchdog.counts(), "the guest runs unguarded");
    guest.kill().unwrap();
    guest.wait().unwrap();
}

#[test]
fn what_is_no_watchdog_is_refused() {
    let host = tempfile::tempdir().unwrap();
    let mut guard = run(host.path(), Path::new("/dev/null"));
    assert!(!guard.wait().unwrap().success());
}
