//! Settings: what can change while the cluster runs. Each is a whole number with bounds.

use serde::{Deserialize, Serialize};

use crate::{
    Draft, Revision, State,
    event::Change,
    name::Name,
    rejected::{Rejected, Violation},
    table::{Resource, Row, Table},
};

/// What a setting is: its name, bounds, default, and who reads it.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// The key.
    pub key: Key,
    /// The name in the API and the CLI; its last word is the unit.
    pub name: &'static str,
    /// Least value.
    pub min: u64,
    /// Greatest value.
    pub max: u64,
    /// Value while nobody set it.
    pub default: u64,
    /// What it does, and who reads it.
    pub meaning: &'static str,
}

macro_rules! settings {
    ($($key:ident = $name:literal, $min:literal ..= $max:literal, $default:literal, $meaning:literal;)+) => {
        /// Names a setting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Key { $(#[doc = $meaning] #[serde(rename = $name)] $key,)+ }

        /// Every setting.
        pub const DEFINITIONS: &[Definition] = &[$(Definition {
            key: Key::$key, name: $name, min: $min, max: $max, default: $default, meaning: $meaning,
        },)+];

        impl Key {
            /// What the setting is.
            #[must_use]
            pub const fn definition(self) -> &'static Definition {
                match self { $(Key::$key => &DEFINITIONS[Key::$key as usize],)+ }
            }
        }
    };
}

settings! {
    VotersMax = "voters-max", 1 ..= 9, 5, "How many nodes vote; the rest follow. Read by the leader's membership actor.";
    VoterGraceMs = "voter-grace-ms", 1_000 ..= 86_400_000, 60_000, "How long a voter may be silent before a caught-up learner takes its place. Read by the leader's membership actor.";
    HostLeaseTtlMs = "host-lease-ttl-ms", 10_000 ..= 120_000, 20_000, "How long a host's lease lasts without a renewal. Read when a lease is granted.";
    StopGraceMs = "stop-grace-ms", 0 ..= 3_600_000, 60_000, "How long a guest may take to shut down before its power is cut. Read by the host that runs it.";
    OperationDeadlineMs = "operation-deadline-ms", 1_000 ..= 86_400_000, 600_000, "How long an operation may wait for a host, and then how long it may take from its turn on, before it is reported stuck. Read when it is accepted, at its turn, and when it is resumed.";
    OperationRetries = "operation-retries", 0 ..= 1_000, 10, "How many failures that may pass an operation bears before it is stuck. Each is several attempts of its host. Read when a host tells a failure.";
    VmOperationsWorkers = "vm-operations-workers", 0 ..= 10_000, 10, "How many operations on VMs may be under way in the cluster; 0 for none. Read when one waits for its turn.";
    VmOperationsWorkersMax = "vm-operations-workers-max", 1 ..= 10_000, 1_000, "To how many they grow when more than 20 wait. Read with vm-operations-workers.";
    VmOperationsQueuedMax = "vm-operations-queued-max", 1 ..= 200_000, 100_000, "How many operations on VMs may wait for a worker before more are refused. Read when one is asked for.";
    MigrationsWorkers = "migrations-workers", 0 ..= 1_000, 5, "How many migrations may be under way in the cluster; 0 for none. Read when a target is reserved.";
    MigrationsWorkersMax = "migrations-workers-max", 1 ..= 1_000, 10, "To how many they grow when more than 50 wait. Read with migrations-workers.";
    MonitoringAlertsWorkers = "monitoring-alerts-workers", 0 ..= 1_000, 20, "How many operations of monitoring and alerts may be under way; 0 for none. Read when one waits for its turn.";
    MonitoringAlertsWorkersMax = "monitoring-alerts-workers-max", 1 ..= 1_000, 40, "To how many they grow when more than 50 wait. Read with monitoring-alerts-workers.";
    CostAnalysisWorkers = "cost-analysis-workers", 0 ..= 1_000, 3, "How many operations of cost analysis may be under way; 0 for none. Read when one waits for its turn.";
    CostAnalysisWorkersMax = "cost-analysis-workers-max", 1 ..= 1_000, 6, "To how many they grow when more than 50 wait. Read with cost-analysis-workers.";
    ProbesQueuedMax = "probes-queued-max", 1 ..= 100_000, 10_000, "How many operations of monitoring-alerts, and of cost-analysis, may wait before more are refused. Read when one is asked for.";
    ProbeDeadlineMs = "probe-deadline-ms", 1_000 ..= 3_600_000, 60_000, "How long a probe may wait for its turn, and then how long it may take. Read when it is asked for and when it begins.";
    NoticeDeadlineMs = "notice-deadline-ms", 10_000 ..= 86_400_000, 600_000, "How long telling people of alerts may wait for its turn, and then how long it may take. Read when there is something to tell and when it begins.";
    CanaryIntervalMs = "canary-interval-ms", 0 ..= 86_400_000, 600_000, "How often a VM is made, run and deleted on a host of each driver, on one host after the other, from the image `canary`; never without such an image, or with 0. Read by the leader.";
    CanaryMemoryMib = "canary-memory-mib", 16 ..= 65_536, 128, "Memory of such a VM, MiB. Read when it is made.";
    DrainDeadlineMs = "drain-deadline-ms", 60_000 ..= 604_800_000, 86_400_000, "How long a host may take to be drained before that is reported stuck. Guests go on leaving all the same. Read when a drain is asked for.";
    MigrationsPerHost = "migrations-per-host", 1 ..= 100, 2, "How many migrations may come to and go from one host at one time. Read when a target is reserved.";
    MigrationsQueuedMax = "migrations-queued-max", 1 ..= 100_000, 1_000, "How many migrations may wait for their turn before more are refused. Read when one is asked for.";
    MigrationDeadlineMs = "migration-deadline-ms", 1_000 ..= 86_400_000, 600_000, "How long a migration may wait for its turn, and then how long it may take before it is undone. Read when it is asked for and when its target is reserved; each GiB of memory and of disks adds migration-deadline-ms-per-gib.";
    MigrationDeadlineMsPerGib = "migration-deadline-ms-per-gib", 0 ..= 3_600_000, 60_000, "What each GiB of a VM's memory and disks adds to its migration's deadline. Read when its target is reserved.";
    FailoverByGuard = "failover-by-guard", 0 ..= 1, 1, "Whether a lapsed lease proves that a host's guests ended when the host's guard ends them before that, and no watchdog watches the guard: 1 for yes; 0 for waiting until a fencing agent or a person knows, or the host boots anew. Read when a lease lapses.";
    FailoverByWatchdog = "failover-by-watchdog", 0 ..= 1, 1, "The same for hosts whose guard has a watchdog, which resets the host when the guard stands still. Read when a lease lapses.";
    FencingAfterMs = "fencing-after-ms", 3_000 ..= 120_000, 5_000, "How long a host may be silent before its fencing agent cuts its power, if it has one and VMs that would be started elsewhere. Read by the leader.";
    FailoversParallel = "failovers-parallel", 1 ..= 1_000, 10, "How many VMs of lost hosts may be on their way to others at one time. Read by the leader.";
    FailoverReserve = "failover-reserve", 0 ..= 1, 0, "For how many lost hosts room is kept: with 1 a VM is placed only where, whichever host is lost, its VMs that may be made anew have room on the others, in sum. Read when a VM is placed.";
    DiskFullPercent = "disk-full-percent", 50 ..= 99, 90, "From what use of a node's disk on growth is refused. Read when a command is decided.";
}

