//! Every bound of the cluster in one place. What has no limit is a way to take the cluster down.

/// Lease time between two attempts to have a guest leave a host that is being drained, milliseconds.
pub const EVACUATION_PAUSE_MS: u64 = 30_000;
/// Highest priority of what waits for its turn.
pub const PRIORITY_MAX: u8 = 100;
/// What a point of priority is worth in a queue, milliseconds of waiting: whoever waited five minutes goes
/// before everybody who comes now.
pub const PRIORITY_POINT_MS: u64 = 3_000;
/// How long the next in a queue waits before a worker is added for it, milliseconds.
pub const TURN_PATIENCE_MS: u64 = 10_000;
/// Between two looks at workers that have grown, milliseconds.
pub const WORKERS_LOOK_MS: u64 = 60_000;
/// VMs after which a VM is to be started elsewhere.
pub const FAILOVER_AFTER_MAX: usize = 16;
/// Pools that one host sees.
pub const HOST_POOLS_MAX: usize = 64;
/// Longest time a driver's call may take, milliseconds; after that it may have happened, or yet happen.
pub const DRIVER_CALL_MS_MAX: u64 = 120_000;
/// How long after it was taken up a host is counted on to have been looked over, milliseconds.
pub const LOOK_OVER_MS: u64 = 30_000;
/// Most locks that are held at one time.
pub const LOCKS_MAX: usize = 100_000;
/// Most who wait for one lock.
pub const LOCK_WAITERS_MAX: usize = 256;
/// Shortest time a lock is held from a grant or a renewal, milliseconds.
pub const LOCK_TTL_MS_MIN: u64 = 1_000;
/// Longest time of the same, milliseconds.
pub const LOCK_TTL_MS_MAX: u64 = 86_400_000;
/// Longest time a lock is waited for, milliseconds.
pub const LOCK_WAIT_MS_MAX: u64 = 86_400_000;
/// Longest name of an owner, bytes.
pub const LOCK_OWNER_BYTES_MAX: usize = 255;
/// Most VMs in a cluster.
pub const VMS_MAX: usize = 200_000;
/// Most hosts in a cluster.
pub const HOSTS_MAX: usize = 10_000;
/// Most images in a cluster.
pub const IMAGES_MAX: usize = 10_000;
/// Nodes that keep a copy of each image, beside those whose hosts use it.
pub const IMAGE_COPIES: usize = 2;
/// How long a canary may take to run, and then to be deleted, milliseconds.
pub const CANARY_MS_MAX: u64 = 300_000;
/// Most rules of alerts.
pub const ALERT_RULES_MAX: usize = 100;
/// Most alerts that are known at one time.
pub const ALERTS_MAX: usize = 10_000;
/// Most silences.
pub const SILENCES_MAX: usize = 1_000;
/// Longest time of a silence, milliseconds.
pub const SILENCE_MS_MAX: u64 = 365 * 86_400_000;
/// Between two looks at what rules look at, milliseconds of lease time.
pub const ALERTS_LOOK_MS: u64 = 5_000;
/// Longest time that something must be so before it is told, milliseconds.
pub const ALERT_FOR_MS_MAX: u64 = 7 * 86_400_000;
/// Shortest and longest time within which something rises, milliseconds.
pub const ALERT_WITHIN_MS_MIN: u64 = 60_000;
/// See [`ALERT_WITHIN_MS_MIN`].
pub const ALERT_WITHIN_MS_MAX: u64 = 7 * 86_400_000;
/// How long an alert is remembered that is over, milliseconds.
pub const ALERT_KEPT_MS: u64 = 3_600_000;
/// The same of one whose end people could not be told, milliseconds.
pub const ALERT_UNTOLD_KEPT_MS: u64 = 7 * 86_400_000;
/// Most alerts of one rule: one of all VMs leaves room for others.
pub const ALERTS_OF_RULE_MAX: usize = 1_000;
/// How long what a node said of itself counts, milliseconds of lease time.
pub const CONDITION_MS: u64 = 90_000;
/// Bytes of what a rule says to people, and of why there is a silence.
pub const ALERT_SUMMARY_BYTES_MAX: usize = 500;
/// Alerts that one notice tells of.
pub const NOTICE_ALERTS_MAX: usize = 100;
/// How long people are left alone with what they could not be told, milliseconds.
pub const NOTICE_PAUSE_MS: u64 = 300_000;
/// In which steps it is told by how much clocks differ, milliseconds.
pub const CLOCK_SKEW_STEP_MS: i64 = 250;
/// Most migration policies in a cluster.
pub const MIGRATION_POLICIES_MAX: usize = 100;
/// Longest time that a guest may be let stand still at a migration's end, milliseconds.
pub const DOWNTIME_MS_MAX: u32 = 60_000;
/// Most connections over which one guest's memory is copied.
pub const MIGRATION_CONNECTIONS_MAX: u8 = 16;
/// Most rounds for which a copying may make no headway.
pub const MIGRATION_ROUNDS_MAX: u32 = 1_000;
/// Most projects in a cluster.
pub const PROJECTS_MAX: usize = 1_000;
/// Most credentials in a cluster, revoked ones included until they are swept.
pub const CREDENTIALS_MAX: usize = 10_000;
/// Most join tokens, used and expired ones included until they are swept.
pub const TOKENS_MAX: usize = 1_000;
/// Most nodes that are members at one time.
pub const NODES_MAX: usize = 100;
/// Most finished operations kept; the oldest go first.
pub const OPERATIONS_KEPT_MAX: usize = 20_000;
/// Most unfinished operations.
pub const OPERATIONS_OPEN_MAX: usize = 200_000;

