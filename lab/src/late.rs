//! Packets that reach a host late, each by a time of its own: so they overtake each other, too. The kernel of
//! many machines lacks `netem`; it hands over what arrives, and is told when to let it in.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::ErrorKind,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use nfq::{Message, Queue, Verdict};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::network::{BRIDGE, Space};

/// Of the host's namespace, which has no other.
const QUEUE: u16 = 0;
/// Packets that wait at one time; more are dropped.
const WAITING_MAX: u32 = 16_384;
/// Between two looks at what has arrived and what is due.
const LOOK: Duration = Duration::from_millis(1);
/// How long the kernel may take to hand packets over.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why this machine cannot have late packets, if it cannot.
///
/// # Errors
/// The reason in a sentence.
pub fn is_possible() -> Result<(), String> {
    crate::programs::require(&["iptables"])?;
    let tried = Space::make().and_then(|space| Late::begin(Arc::new(space), Duration::ZERO)?.end());
    tried.map(drop).map_err(|error| format!("packets cannot be late here: {error:#}"))
}

/// How late packets were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// How many.
    pub packets: u64,
    /// How many of them came after one that had been sent later.
    pub overtaken: u64,
}

/// What other hosts send to a host is late, until this ends.
#[derive(Debug)]
pub struct Late {
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<Result<Lateness>>>,
}

impl Late {
    /// Delays each packet by a time up to `most`.
    pub(crate) fn begin(space: Arc<Space>, most: Duration) -> Result<Late> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let (stopped, mut random) = (stop.clone(), fastrand::Rng::new());
        let work = move || -> Result<Lateness> {
            move_into_link_name_space(space.0.as_fd(), Some(LinkNameSpaceType::Network))?;
            let mut queue = Queue::open()?;
            queue.bind(QUEUE)?;
            queue.set_queue_max_len(QUEUE, WAITING_MAX)?;
            queue.set_nonblocking(true);
            rule(&space, "-A")?;
            let _ = ready.send(());
            let mut held = Held::default();
            let mut delay = || -> Result<()> {
                while !stopped.load(Ordering::Relaxed) {
                    held.take(&mut queue, || most.mul_f64(random.f64()))?;
                    held.let_in(&mut queue, Some(Instant::now()))?;
                    std::thread::sleep(LOOK);
                }
                Ok(())
            };
            let delayed = delay();
            // Whatever happened: with nobody behind it the rule lets nothing in.
            rule(&space, "-D")?;
            let mut rest = || -> Result<()> {
                held.take(&mut queue, || Duration::ZERO)?;
                held.let_in(&mut queue, None)
            };
            let let_in = rest();
            // Processes that were started meanwhile have its socket too: it would not end with this one.
            queue.unbind(QUEUE)?;
            delayed.and(let_in)?;
            Ok(held.lateness)
        };
        let worker = std::thread::Builder::new().name("lab-late".to_owned()).spawn(work)?;
        let mut late = Late { stop, worker: Some(worker) };
        if is_ready.recv_timeout(PATIENCE).is_err() {
            late.finish()?;
            return Err(anyhow!("the kernel hands no packets over"));
        }
        Ok(late)
    }

    /// Nothing is late any more. What waits is let in.
    ///
    /// # Errors
    /// When the kernel did not hand packets over, or take them back.
    pub fn end(mut self) -> Result<Lateness> {
        self.finish()
    }

    fn finish(&mut self) -> Result<Lateness> {
        self.stop.store(true, Ordering::Relaxed);
        let worker = self.worker.take().context("it has ended")?;
        worker.join().map_err(|_| anyhow!("the thread of late packets has panicked"))?
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Adds or removes the rule that hands over what other hosts send. What comes through the doors stays out
/// of it: by that the lab looks at its nodes.
fn rule(space: &Space, change: &str) -> Result<()> {
    let (bridge, queue) = (BRIDGE.to_string(), QUEUE.to_string());
    let rule = ["-i", "eth0", "!", "-s", &bridge, "-j", "NFQUEUE", "--queue-num", &queue];
    let command = [["iptables", "-w", "-t", "mangle", change, "INPUT"].as_slice(), &rule].concat();
    space.feed(&command, "").map(drop)
}

/// A packet that waits: when it is due, and which in the order of arrival it is.
struct Packet {
    due: Instant,
    number: u64,
    message: Message,
}

impl PartialEq for Packet {
    fn eq(&self, other: &Packet) -> bool {
        self.number == other.number
    }
}

impl Eq for Packet {}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Packet) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Packet {
    fn cmp(&self, other: &Packet) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

#[derive(Default)]
struct Held {
    packets: BinaryHeap<Reverse<Packet>>,
    /// The latest that was let in.
    newest: u64,
    lateness: Lateness,
}

impl Held {
    /// Takes what has arrived.
    fn take(&mut self, queue: &mut Queue, mut late: impl FnMut() -> Duration) -> Result<()> {
        loop {
            match queue.recv() {
                Ok(message) => {
                    self.lateness.packets += 1;
                    let (due, number) = (Instant::now() + late(), self.lateness.packets);
                    self.packets.push(Reverse(Packet { due, number, message }));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets in what is due; everything, when no time is said.
    fn let_in(&mut self, queue: &mut Queue, now: Option<Instant>) -> Result<()> {
        while let Some(Reverse(first)) = self.packets.peek() {
            if now.is_some_and(|now| first.due > now) {
                return Ok(());
            }
            let Some(Reverse(mut packet)) = self.packets.pop() else { return Ok(()) };
            self.lateness.overtaken += u64::from(packet.number < self.newest);
            self.newest = self.newest.max(packet.number);
            packet.message.set_verdict(Verdict::Accept);
            queue.verdict(packet.message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, sync::Arc, time::Duration};

    use super::{Late, is_possible};
    use crate::network::Space;

    /// A node that is started meanwhile has the socket as well, and lives on.
    #[test]
    fn packets_can_be_late_again_whoever_was_started_meanwhile() {
        if let Err(why) = is_possible() {
            assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "{why}");
            return println!("SKIPPED: {why}");
        }
        let space = Arc::new(Space::make().unwrap());
        let mut started = Vec::new();
        for _ in 0..2 {
            let late = Late::begin(space.clone(), Duration::from_millis(1)).unwrap();
            started.push(Command::new("sleep").arg("60").spawn().unwrap());
            late.end().unwrap();
        }
        for mut process in started {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}
