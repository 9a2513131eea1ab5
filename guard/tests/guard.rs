//! A guard as a process, and processes that look like guests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use guard::{Error, Request, Warrant, ask, deadline, since_boot};

struct Host {
    directory: tempfile::TempDir,
    guard: Child,
}

impl Host {
    fn start() -> Host {
        let directory = tempfile::tempdir().unwrap();
        let guard = run(directory.path());
        Host { directory, guard }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("guard.sock")
    }

    fn ask(&self, request: Request) -> Result<String, Error> {
        ask(&self.socket(), &request)
    }

    /// Lets guests execute for so long.
    fn hold(&self, lease: u64, time: Duration) {
        // The margins, and what is left of nine tenths.
        let ttl = (time + Duration::from_secs(2)) * 10 / 9 + Duration::from_millis(1);
        let warrant = Warrant { lease, asked: since_boot(), ttl };
        assert!(deadline(warrant.asked, ttl) >= warrant.asked + time);
        self.ask(Request::Hold(warrant)).unwrap();
    }

    /// What the guard takes for a guest.
    fn guest(&self, id: &str, smbios: &str) -> Child {
        let body = self.directory.path().join("bodies").join(id);
        std::fs::create_dir_all(&body).unwrap();
        let console = body.join("console.sock");
        let _ = std::fs::remove_file(&console);
        let child = Command::new(env!("CARGO_BIN_EXE_novacron-guard"))
            .arg("victim")
            .arg(&console)
            .args(["-uuid", id, "-smbios", smbios])
            .spawn()
            .unwrap();
        await_file(&console);
        child
    }

    /// Kills the guard and starts it again.
    fn restart(&mut self) {
        self.guard.kill().unwrap();
        self.guard.wait().unwrap();
        self.guard = run(self.directory.path());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

fn run(directory: &Path) -> Child {
    let socket = directory.join("guard.sock");
    let _ = std::fs::remove_file(&socket);
    let guard = Command::new(env!("CARGO_BIN_EXE_novacron-guard"))
        .arg("--socket")
        .arg(&socket)
        .arg("--bodies")
        .arg(directory.join("bodies"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    await_file(&socket);
    guard
}

fn await_file(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} is not there", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn await_end(child: &mut Child) {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(12), "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn runs(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_none()
}

fn may(lease: u64) -> Request {
    Request::May(lease, "b".to_owned())
}

const OURS: &str = "type=1,manufacturer=NovaCron";
const STAYS: &str = "type=1,manufacturer=NovaCron,family=failover-stay";
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn guests_end_with_the_lease_and_not_before() {
    let (host, other) = (Host::start(), Host::start());
    host.ask(Request::Ready).unwrap();
    let mut guest = host.guest("a", OURS);
    let mut spared = host.guest("b", STAYS);
    let mut foreign = host.guest("c", "type=1,manufacturer=Somebody");
    let mut elsewhere = other.guest("a", OURS);
    // Before the first lease nobody counts on a guard, and nobody may start anything.
    assert!(matches!(host.ask(may(5)), Err(Error::Refused(_))));
    host.hold(5, 4 * SECOND);
    host.ask(may(5)).unwrap();
    assert!(matches!(host.ask(may(4)), Err(Error::Refused(_))));
    // What the guard does not find it could not end.
    assert!(matches!(host.ask(Request::May(5, "z".to_owned())), Err(Error::Refused(_))));
    std::thread::sleep(2 * SECOND);
    assert!(runs(&mut guest), "ended while the lease held");
    host.hold(5, 5 * SECOND);
    // An older renewal that comes late takes nothing back.
    host.hold(5, Duration::ZERO);
    std::thread::sleep(5 * SECOND / 2);
    assert!(runs(&mut guest), "ended while the lease held");
    await_end(&mut guest);
    assert!(matches!(host.ask(may(5)), Err(Error::Refused(_))));
    // One that is started too late ends too, until the lease is granted anew.
    await_end(&mut host.guest("d", OURS));
    host.hold(6, 30 * SECOND);
    assert!(matches!(host.ask(may(5)), Err(Error::Refused(_))));
    let stale = Request::Hold(Warrant { lease: 5, asked: since_boot(), ttl: 30 * SECOND });
    assert!(matches!(host.ask(stale), Err(Error::Refused(_))));
    let mut again = host.guest("e", OURS);
    std::thread::sleep(SECOND / 2);
    for kept in [&mut again, &mut spared, &mut foreign, &mut elsewhere] {
        assert!(runs(kept), "it was not to be ended");
    }
    host.ask(Request::End).unwrap();
    await_end(&mut again);
    await_end(&mut spared);
    for mut kept in [foreign, elsewhere] {
        assert!(runs(&mut kept), "it was not to be ended");
        kept.kill().unwrap();
        kept.wait().unwrap();
    }
}

#[test]
fn a_guard_that_is_started_again_goes_on() {
    let mut host = Host::start();
    host.hold(7, 6 * SECOND);
    let mut guest = host.guest("a", OURS);
    host.restart();
    host.ask(Request::May(7, "a".to_owned())).unwrap();
    assert!(runs(&mut guest), "ended while the lease held");
    await_end(&mut guest);
    assert!(matches!(host.ask(may(7)), Err(Error::Refused(_))));
}