/// Virtual CPUs of one VM.
pub const VCPUS_MAX: u32 = 512;
/// Memory of one VM, MiB (4 TiB).
pub const MEMORY_MIB_MAX: u32 = 4 * 1024 * 1024;
/// Least memory of one VM, MiB.
pub const MEMORY_MIB_MIN: u32 = 16;
/// Size of one disk, MiB (64 TiB).
pub const DISK_MIB_MAX: u32 = 64 * 1024 * 1024;
/// Disks of one VM beside the one its image brings.
pub const DISKS_MAX: usize = 16;
/// Network cards of one VM.
pub const NICS_MAX: usize = 16;
/// Labels of one object.
pub const LABELS_MAX: usize = 64;
/// Bytes of a label's value.
pub const LABEL_VALUE_BYTES_MAX: usize = 255;
/// Bytes of cloud-init user data. Libvirt and every cloud take 16 KiB.
pub const USER_DATA_BYTES_MAX: usize = 16 * 1024;
/// Bytes of what is appended to a guest's kernel command line.
pub const CMDLINE_BYTES_MAX: usize = 1024;
/// Problems that a refusal lists. They travel in headers, which have a bound of their own.
pub const VIOLATIONS_MAX: usize = 16;
/// Bytes of a problem's field and of its sentence: they may quote what was sent.
pub const VIOLATION_BYTES_MAX: usize = 256;
/// Bytes of any free text (a failure's message, an image's URL).
pub const TEXT_BYTES_MAX: usize = 2048;

/// Rows (reports, placements, renewals) that one command may carry.
pub const BATCH_MAX: usize = 1024;
/// Encoded bytes of one command, and so of one log entry.
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024;

/// Remembered requests.
pub const REQUESTS_MAX: usize = 262_144;
/// How long a request is remembered, milliseconds of lease time.
pub const REQUEST_WINDOW_MS: u64 = 10 * 60 * 1000;
/// Events in the ring.
pub const EVENTS_MAX: usize = 100_000;
/// Approximate bytes of the events in the ring.
pub const EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Restarts of a crashing guest wait 1 s, 2 s, 4 s … up to this, milliseconds.
pub const RESTART_DELAY_MS_MAX: u64 = 5 * 60 * 1000;
/// A guest that ran this long starts again with a fresh restart delay, milliseconds.
pub const RESTART_FORGIVEN_MS: u64 = 10 * 60 * 1000;

/// Cuts `text` to [`TEXT_BYTES_MAX`] at a character's border: foreign text (an error of a
/// hypervisor, say) is never trusted to be short.
#[must_use]
pub fn clip(text: &str) -> String {
    clip_to(text, TEXT_BYTES_MAX)
}

/// The first `bytes_max` bytes of a text, and not half a character.
#[must_use]
pub fn clip_to(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
