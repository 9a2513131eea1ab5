//! Refusals. Their reasons are part of the contract: clients match on them, so they never change.

use serde::{Deserialize, Serialize};

use crate::limit;

/// How a refusal is to be understood; the API turns it into a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Category {
    /// No state could make the request valid.
    Invalid,
    /// The thing named does not exist.
    NotFound,
    /// The thing exists already.
    Exists,
    /// Somebody else changed it first.
    Conflict,
    /// The state forbids it at present.
    Precondition,
    /// A limit is reached.
    Exhausted,
    /// The author may not.
    Denied,
    /// A fault of this program.
    Bug,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $category:ident;)+) => {
        /// A stable reason of a refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason { $($(#[doc = $doc])+ #[serde(rename = $code)] $variant,)+ }

        impl Reason {
            /// Every reason, for documents and tests.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The code in the API, `UPPER_SNAKE_CASE`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)+ }
            }

            /// How the refusal is to be understood.
            #[must_use]
            pub const fn category(self) -> Category {
                match self { $(Reason::$variant => Category::$category,)+ }
            }

            /// What it means and what to do, for the table in docs/.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

reasons! {
    /// One or more fields are not valid; each is named with its remedy.
    Invalid = "INVALID", Invalid;
    /// The command carries more rows or bytes than a log entry may.
    TooLarge = "TOO_LARGE", Invalid;
    /// Nothing of that name or id exists; list the noun to see what does.
    NotFound = "NOT_FOUND", NotFound;
    /// The name is taken in its project; choose another.
    NameTaken = "NAME_TAKEN", Exists;
    /// The object changed since the etag was read; read it again and repeat the change.
    EtagMismatch = "ETAG_MISMATCH", Conflict;
    /// The request_id was used for another request; use a fresh one.
    RequestIdReused = "REQUEST_ID_REUSED", Conflict;
    /// The request_id is older than the window in which requests are remembered; look whether the change was made, then use a fresh one.
    RequestTooOld = "REQUEST_TOO_OLD", Precondition;
    /// The VM has an operation under way; wait for it or cancel it.
    VmBusy = "VM_BUSY", Precondition;
    /// As many operations of the kind wait as may; ask again later.
    QueueFull = "QUEUE_FULL", Exhausted;
    /// Only an operation that is stuck, and of whose VM nothing else was asked since, can be taken up again.
    NotStuck = "NOT_STUCK", Precondition;
    /// The alert is over.
    AlertEnded = "ALERT_ENDED", Precondition;
    /// Somebody holds the lock; wait for it, or ask again later.
    LockHeld = "LOCK_HELD", Precondition;
    /// The VM is protected from deletion; update it with deletion_protection off first.
    DeletionProtected = "DELETION_PROTECTED", Precondition;
    /// The VM is being deleted.
    VmDeleting = "VM_DELETING", Precondition;
    /// The VM is not in a state in which this can be done.
    VmState = "VM_STATE", Precondition;
    /// The field can never change; create a new VM.
    FieldImmutable = "FIELD_IMMUTABLE", Precondition;
    /// VMs use the image; delete them first.
    ImageInUse = "IMAGE_IN_USE", Precondition;
    /// VMs run on the host; delete or move them first.
    HostInUse = "HOST_IN_USE", Precondition;
    /// The project still has VMs; delete them first.
    ProjectInUse = "PROJECT_IN_USE", Precondition;
    /// The plan was made on a state that has moved on; plan again.
    PlanStale = "PLAN_STALE", Conflict;
    /// The host cannot take the body: it is not ready, or its capacity is used.
    HostUnfit = "HOST_UNFIT", Precondition;
    /// The host was said to be off, by a person or a fencing agent, and comes back from the same boot; its guests may run twice. Reboot it.
    HostSaidDead = "HOST_SAID_DEAD", Conflict;
    /// The report comes from an owner that is no longer the owner.
    Fenced = "FENCED", Conflict;
    /// The operation has ended or has passed its point of no return.
    NotCancellable = "NOT_CANCELLABLE", Precondition;
    /// A limit of the cluster is reached; delete something first.
    LimitReached = "LIMIT_REACHED", Exhausted;
    /// A node's disk is nearly full; free space on it or delete something: deletes still pass.
    DiskFull = "DISK_FULL", Exhausted;
    /// The credential is unknown, expired or revoked.
    Unauthenticated = "UNAUTHENTICATED", Denied;
    /// The credential's role does not allow this.
    PermissionDenied = "PERMISSION_DENIED", Denied;
    /// The last admin credential cannot be revoked; create another first.
    LastAdmin = "LAST_ADMIN", Precondition;
    /// The join token is not known here: it was revoked, or belongs to another cluster.
    TokenUnknown = "TOKEN_UNKNOWN", Denied;
    /// The join token's time is over; create a new one. If it is new, compare the clocks of both machines.
    TokenExpired = "TOKEN_EXPIRED", Denied;
    /// The join token was used by another machine; create a new one.
    TokenUsed = "TOKEN_USED", Denied;
    /// The join token is for a node of another name.
    TokenScope = "TOKEN_SCOPE", Denied;
    /// The node was removed from the cluster; run `novacron node reset` on it and join again.
    NodeRemoved = "NODE_REMOVED", Denied;
    /// The last voter cannot be removed.
    LastVoter = "LAST_VOTER", Precondition;
    /// The cluster exists already.
    ClusterExists = "CLUSTER_EXISTS", Precondition;
    /// The program failed while deciding; nothing was changed. Please report it.
    Bug = "BUG", Bug;
}

/// One problem of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The field, as a path in the API's message: `spec.disks[0].size_mib`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Violation {
    /// A problem of `field`.
    #[must_use]
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Violation {
        let clip = |text: &str| limit::clip_to(text, limit::VIOLATION_BYTES_MAX);
        Violation { field: clip(&field.into()), message: clip(&message.into()) }
    }
}

/// A refused command. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Rejected {
    /// Why.
    pub reason: Reason,
    /// The sentence for people: what is wrong with which thing, and what to do.
    pub message: String,
    /// All problems at once, when fields are to blame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
}

impl Rejected {
    /// A refusal for `reason`, with a sentence about the case at hand.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Rejected {
        Rejected { reason, message: message.into(), violations: Vec::new() }
    }

    /// Nothing called `name` exists.
    #[must_use]
    pub fn not_found(noun: &str, name: impl std::fmt::Display) -> Rejected {
        Rejected::new(Reason::NotFound, format!("there is no {noun} {name}"))
    }

    /// Refuses when there are violations.
    ///
    /// # Errors
    /// [`Reason::Invalid`] with all of them.
    pub fn unless_empty(mut violations: Vec<Violation>) -> Result<(), Rejected> {
        let Some(first) = violations.first() else { return Ok(()) };
        let more = match violations.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        let message = format!("{}: {}{more}", first.field, first.message);
        violations.truncate(limit::VIOLATIONS_MAX);
        Err(Rejected { reason: Reason::Invalid, message, violations })
    }
}
