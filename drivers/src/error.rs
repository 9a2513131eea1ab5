//! How a driver fails.

/// What a failure means for the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// It did not happen; trying again may help.
    Transient,
    /// It did not happen, and will not without a change.
    Permanent,
    /// The body, or something it needs, is not there.
    NotFound,
    /// The body is in a state in which this cannot be done; observe it.
    Conflict,
    /// An account's limit is reached.
    Quota,
    /// The host or the cloud is full.
    Capacity,
    /// Too many calls; wait.
    Throttled,
    /// The driver may not do this.
    Auth,
    /// A higher fence was seen: the caller is no longer the owner.
    Fenced,
    /// The other side answered what the driver does not understand.
    Protocol,
    /// It may have happened. Observe before acting again.
    Ambiguous,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [ErrorKind; 11] = [
        ErrorKind::Transient,
        ErrorKind::Permanent,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::Quota,
        ErrorKind::Capacity,
        ErrorKind::Throttled,
        ErrorKind::Auth,
        ErrorKind::Fenced,
        ErrorKind::Protocol,
        ErrorKind::Ambiguous,
    ];

    /// Whether trying the same again is useless.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        match self {
            ErrorKind::Permanent | ErrorKind::Auth | ErrorKind::Protocol => true,
            ErrorKind::Transient
            | ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Quota
            | ErrorKind::Capacity
            | ErrorKind::Throttled
            | ErrorKind::Fenced
            | ErrorKind::Ambiguous => false,
        }
    }

    /// The name in messages and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Transient => "transient",
            ErrorKind::Permanent => "permanent",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Quota => "quota",
            ErrorKind::Capacity => "capacity",
            ErrorKind::Throttled => "throttled",
            ErrorKind::Auth => "auth",
            ErrorKind::Fenced => "fenced",
            ErrorKind::Protocol => "protocol",
            ErrorKind::Ambiguous => "ambiguous",
        }
    }
}

/// A driver's failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({})", kind.as_str())]
pub struct DriverError {
    /// What it means.
    pub kind: ErrorKind,
    /// What happened, for people.
    pub message: String,
}

impl DriverError {
    /// A failure of `kind`.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> DriverError {
        DriverError { kind, message: message.into() }
    }
}
