//! What the store measures.

use std::time::Duration;

use telemetry::{Counter, Described, Gauge, Histogram, Label, SECONDS, SYNC_SECONDS};

use crate::{Store, transport::wire::Proposed};

const OUTCOME: Label = Label {
    name: "outcome",
    values: "`accepted`, `rejected`, `not_leader`, `unavailable`, `unknown`",
};
const FOLLOWER: Label = Label { name: "follower", values: "names of the cluster's nodes" };

/// Since the leader took a command until it was decided on there.
pub(crate) static COMMIT: Histogram<0> = Histogram::new(
    "novacron_raft_commit_duration_seconds",
    "How long a command took on this node as the leader, from its proposal until it was on a majority's disks and applied.",
    [],
    SECONDS,
);
static PROPOSALS: Counter<1> = Counter::new(
    "novacron_raft_proposals_total",
    "Commands that were proposed to this node as the leader. `unknown` may have been done.",
    [OUTCOME],
);
static LEADER_CHECKS: Counter<1> = Counter::new(
    "novacron_raft_leader_checks_total",
    "How often this node, asked for a linearizable read as the leader, found out whether it still leads: from what others have promised, or from heartbeats, which take longer.",
    [Label { name: "by", values: "`promises`, `heartbeats`" }],
);
pub(crate) static SYNC: Histogram<0> = Histogram::new(
    "novacron_log_sync_duration_seconds",
    "How long the disk took to write and sync a piece of the log: nothing is acknowledged before.",
    [],
    SYNC_SECONDS,
);
pub(crate) static WRITTEN: Counter<0> =
    Counter::new("novacron_log_written_bytes_total", "What was written to the log.", []);
pub(crate) static SNAPSHOT: Histogram<1> = Histogram::new(
    "novacron_raft_snapshot_duration_seconds",
    "How long it took to write the whole state, or to take it from the leader.",
    [Label { name: "what", values: "`built`, `installed`" }],
    SECONDS,
);
pub(crate) static COPY: Histogram<0> = Histogram::new(
    "novacron_state_copy_duration_seconds",
    "How long a batch of the state's copy in sled took. Nothing waits for it.",
    [],
    SECONDS,
);

static TERM: Gauge<0> = Gauge::new("novacron_raft_term", "The current term.", []);
static IS_LEADER: Gauge<0> =
    Gauge::new("novacron_raft_is_leader", "1 on the node that leads, 0 on others.", []);
static LAST: Gauge<0> =
    Gauge::new("novacron_raft_last_index", "The newest entry of this node's log.", []);
static APPLIED: Gauge<0> =
    Gauge::new("novacron_raft_applied_index", "The newest entry in this node's state.", []);
static SNAPSHOT_AT: Gauge<0> =
    Gauge::new("novacron_raft_snapshot_index", "The newest entry in this node's snapshot.", []);
static PURGED: Gauge<0> =
    Gauge::new("novacron_raft_purged_index", "The newest entry that left this node's log.", []);
static VOTERS: Gauge<0> = Gauge::new("novacron_raft_voters", "Nodes that vote.", []);
static LEARNERS: Gauge<0> =
    Gauge::new("novacron_raft_learners", "Nodes that follow without a vote.", []);
static LAG: Gauge<1> = Gauge::new(
    "novacron_raft_follower_lag_entries",
    "By how many entries a follower is behind. Only the leader tells.",
    [FOLLOWER],
);
static SILENCE: Gauge<1> = Gauge::new(
    "novacron_raft_follower_silence_seconds",
    "How long ago a follower was last heard of. Only the leader tells, of those it has heard of.",
    [FOLLOWER],
);
static LOSABLE: Gauge<0> = Gauge::new(
    "novacron_raft_losable_voters",
    "How many more voters may be lost before nothing can be decided. Only the leader tells.",
    [],
);
static EVENTS: Gauge<0> =
    Gauge::new("novacron_events_kept", "Events from which a watch can be resumed.", []);

/// Everything that the store measures.
pub static INVENTORY: &[Described] = &[
    COMMIT.described(),
    PROPOSALS.described(),
    LEADER_CHECKS.described(),
    SYNC.described(),
    WRITTEN.described(),
    SNAPSHOT.described(),
    COPY.described(),
    TERM.described(),
    IS_LEADER.described(),
    LAST.described(),
    APPLIED.described(),
    SNAPSHOT_AT.described(),
    PURGED.described(),
    VOTERS.described(),
    LEARNERS.described(),
    LAG.described(),
    SILENCE.described(),
    LOSABLE.described(),
    EVENTS.described(),
];

/// Tells what is so at present.
pub fn sample(store: &Store) {
    let status = store.status();
    let last = status.last_index.unwrap_or(0);
    TERM.set::<&str>([], status.term);
    IS_LEADER.set::<&str>([], status.leads);
    LAST.set::<&str>([], last);
    APPLIED.set::<&str>([], status.applied_index.unwrap_or(0));
    SNAPSHOT_AT.set::<&str>([], status.snapshot_index.unwrap_or(0));
    PURGED.set::<&str>([], status.purged_index.unwrap_or(0));
    VOTERS.set::<&str>([], status.voters.len());
    LEARNERS.set::<&str>([], status.learners.len());
    let view = store.view();
    for (node, follower) in &status.followers {
        let named = view.state.nodes.get(node).map(|row| row.name.to_string());
        let named = [named.unwrap_or_else(|| node.to_string())];
        let matched = follower.matched.map_or(0, |at| at.index);
        LAG.set(named.clone(), last.saturating_sub(matched));
        if let Some(silent_ms) = follower.silent_ms {
            SILENCE.set(named, Duration::from_millis(silent_ms));
        }
    }
    if status.leads {
        LOSABLE.set::<&str>([], status.losable());
    }
    EVENTS.set::<&str>([], view.state.events.len());
}

/// Counts of proposals, kept at hand: there may be many each second.
pub(crate) struct Proposals {
    took: telemetry::series::Histogram,
    accepted: telemetry::series::Counter,
    rejected: telemetry::series::Counter,
}

/// How a leader made sure that it still leads: looked up once.
pub(crate) struct LeaderChecks {
    pub(crate) by_promises: telemetry::series::Counter,
    pub(crate) by_heartbeats: telemetry::series::Counter,
}

impl LeaderChecks {
    pub(crate) fn new() -> LeaderChecks {
        LeaderChecks {
            by_promises: LEADER_CHECKS.of(["promises"]),
            by_heartbeats: LEADER_CHECKS.of(["heartbeats"]),
        }
    }
}

impl Proposals {
    pub(crate) fn new() -> Proposals {
        Proposals {
            took: COMMIT.of::<&str>([]),
            accepted: PROPOSALS.of(["accepted"]),
            rejected: PROPOSALS.of(["rejected"]),
        }
    }

    /// Notes what became of one that was made so long ago.
    pub(crate) fn note(&self, proposed: &Proposed, took: Duration) {
        match proposed {
            Proposed::Accepted(_) => self.accepted.increment(1),
            Proposed::Rejected(_) => self.rejected.increment(1),
            Proposed::NotLeader(_) => return PROPOSALS.of(["not_leader"]).increment(1),
            Proposed::Unavailable(_) => return PROPOSALS.of(["unavailable"]).increment(1),
            Proposed::Unknown(_) => return PROPOSALS.of(["unknown"]).increment(1),
        }
        self.took.record(took.as_secs_f64());
    }
}
