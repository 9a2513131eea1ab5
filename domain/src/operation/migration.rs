//! The kind `migrate`: a VM moves to another host, with its guest if that runs or is paused.
//!
//! | step | what is wanted | undo | done when | why in this order |
//! |---|---|---|---|---|
//! | reserve | a second body on the target | release it | it is placed | capacity first: nothing has changed yet |
//! | prepare | disks and a definition on the target | release it | the target says where it lands | what cannot be received is not sent |
//! | copy | memory and disks follow; the target stands still | abort | the source ended, with evidence, and the guest has arrived | the guest runs on all the while |
//! | switch | the target is the active body | none: the point of no return | the entry itself | one log entry decides which body may run |
//! | validate | the guest works on | none | its processors are seen to move | before the source's disks go |
//! | retire | the source is released | none: tried until done | it is gone | its disks were the truth until the switch |
//!
//! A VM that is stopped has a guest all the same while it is copied, which never executes; nothing is
//! validated, and that guest is ended before the source is released.
//!
//! Before the switch a failure, a cancel or the deadline unwinds; after it there is only forward.

use serde::{Deserialize, Serialize};

use crate::id::HostId;

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

/// How a guest is to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyPolicy {
    /// Most bandwidth, MiB/s; 0 for as much as there is.
    pub bandwidth_mib_s: u32,
    /// Longest time the guest may stand still at the end, milliseconds.
    pub downtime_ms: u32,
    /// Whether a guest that writes faster than can be copied is slowed down.
    pub auto_converge: bool,
    /// Rounds in which what remains may fail to fall before the copying is given up.
    pub rounds_max: u32,
}

impl Default for CopyPolicy {
    fn default() -> CopyPolicy {
        CopyPolicy { bandwidth_mib_s: 0, downtime_ms: 300, auto_converge: true, rounds_max: 20 }
    }
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
}

/// What a migration knows besides what every operation does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// The one host it may go to, if somebody named one.
    pub to: Option<HostId>,
    /// How it is copied.
    pub policy: CopyPolicy,
    /// How far it is.
    pub step: Step,
    /// How far the copying is.
    #[serde(default)]
    pub progress: Option<Progress>,
}

impl Migration {
    /// One that waits for its turn.
    #[must_use]
    pub fn new(to: Option<HostId>, policy: CopyPolicy) -> Migration {
        Migration { to, policy, step: Step::Reserve, progress: None }
    }
}
