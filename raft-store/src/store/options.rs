//! How a store is opened.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use domain::id::{ClusterId, NodeId, StoreId};
use openraft::{Config, SnapshotPolicy};

use crate::{is_broken, wal::WalOptions};

/// The id of the node that founds a cluster.
pub struct Founder;

impl Founder {
    /// Its id.
    pub const NODE: NodeId = 1;
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if it does not exist.
    pub directory: PathBuf,
    /// The directory's identity if it is new.
    pub store: StoreId,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Where peers are listened for.
    pub peer_address: SocketAddr,
    /// Whose files other nodes may fetch; each has the hexadecimal SHA-256 of its bytes as its name.
    pub shared: PathBuf,
    /// How fast things are expected to go.
    pub timing: Timing,
    /// The log's files.
    pub wal: WalOptions,
}

/// How fast things are expected to go, and when logs give way to snapshots.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats, milliseconds.
    pub heartbeat_ms: u64,
    /// Silence after which a node may stand for election, least, milliseconds. It waits for the
    /// leader's lease, `election_ms_max`, and then a random time between the two.
    pub election_ms_min: u64,
    /// See [`Timing::election_ms_min`].
    pub election_ms_max: u64,
    /// Entries after which a snapshot is made.
    pub snapshot_entries: u64,
    /// Entries kept before a snapshot, for peers that are a little behind.
    pub kept_entries: u64,
    /// Bytes of entries at which a snapshot is made before there are so many of them; a quarter of that stays.
    pub log_bytes: usize,
    /// How long a proposal or a read may take in all.
    pub deadline: Duration,
}

impl Default for Timing {
    /// For machines on one network: a lost leader is replaced within about a second.
    fn default() -> Timing {
        Timing {
            heartbeat_ms: 100,
            election_ms_min: 300,
            election_ms_max: 400,
            snapshot_entries: 50_000,
            kept_entries: 5_000,
            log_bytes: 256 << 20,
            deadline: Duration::from_secs(15),
        }
    }
}

impl Timing {
    /// For several nodes on one busy machine: tests, `novacron dev`.
    #[must_use]
    pub fn relaxed() -> Timing {
        Timing {
            heartbeat_ms: 250,
            election_ms_min: 1_000,
            election_ms_max: 1_500,
            deadline: Duration::from_secs(30),
            ..Timing::default()
        }
    }

    /// How long a hand-over is waited for. Who takes over stands for election at once; who has just
    /// gone away never answers, and a node that is stopping must not wait for it.
    pub(crate) fn hand_over(&self) -> Duration {
        const ELECTIONS: u64 = 3;
        Duration::from_millis(ELECTIONS * self.election_ms_max)
    }

    pub(crate) fn raft_config(&self) -> Result<Arc<Config>, String> {
        let config = Config {
            cluster_name: "novacron".to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_ms_min,
            election_timeout_max: self.election_ms_max,
            // The whole of a large state, over a slow network.
            install_snapshot_timeout: 10 * 60 * 1_000,
            max_payload_entries: 1_024,
            replication_lag_threshold: self.snapshot_entries + self.kept_entries,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.kept_entries,
            // A node that was cut off must not disturb the others when it comes back.
            enable_pre_vote: Some(true),
            // Unsafe with a state machine in memory: a restarted leader would serve before it knows
            // what was committed.
            enable_leader_restore: Some(is_broken("restore-leader")),
            // A follower whose log went back has lost its disk: it must join as a new node.
            allow_log_reversion: Some(false),
            ..Config::default()
        };
        config.validate().map(Arc::new).map_err(|error| error.to_string())
    }
}
