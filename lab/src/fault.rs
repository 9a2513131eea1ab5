//! What can befall a cluster's nodes, and how it is seen to have happened.

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use crate::{
    cgroup::{Limit, Limited},
    cluster::{Cluster, PATIENCE},
    damage::{self, Flipped},
    disk::Waiting,
    hypervisor::Hypervisor,
    late::Late,
    network::Network,
    power,
    proxy::Proxy,
    rpc::Strike,
    syncs::{TamperedSyncs, Tampering},
    watchdog::Watchdog,
};

/// What an actor says that panics because a test wants it: `actors::planted` has the same words.
pub const PLANTED: &str = "a test planted this panic";

impl Cluster {
    /// Kills a node's process at once, as a power cut does. Its guests run on. The answer is how it ended, if
    /// there was one: it may have before.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self, node: usize) -> Result<Option<ExitStatus>> {
        self.nodes[node].kill()
    }

    /// Stops a node's process where it is, as a machine does that is out of breath.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.nodes[node].signal(Signal::STOP)
    }

    /// The state of a node's process, as the system tells it: `T` is stopped; none when there is none.
    #[must_use]
    pub fn process_state(&self, node: usize) -> Option<char> {
        let pid = self.nodes[node].process.as_ref()?.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Lets a paused node go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, node: usize) -> Result<()> {
        self.nodes[node].signal(Signal::CONT)
    }

    /// Cuts links between hosts, each in the direction from → to, and no others.
    ///
    /// # Errors
    /// When the hosts have no network of their own.
    pub fn cut(&self, links: &[(usize, usize)]) -> Result<()> {
        self.network()?.cut(links)
    }

    /// Cuts every link between these nodes and the others, in both directions.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn isolate(&self, nodes: &[usize]) -> Result<()> {
        let all = 0..self.nodes.len();
        let pairs = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
        let crosses = |(from, to): &(usize, usize)| nodes.contains(from) != nodes.contains(to);
        self.cut(&pairs.filter(crosses).collect::<Vec<_>>())
    }

    /// Mends every link.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn heal(&self) -> Result<()> {
        self.cut(&[])
    }

    /// How many packets were dropped on cut links so far: the proof that a cut happened.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn dropped(&self) -> Result<u64> {
        self.network()?.dropped()
    }

    /// Loses so many of a hundred packets between hosts.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn lose_packets(&self, percent: u32) -> Result<()> {
        self.network()?.lose(percent)
    }

    /// Loses no packets any more; the answer is how many were lost so far.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn keep_packets(&self) -> Result<u64> {
        self.network()?.keep()
    }

    /// Sends so many of a hundred packets between the hosts a second time, whichever chance wants.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn send_packets_twice(&self, percent: u32) -> Result<()> {
        self.network()?.send_twice(percent)
    }

    /// Sends each packet once; the answer is how many were sent twice so far.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn send_packets_once(&self) -> Result<u64> {
        self.network()?.send_once()
    }

    /// Makes what other hosts send to a node's late, each packet by a time up to `most`: they overtake each
    /// other.
    ///
    /// # Errors
    /// As [`Cluster::cut`], or when the kernel hands no packets over.
    pub fn make_late(&self, node: usize, most: Duration) -> Result<Late> {
        self.network()?.make_late(node, most)
    }

    /// Lets a node's host send so much at most, kbit/s.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn narrow(&self, node: usize, rate_kbit: u32) -> Result<()> {
        self.network()?.narrow(node, rate_kbit)
    }

    /// Lets a node's host send as fast as it can; the answer is how often something had to wait.
    ///
    /// # Errors
    /// When it could already.
    pub fn widen(&self, node: usize) -> Result<u64> {
        self.network()?.widen(node)
    }

    /// Has every sync of a node's process fail, as on a disk that is broken, or take long.
    ///
    /// # Errors
    /// When the node does not run, or nobody can stand between it and the system.
    pub fn tamper_with_syncs(&self, node: usize, how: Tampering) -> Result<TamperedSyncs> {
        TamperedSyncs::begin(self.nodes[node].pid()?, how, &self.nodes[node].directory)
    }

    /// Limits what a node's process may use.
    ///
    /// # Errors
    /// When the node does not run, or the system refuses.
    pub fn limit(&self, node: usize, limit: Limit) -> Result<Limited> {
        Limited::begin(self.nodes[node].pid()?, limit)
    }

    /// Damages the log of a node that does not run: one bit of what was synced is another. The answer takes it
    /// back; it is none when there is too little of a log.
    ///
    /// # Errors
    /// When there is no log.
    pub fn flip_bit(&self, node: usize) -> Result<Option<Flipped>> {
        Flipped::flip(&self.nodes[node].data().join("log"))
    }

    /// Leaves half a write behind the end of the log of a node that does not run, as a crash does; the answer is
    /// how many bytes.
    ///
    /// # Errors
    /// When there is no log.
    pub fn tear_tail(&self, node: usize) -> Result<usize> {
        damage::tear_tail(&self.nodes[node].data().join("log"))
    }

    /// Has one message between two hosts' libvirt daemons struck, of those that another host's sends to
    /// this node's or gets from it.
    ///
    /// # Errors
    /// When the host has none.
    pub fn intercept(&self, node: usize, strike: Strike) -> Result<Proxy> {
        let hypervisor = self.hypervisor(node)?;
        let program = self.nodes[node].programs.join("novacron-lab-rpc-proxy");
        let space = self.network()?.space(node);
        Proxy::start(&program, space, node, hypervisor.directory(), strike)
    }

    fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("the hosts have no network of their own")
    }

    /// Cuts the power of a killed node's disk and gives it back; the answer is how many bytes that
    /// were not synced are known to be lost.
    ///
    /// # Errors
    /// When the node has no disk of its own, runs, or nothing was lost.
    pub fn cut_power(&self, node: usize) -> Result<u64> {
        self.nodes[node].cut_power()
    }

    /// Fills a node's disk until so much of it is used, percent; 100 is until it takes no more. The answer is
    /// whether it took no more.
    ///
    /// # Errors
    /// When the node has no disk of its own.
    pub fn fill_disk(&self, node: usize, percent: u64) -> Result<bool> {
        self.nodes[node].disk()?.fill(percent)
    }

    /// Frees what [`Cluster::fill_disk`] took.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free_disk(&self, node: usize) -> Result<()> {
        self.nodes[node].disk()?.free()
    }

    /// Has a node's disk take nothing, as one that hangs: whoever writes waits. The answer is one that does.
    ///
    /// # Errors
    /// When the node has no disk of its own.
    pub fn freeze_disk(&self, node: usize) -> Result<Waiting> {
        self.nodes[node].disk()?.freeze()
    }

    /// Lets what waits for a frozen disk go on.
    ///
    /// # Errors
    /// When it is not frozen.
    pub fn thaw_disk(&self, node: usize) -> Result<()> {
        self.nodes[node].disk()?.thaw()
    }

    /// Moves the wall clock of a node's process, to so many seconds off the right time.
    ///
    /// # Errors
    /// When its clock cannot be moved.
    pub fn set_wall_clock(&self, node: usize, off_s: i64) -> Result<()> {
        let clock = self.nodes[node].wall_clock.as_ref();
        clock.context("the node's clock cannot be moved")?.set(off_s)
    }

    /// How a node's process has ended by itself, if it has.
    pub fn ended(&mut self, node: usize) -> Option<ExitStatus> {
        self.nodes[node].ended()
    }

    /// Waits until a node's process has ended by itself; the answer is its exit code.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn await_end(&mut self, node: usize) -> Result<Option<i32>> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.nodes[node].ended() {
                return Ok(status.code());
            }
            ensure!(begun.elapsed() < PATIENCE, "node {} still runs after {PATIENCE:?}", node + 1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills a host's libvirtd; it is started again, as on any machine. Its guests run on.
    ///
    /// # Errors
    /// When the host has none.
    pub fn kill_libvirtd(&self, node: usize) -> Result<()> {
        self.hypervisor(node)?.kill_daemon()
    }

    /// Has every network that a host's libvirtd starts wait, as behind a script of the machine's owner that
    /// hangs. The call that is made for a guest's network is held up with it, and no other.
    ///
    /// # Errors
    /// When the host has none.
    pub fn hold_networks(&self, node: usize) -> Result<()> {
        self.hypervisor(node)?.hold_networks()
    }

    /// Waits until a network waits.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn await_held_network(&self, node: usize) -> Result<()> {
        let (hypervisor, begun) = (self.hypervisor(node)?, Instant::now());
        while !hypervisor.network_was_held() {
            ensure!(begun.elapsed() < PATIENCE, "no network is being started");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Lets what [`Cluster::hold_networks`] holds go on.
    ///
    /// # Errors
    /// When nothing is held.
    pub fn release_networks(&self, node: usize) -> Result<()> {
        self.hypervisor(node)?.release_networks()
    }

    fn hypervisor(&self, node: usize) -> Result<&Hypervisor> {
        self.nodes[node].hypervisor.as_ref().context("there is no hypervisor")
    }

    /// Kills the processes of a host that execute a VM's guest; the answer is how many there were.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn kill_guest(&self, node: usize, vm: &str) -> Result<usize> {
        kill_all(self.guests_of(node, vm))
    }

    /// Kills every process of a host that executes a guest; the answer is how many there were.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn kill_guests(&self, node: usize) -> Result<usize> {
        kill_all(self.guests(node))
    }

    /// The processes of a host that execute, or are about to execute, a VM's guest.
    #[must_use]
    pub fn guests_of(&self, node: usize, vm: &str) -> Vec<i32> {
        let executes = |pid: &i32| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == vm.as_bytes())
        };
        self.guests(node).into_iter().filter(executes).collect()
    }

    /// Cuts the power of a node's host: everything on it ends at once.
    ///
    /// # Errors
    /// When something has not ended.
    pub fn cut_host(&mut self, node: usize) -> Result<usize> {
        let row = &mut self.nodes[node];
        let ended = power::cut(&row.directory)?;
        row.kill()?;
        row.kill_guard()?;
        if let Some(watchdog) = &row.watchdog {
            watchdog.power_off();
        }
        Ok(ended)
    }

    /// How often the watchdog of a node's host has cut its power.
    #[must_use]
    pub fn watchdog_resets(&self, node: usize) -> usize {
        self.nodes[node].watchdog.as_ref().map_or(0, Watchdog::resets)
    }

    /// Boots a host whose power was cut.
    ///
    /// # Errors
    /// When its guard or its node cannot be started.
    pub fn boot_host(&mut self, node: usize) -> Result<()> {
        self.cut_host(node)?;
        let row = &mut self.nodes[node];
        row.boot.as_ref().context("the host's boot is the machine's")?.anew()?;
        row.run_guard()?;
        self.run(node)
    }

    /// Kills the guard of a node's host.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_guard(&mut self, node: usize) -> Result<()> {
        self.nodes[node].kill_guard()
    }

    /// Stops the guard of a node's host where it is.
    ///
    /// # Errors
    /// When there is none.
    pub fn pause_guard(&self, node: usize) -> Result<()> {
        let guard = self.nodes[node].guard.as_ref().context("there is no guard")?;
        Ok(kill_process(Pid::from_child(guard), Signal::STOP)?)
    }

    /// Starts the guard of a node's host again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run_guard(&mut self, node: usize) -> Result<()> {
        self.nodes[node].run_guard()
    }

    /// Stops the driver process of a node where it is.
    ///
    /// # Errors
    /// When there is none.
    pub fn pause_driver(&self, node: usize) -> Result<()> {
        let pid = self.nodes[node].driver().context("there is no driver process")?;
        Ok(kill_process(pid, Signal::STOP)?)
    }

    /// Lets a paused driver process go on.
    ///
    /// # Errors
    /// When there is none.
    pub fn resume_driver(&self, node: usize) -> Result<()> {
        let pid = self.nodes[node].driver().context("there is no driver process")?;
        Ok(kill_process(pid, Signal::CONT)?)
    }

    /// Has some actors of a node panic.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn plant_panics(&self, node: usize) -> Result<()> {
        Ok(std::fs::write(self.nodes[node].panics(), "")?)
    }

    /// How many actors of a node have panicked because of that.
    #[must_use]
    pub fn planted_panics(&self, node: usize) -> usize {
        self.log(node).lines().filter(|line| *line == PLANTED).count()
    }

    /// The driver process of a node, if there is one.
    #[must_use]
    pub fn driver(&self, node: usize) -> Option<Pid> {
        self.nodes[node].driver()
    }

    /// The driver process of a node's hypervisor, if there is one.
    #[must_use]
    pub fn real_driver(&self, node: usize) -> Option<Pid> {
        self.nodes[node].real_driver()
    }

    /// Has all guests of a node's host crash, when that is apart from it.
    ///
    /// # Errors
    /// When its driver does not run.
    pub fn crash_guests(&self, node: usize) -> Result<()> {
        let pid = self.driver(node).context("there is no driver process")?;
        Ok(kill_process(pid, Signal::USR1)?)
    }

    /// How many guests of a node's host were made to crash so far.
    #[must_use]
    pub fn crashed_guests(&self, node: usize) -> usize {
        let log = self.driver_log(node);
        let counts = log.lines().filter_map(|line| line.strip_prefix("guests that crashed: "));
        counts.filter_map(|count| count.parse::<usize>().ok()).sum()
    }

    /// Kills the driver process of a node's hypervisor, if there is one.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_real_driver(&self, node: usize) -> Result<()> {
        kill_all(self.real_driver(node).map(|pid| pid.as_raw_nonzero().get())).map(drop)
    }

    /// Kills the driver process of a node.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_driver(&self, node: usize) -> Result<()> {
        let pid = self.driver(node).context("there is no driver process")?;
        // It may just have ended.
        let _ = kill_process(pid, Signal::KILL);
        Ok(())
    }
}

/// Kills processes; the answer is how many there still were.
fn kill_all(pids: impl IntoIterator<Item = i32>) -> Result<usize> {
    let mut killed = 0;
    for pid in pids.into_iter().filter_map(Pid::from_raw) {
        match kill_process(pid, Signal::KILL) {
            Ok(()) => killed += 1,
            Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(killed)
}
