//! What a cluster is to be like.

use std::{fmt, net::SocketAddr, path::PathBuf};

/// What the cluster is to be like.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many nodes.
    pub nodes: usize,
    /// What its hosts are.
    pub hosts: Hosts,
    /// The directory with the programs.
    pub programs: PathBuf,
    /// How each node keeps its data.
    pub storage: Storage,
    /// Entries of the log between two snapshots; as is best for that storage, if absent.
    pub snapshot_entries: Option<u64>,
    /// What is known to end guests of real hosts.
    pub fencing: Fencing,
    /// What is broken on purpose.
    pub broken: Broken,
    /// The real host whose clock is slow by a tenth, for its node and its guard.
    pub slow_clock: Option<usize>,
    /// Whether the wall clock of each node can be moved.
    pub movable_clocks: bool,
    /// Settings of the cluster that are not as they come.
    pub settings: Vec<(&'static str, u64)>,
    /// How fast nodes expect each other to be.
    pub pace: Pace,
    /// Simulated hosts of each node besides its first.
    pub more_hosts: usize,
    /// Whether each node has a real hypervisor too, besides the simulated host apart from it: `r1`, `r2` …. They have
    /// no guards.
    pub real_too: bool,
    /// From which level on nodes log, as JSON; none for lines from `info` on.
    pub json_log: Option<&'static str>,
    /// Where nodes tell traces, if they do.
    pub traces: Option<Traces>,
    /// The program of an earlier version, which all nodes run until it is replaced.
    pub previous: Option<PathBuf>,
    /// Whether there is a place for one more node, without a host, which comes and goes.
    pub spare: bool,
}

impl ClusterOptions {
    /// So many nodes of the programs in a directory, with nothing special about them.
    #[must_use]
    pub fn new(nodes: usize, hosts: Hosts, programs: PathBuf) -> ClusterOptions {
        ClusterOptions {
            nodes,
            hosts,
            programs,
            storage: Storage::default(),
            snapshot_entries: None,
            fencing: Fencing::default(),
            broken: Broken::default(),
            slow_clock: None,
            movable_clocks: false,
            settings: Vec::new(),
            pace: Pace::default(),
            more_hosts: 0,
            real_too: false,
            json_log: None,
            traces: None,
            previous: None,
            spare: false,
        }
    }
}

/// Where traces are told.
#[derive(Clone, Copy, Debug)]
pub struct Traces {
    /// The collector.
    pub collector: SocketAddr,
    /// How many of a hundred; as many as by default, if absent.
    pub percent: Option<u8>,
}

/// How fast nodes expect each other to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As several on one busy machine.
    #[default]
    Relaxed,
    /// As each on a machine of its own; one address may ask as often as it can, and simulated hosts have room for
    /// thousands of VMs.
    Normal,
}

/// What is broken on purpose in a debug build, to show that a test would notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    #[default]
    Nothing,
    /// Drivers carry out whatever they are told, under whichever fence and lease.
    IgnoresFence,
    /// A guest that comes to a host goes on there as soon as it has been copied.
    NoPause,
    /// Guards let guests execute for longer than the cluster waits before it starts them elsewhere.
    TargetBeforeSource,
    /// Hosts do not sync the fences that they have seen.
    UnsyncedFence,
    /// Nodes acknowledge what they have not synced.
    NeverSyncs,
    /// Nodes answer every read from what they know.
    ReadsLocally,
    /// A request that is sent again is executed again.
    ForgetsRequests,
    /// Watchers miss some events.
    DropsEvents,
    /// Leases end by the wall clock.
    WallClockLeases,
    /// Two entries that are applied together are applied in the wrong order.
    AppliesOutOfOrder,
    /// A node that led goes on leading after a restart, before it knows what was committed.
    RestoresLeader,
}

impl Broken {
    /// What can be broken in a node or on its host, and is noticed by those who use a cluster.
    pub const NODE: [Broken; 10] = [
        Broken::NeverSyncs,
        Broken::ReadsLocally,
        Broken::ForgetsRequests,
        Broken::DropsEvents,
        Broken::WallClockLeases,
        Broken::AppliesOutOfOrder,
        Broken::NoPause,
        Broken::TargetBeforeSource,
        Broken::UnsyncedFence,
        Broken::IgnoresFence,
    ];
    /// What can be broken in a node's store: a simulation notices.
    pub const STORE: [Broken; 5] = [
        Broken::NeverSyncs,
        Broken::ReadsLocally,
        Broken::WallClockLeases,
        Broken::AppliesOutOfOrder,
        Broken::RestoresLeader,
    ];

    /// How a node is told, and its driver, which has its environment.
    #[must_use]
    pub fn environment(self) -> Option<(&'static str, &'static str)> {
        (self != Broken::Nothing).then_some(("NOVACRON_TEST_BREAK", self.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Broken::Nothing => "nothing",
            Broken::IgnoresFence => "ignore-fence",
            Broken::NoPause => "no-pause",
            Broken::TargetBeforeSource => "target-before-source",
            Broken::UnsyncedFence => "unsynced-fence",
            Broken::NeverSyncs => "never-sync",
            Broken::ReadsLocally => "read-locally",
            Broken::ForgetsRequests => "forget-requests",
            Broken::DropsEvents => "drop-events",
            Broken::WallClockLeases => "wall-clock-leases",
            Broken::AppliesOutOfOrder => "apply-out-of-order",
            Broken::RestoresLeader => "restore-leader",
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What ends the guests of hosts that are not heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fencing {
    /// Nothing.
    #[default]
    None,
    /// Each real host has a guard.
    Guards,
    /// The same, and each guard has a watchdog that cuts its host's power.
    Watchdogs,
    /// Guards without watchdogs, and there are agents that cut the power of hosts.
    GuardsAndAgents,
}

/// What the hosts of a cluster are. There is one for each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Simulated; the nodes talk over loopback.
    Simulated,
    /// Simulated, each with an address of its own on a bridge, whose links can be cut.
    Bridged,
    /// The same, each by a driver process and guard of its own; what they run outlives node and driver.
    Apart,
    /// Real hypervisors, on the same bridge.
    Real,
}

/// How nodes keep their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// In a directory of this machine.
    #[default]
    Directory,
    /// On a disk of its own whose power can be cut; snapshots are made often.
    Disk,
}
