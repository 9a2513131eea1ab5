//! The guard of one host: ends the host's guests when the host cannot renew its lease.
//!
//! Nothing else here can: a node that is stopped fences nobody, and libvirt goes on without both. The
//! guard is a child of neither, has no network and no libvirt, and once it has a deadline it needs
//! nothing from anybody to keep it.

mod guests;
mod record;
mod watchdog;

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use guard::{Level, MANUFACTURER, PATIENCE, Request, Warrant, deadline, may_pet, since_boot};
use guests::{Ending, Guests};
use record::{Held, Record};
use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::Signal,
};
use watchdog::Watchdog;

/// Ends the guests of one host when the host cannot renew its lease.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The Unix socket on which the node and the driver find this guard. What the guard has been told is
    /// kept in a file beside it; a directory in /run suits both.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The directory with the host's bodies: `bodies` in the state directory of its driver.
    #[arg(long, value_name = "DIRECTORY")]
    bodies: PathBuf,
    /// A watchdog device, as /dev/watchdog, that no other program uses. The machine is reset when this guard
    /// stands still, or a guest does not end that is to. Without one nothing covers that.
    #[arg(long, value_name = "DEVICE")]
    watchdog: Option<PathBuf>,
}

/// Between two looks for guests that are to be ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The word with which the guard starts a process that looks like a guest, to end it.
const VICTIM: &str = "victim";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(VICTIM) {
        return pose();
    }
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Standard error is the log: the unit's journal.
#[allow(clippy::print_stderr, reason = "a guard has no logger that could be in its way")]
fn say(what: &str) {
    eprintln!("novacron-guard: {what}");
}

fn run(options: &Options) -> Result<()> {
    // A machine that is out of memory must not have to read this program from its disk first.
    if let Err(error) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        say(&format!("cannot stay in memory ({error}); let the unit have LimitMEMLOCK=infinity"));
    }
    std::fs::create_dir_all(&options.bodies)
        .with_context(|| format!("cannot make {}", options.bodies.display()))?;
    let bodies = options.bodies.canonicalize()?;
    let guests = Guests::of(bodies.clone());
    let record = Record::open(&options.socket.with_extension("state"))?;
    let held = record.read().context("what was told last cannot be read")?;
    let (watchdog, ending) = (OnceLock::new(), Arc::new(AtomicBool::new(false)));
    signal_hook::flag::register(Signal::TERM.as_raw(), ending.clone())?;
    let guard = Guard { record, held: Mutex::new(held), guests, watchdog, ending };
    std::thread::scope(|scope| {
        // First of all: one that is started again must keep its deadline, whatever else fails.
        scope.spawn(|| guard.watch());
        let listener = loop {
            match guard.listen(options, &bodies) {
                Ok(listener) => break listener,
                Err(error) => say(&format!("{error:#}")),
            }
            if guard.held().is_none() {
                // Nobody counts on it yet.
                std::process::exit(1);
            }
            std::thread::sleep(PATIENCE);
        };
        for stream in listener.incoming().flatten() {
            if let Err(error) = guard.answer(&stream) {
                say(&format!("a request was not answered: {error}"));
            }
        }
    });
    Ok(())
}

