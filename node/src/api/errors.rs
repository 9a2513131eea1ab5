//! How failures leave: a status code, a sentence, a stable reason, and the fields at fault.

use domain::{
    event::Compacted,
    rejected::{Category, Reason, Rejected},
};
use raft_store::{ProposeError, ReadError};
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain in which our reasons are unique.
pub(super) const DOMAIN: &str = "novacron";

pub(super) fn status(code: Code, message: &str, reason: &str) -> Status {
    with(code, message, reason, ErrorDetails::new())
}

fn with(code: Code, message: &str, reason: &str, mut details: ErrorDetails) -> Status {
    details.set_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, message.to_owned(), details)
}

/// A refusal.
pub(crate) fn rejected(rejected: Rejected) -> Status {
    let code = match (rejected.reason, rejected.reason.category()) {
        (Reason::Unauthenticated, _) => Code::Unauthenticated,
        (_, Category::Invalid) => Code::InvalidArgument,
        (_, Category::NotFound) => Code::NotFound,
        (_, Category::Exists) => Code::AlreadyExists,
        (_, Category::Conflict) => Code::Aborted,
        (_, Category::Precondition) => Code::FailedPrecondition,
        (_, Category::Exhausted) => Code::ResourceExhausted,
        (_, Category::Denied) => Code::PermissionDenied,
        (_, Category::Bug) => Code::Internal,
    };
    let mut details = ErrorDetails::new();
    for violation in &rejected.violations {
        details.add_bad_request_violation(&violation.field, &violation.message);
    }
    with(code, &rejected.message, rejected.reason.code(), details)
}

/// A proposal that was not accepted.
pub(crate) fn proposed(error: ProposeError) -> Status {
    match error {
        ProposeError::Rejected(refusal) => rejected(refusal),
        ProposeError::Unavailable(_) => {
            status(Code::Unavailable, &error.to_string(), "NO_DECISION")
        }
        ProposeError::Unknown(_) => {
            status(Code::DeadlineExceeded, &error.to_string(), "OUTCOME_UNKNOWN")
        }
    }
}

/// A read that could not be served.
pub(crate) fn read(error: ReadError) -> Status {
    match error {
        ReadError::Unavailable(_) => status(Code::Unavailable, &error.to_string(), "NOT_FRESH"),
        ReadError::OtherEpoch(_) => status(Code::OutOfRange, &error.to_string(), "OTHER_HISTORY"),
    }
}

/// A watch from before the ring.
pub(crate) fn compacted(error: Compacted) -> Status {
    status(Code::OutOfRange, &error.to_string(), "COMPACTED")
}

/// A caller whom nobody knows.
pub(crate) fn unauthenticated(message: &str) -> Status {
    status(Code::Unauthenticated, message, Reason::Unauthenticated.code())
}

/// A caller who may not.
pub(crate) fn denied(message: &str) -> Status {
    status(Code::PermissionDenied, message, Reason::PermissionDenied.code())
}

/// A caller who asks too often.
pub(crate) fn too_many(wait: std::time::Duration) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(wait));
    let message = format!("too many requests from this address; try again in {wait:?}");
    with(Code::ResourceExhausted, &message, "RATE_LIMITED", details)
}