/// A setting somebody set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Which one.
    pub key: Key,
    /// Its value.
    pub value: u64,
    /// The entry that changed it last.
    pub revision: Revision,
}

/// What may be asked of settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum SettingCommand {
    /// Give it a value.
    Set {
        /// Which one.
        key: Key,
        /// The value.
        value: u64,
    },
    /// Give it its default again.
    Reset {
        /// Which one.
        key: Key,
    },
}

impl Resource for Setting {
    type Key = Key;

    fn key(&self) -> Key {
        self.key
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Setting> {
        &state.settings
    }
    fn table_mut(state: &mut State) -> &mut Table<Setting> {
        &mut state.settings
    }
    fn change(row: Row<Setting>) -> Change {
        Change::Setting(row)
    }
}

impl Key {
    /// The setting called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Key> {
        DEFINITIONS.iter().find(|definition| definition.name == name).map(|found| found.key)
    }
}

impl State {
    /// The value of a setting.
    #[must_use]
    pub fn setting(&self, key: Key) -> u64 {
        self.settings.get(&key).map_or(key.definition().default, |setting| setting.value)
    }
}

/// Decides about settings.
pub(crate) fn decide(draft: &mut Draft, command: SettingCommand) -> Result<(), Rejected> {
    let (SettingCommand::Set { key, .. } | SettingCommand::Reset { key }) = command;
    let definition = key.definition();
    match command {
        SettingCommand::Set { key, value } => {
            if !(definition.min..=definition.max).contains(&value) {
                let message = format!("must be {} to {}", definition.min, definition.max);
                return Rejected::unless_empty(vec![Violation::new(definition.name, message)]);
            }
            draft.put(Setting { key, value, revision: Revision::ZERO });
        }
        SettingCommand::Reset { key } => draft.delete::<Setting>(key),
    }
    if let Ok(name) = Name::new(definition.name) {
        draft.reply_object("setting", name);
    }
    Ok(())
}
