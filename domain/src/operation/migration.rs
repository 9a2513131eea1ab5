//! The kind `migrate`: a VM moves to another host, with its guest if that runs or is paused.
//!
//! | step | what is wanted | undo | done when | why in this order |
//! |---|---|---|---|---|
//! | reserve | a second body on the target | release it | it is placed | capacity first: nothing has changed yet |
//! | prepare | disks and a definition on the target | release it | the target says where it lands | what cannot be received is not sent |
//! | copy | memory and disks follow; the target stands still | abort | the source ended, with evidence, and the guest has arrived | the guest runs on all the while |
//! | switch | the target is the active body | none: the point of no return | the entry itself | one log entry decides which body may run |
//! | validate | the guest works on | by policy: the way back | its processors are seen to move, and its agent answers if it did before | before the source's disks go |
//! | retire | the source is released | none: tried until done | it is gone | its disks were the truth until the switch |
//!
//! A VM that is stopped has a guest all the same while it is copied, which never executes; nothing is
//! validated, and that guest is ended before the source is released.
//!
//! Before the switch a failure, a cancel or the deadline unwinds; after it there is only forward. The way
//! back is the same steps once more, in the other direction, after the source's remains are gone.

use serde::{Deserialize, Serialize};

use crate::{id::HostId, name::Name};

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A host is looked for.
    Reserve,
    /// The target makes ready.
    Prepare,
    /// The guest is copied, and runs at the source.
    Copy,
    /// The guest runs at the target; it is seen whether it does.
    Validate,
    /// What is left at the source is removed.
    Retire,
}

impl Step {
    /// Every step, in order. The switch is no step that lasts: it is the entry between copy and
    /// validate.
    pub const ALL: [Step; 5] =
        [Step::Reserve, Step::Prepare, Step::Copy, Step::Validate, Step::Retire];

    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Reserve => "reserve",
            Step::Prepare => "prepare",
            Step::Copy => "copy",
            Step::Validate => "validate",
            Step::Retire => "retire",
        }
    }

    /// Whether the guest's body has been switched: nothing can be undone any more.
    #[must_use]
    pub const fn is_past_switch(self) -> bool {
        match self {
            Step::Reserve | Step::Prepare | Step::Copy => false,
            Step::Validate | Step::Retire => true,
        }
    }
}

/// How a guest is to be copied, as a policy has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyPolicy {
    /// Most bandwidth, MiB/s; 0 for as much as there is.
    pub bandwidth_mib_s: u32,
    /// Longest time the guest may stand still at the end, milliseconds.
    pub downtime_ms: u32,
    /// Whether a guest that writes faster than can be copied is slowed down.
    pub auto_converge: bool,
    /// Over how many connections its memory is copied at a time.
    pub connections: u8,
    /// Rounds in which what remains may fail to fall before more is done about it, or the copying is given
    /// up.
    pub rounds_max: u32,
    /// What is done about it: the guest may stand still for so long, milliseconds. 0 to give up at once.
    pub stalled_downtime_ms: u32,
}

impl Default for CopyPolicy {
    fn default() -> CopyPolicy {
        CopyPolicy {
            bandwidth_mib_s: 0,
            downtime_ms: 300,
            auto_converge: true,
            connections: 1,
            rounds_max: 20,
            stalled_downtime_ms: 0,
        }
    }
}

/// What somebody wants otherwise than the policy for one migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CopyWish {
    /// See [`CopyPolicy::bandwidth_mib_s`].
    pub bandwidth_mib_s: Option<u32>,
    /// See [`CopyPolicy::downtime_ms`].
    pub downtime_ms: Option<u32>,
    /// See [`CopyPolicy::auto_converge`].
    pub auto_converge: Option<bool>,
}

impl CopyWish {
    /// The policy with what is wished.
    #[must_use]
    pub fn over(self, policy: CopyPolicy) -> CopyPolicy {
        CopyPolicy {
            bandwidth_mib_s: self.bandwidth_mib_s.unwrap_or(policy.bandwidth_mib_s),
            downtime_ms: self.downtime_ms.unwrap_or(policy.downtime_ms),
            auto_converge: self.auto_converge.unwrap_or(policy.auto_converge),
            ..policy
        }
    }
}

/// What becomes of a guest that shows no sign of life where it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenSilent {
    /// It stays and is looked at again; in the end the migration is stuck, and a person looks.
    #[default]
    Stay,
    /// It is taken back to where it came from.
    Return,
}

impl WhenSilent {
    /// Every choice.
    pub const ALL: [WhenSilent; 2] = [WhenSilent::Stay, WhenSilent::Return];

    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            WhenSilent::Stay => "stay",
            WhenSilent::Return => "return",
        }
    }
}

/// What a migration is held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// How the guest is copied.
    pub copy: CopyPolicy,
    /// How long it may take from its turn on, milliseconds; none for what the setting
    /// `migration-deadline-ms` says.
    pub deadline_ms: Option<u64>,
    /// What each GiB of memory and disks adds to that, milliseconds; none for what the setting
    /// `migration-deadline-ms-per-gib` says.
    pub deadline_ms_per_gib: Option<u64>,
    /// What becomes of a guest that shows no sign of life.
    pub when_silent: WhenSilent,
}

/// How far the copying is, as the source's driver told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Progress {
    /// Memory and disks that are to be copied in all, bytes. It grows as the guest writes.
    pub total_bytes: u64,
    /// What of it remains, bytes.
    pub remaining_bytes: u64,
    /// What the guest writes, bytes/s.
    pub dirty_bytes_s: u64,
    /// Rounds over the guest's memory.
    pub rounds: u32,
    /// How long the guest would stand still if it were switched now, milliseconds.
    pub downtime_ms: u32,
    /// How long it may stand still, milliseconds: what was asked for, or more since there was no headway.
    pub downtime_max_ms: u32,
}

/// What a migration knows besides what every operation does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// The one host it may go to, if somebody named one.
    pub to: Option<HostId>,
    /// What it is held to.
    pub terms: Terms,
    /// The policy that says so, if one applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Name>,
    /// How far it is.
    pub step: Step,
    /// How far the copying is.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// Whether the guest's agent answered before it left: then it is to answer where it has come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agent: bool,
    /// The home that the VM had before it left, see [`Vm::home`](crate::vm::Vm::home).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<HostId>,
    /// The host to which the guest is taken back, since it showed no sign of life where it had come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_back: Option<HostId>,
}

impl Migration {
    /// One that waits for its turn.
    #[must_use]
    pub fn new(to: Option<HostId>, terms: Terms, policy: Option<Name>) -> Migration {
        Migration {
            to,
            terms,
            policy,
            step: Step::Reserve,
            progress: None,
            agent: false,
            home: None,
            way_back: None,
        }
    }
}