/// Looks like a guest whose console is at the path that is the second argument, for a while.
fn pose() -> ExitCode {
    let console = std::env::args().nth(2).unwrap_or_default();
    match UnixListener::bind(console) {
        Ok(_console) => {
            std::thread::sleep(20 * PATIENCE);
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Ends a process that looks like a guest, as it would end a guest.
fn try_out(guests: &Guests, bodies: &Path) -> Result<()> {
    const ID: &str = "00000000-0000-0000-0000-000000000000";
    /// For that process to look like a guest, on a machine that has much to do, and to end.
    const TRIAL: Duration = Duration::from_secs(10);
    let body = bodies.join(ID);
    std::fs::create_dir_all(&body)?;
    let smbios = format!("type=1,manufacturer={MANUFACTURER}");
    let mut victim = std::process::Command::new("/proc/self/exe")
        .arg(VICTIM)
        .arg(body.join("console.sock"))
        .args(["-uuid", ID, "-smbios", &smbios])
        .spawn()
        .context("cannot start a process to try itself on")?;
    let begun = Instant::now();
    let ended = loop {
        if guests.kill_one(ID).is_empty() && begun.elapsed() > TRIAL {
            break None;
        }
        if let Some(status) = victim.try_wait()? {
            break Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let _ = victim.kill();
    let _ = victim.wait();
    let _ = std::fs::remove_dir_all(&body);
    let killed =
        ended.and_then(|status: ExitStatus| status.signal()) == Some(Signal::KILL.as_raw());
    ensure!(killed, "cannot end processes; run it as root");
    Ok(())
}

struct Guard {
    record: Record,
    /// Nothing before the first lease of a boot: then the cluster knows of no guard here.
    held: Mutex<Option<Held>>,
    guests: Guests,
    /// Set once it counts.
    watchdog: OnceLock<Watchdog>,
    /// Whether somebody wants this process to end.
    ending: Arc<AtomicBool>,
}

impl Guard {
    fn held(&self) -> Option<Held> {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries itself and its watchdog out, and opens its socket.
    fn listen(&self, options: &Options, bodies: &Path) -> Result<UnixListener> {
        try_out(&self.guests, bodies)?;
        if let (Some(device), None) = (&options.watchdog, self.watchdog.get()) {
            let watchdog = Watchdog::open(device)?;
            let _ = self.watchdog.set(watchdog);
            say(&format!("{} resets the machine when this guard stands still", device.display()));
        }
        // Somebody else's socket is of no use to a guard that was killed.
        let _ = std::fs::remove_file(&options.socket);
        let listener = UnixListener::bind(&options.socket)
            .with_context(|| format!("cannot listen on {}", options.socket.display()))?;
        say(&format!("guards {}", bodies.display()));
        Ok(listener)
    }

    /// Ends guests from the deadline on, and goes on: one that is being started must not slip through.
    fn watch(&self) {
        let (mut over, mut endings) = (false, Vec::<Ending>::new());
        loop {
            std::thread::sleep(LOOK_EVERY);
            if self.ending.load(Ordering::SeqCst) {
                self.leave();
            }
            let (held, now) = (self.held(), since_boot());
            let Some(held) = held.filter(|held| held.over || now >= held.until) else {
                if over {
                    say("the lease is renewed");
                }
                over = false;
                if held.is_none_or(|held| !held.watched || may_pet(held.until, now)) {
                    self.pet();
                }
                continue;
            };
            // First the guests, then the journal.
            let killed = self.guests.kill(held.over);
            if !over {
                say("the lease was not renewed in time: guests are ended");
            }
            over = true;
            if !killed.is_empty() {
                say(&format!("{} guests are ended", killed.len()));
            }
            endings.extend(killed);
            endings.retain(|ending| !ending.is_over());
            // None is left, and none begins without being told that it may. Otherwise the machine is reset.
            if endings.is_empty() {
                self.pet();
            }
        }
    }

    fn pet(&self) {
        let Some(Err(error)) = self.watchdog.get().map(Watchdog::pet) else { return };
        say(&format!("the watchdog does not hear: {error}"));
    }

    /// Ends this process. The watchdog goes on counting while there is a guest that it is for: whoever starts a
    /// guard again in time has nothing to fear from it.
    fn leave(&self) -> ! {
        let over = self.held().is_some_and(|held| held.over);
        if !self.guests.has_any(over) {
            let disarmed = self.watchdog.get().map(Watchdog::disarm);
            if let Some(Err(error)) = disarmed {
                say(&format!("the watchdog cannot be stopped: {error}"));
            }
        } else if self.watchdog.get().is_some() {
            say("guests run: without a guard the machine is reset soon");
        }
        std::process::exit(0)
    }

    fn answer(&self, stream: &UnixStream) -> Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let said = match line.parse().map_err(anyhow::Error::msg).and_then(|asked| self.take(asked))
        {
            Ok(said) => format!("{}\n", format!("ok {said}").trim_end()),
            Err(why) => format!("no {why}\n"),
        };
        let mut stream = stream;
        stream.write_all(said.as_bytes())?;
        Ok(())
    }

    /// The answer is what is said besides `ok`.
    fn take(&self, request: Request) -> Result<&'static str> {
        // Requests come one after the other, so nobody changes it meanwhile; the watch must not wait.
        let now = self.held().unwrap_or_default();
        let next = match request {
            Request::Ready => return Ok(""),
            Request::May(lease, _)
                if now.over || since_boot() >= now.until || lease != now.lease =>
            {
                bail!("the host's lease has run out, or was granted anew since")
            }
            Request::May(_, vm) => {
                ensure!(self.guests.has_one(&vm), "the guest is not where it guards");
                // Asked last: a guest that was there before is seen by whoever leaves.
                ensure!(!self.ending.load(Ordering::SeqCst), "the guard ends");
                return Ok("");
            }
            Request::Hold(warrant) if warrant.lease < now.lease => {
                bail!("the host was taken up anew since")
            }
            Request::Hold(Warrant { lease, asked, ttl }) => {
                let until = deadline(asked, ttl);
                // Renewals of one lease may come in any order.
                let until = if lease == now.lease { until.max(now.until) } else { until };
                let watched = self.level(ttl) == Level::Watchdog;
                Held { lease, until, over: false, watched }
            }
            Request::End => Held { over: true, ..now },
        };
        // On the disk first: a guard that is started again may know more than it said, never less.
        self.record.write(next).context("what was told cannot be written down")?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(if next.watched { Level::Watchdog } else { Level::Guard }.as_str())
    }

    fn level(&self, ttl: Duration) -> Level {
        self.watchdog.get().map_or(Level::Guard, |_| Level::with_watchdog(ttl))
    }
}
