//! How a call fails.

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option cannot be used.
    #[error("{0}")]
    Options(String),
    /// The cluster refused.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// No node answered; a change may or may not have been made. Repeating it with the same request
    /// id is safe.
    #[error("no node answered: {}", .0.message())]
    Unreachable(Box<Status>),
    /// The operation did not end in time; it goes on.
    #[error("operation {0} has not ended yet; it goes on")]
    Timeout(String),
}

impl Error {
    /// The stable reason, `UPPER_SNAKE_CASE`; empty when there is none.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Error::Refused(status) | Error::Unreachable(status) => {
                status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
            }
            Error::Options(_) | Error::Timeout(_) => String::new(),
        }
    }

    /// Every field that was at fault, with what is wrong with it.
    #[must_use]
    pub fn violations(&self) -> Vec<(String, String)> {
        let Error::Refused(status) = self else { return Vec::new() };
        let request = status.get_details_bad_request();
        let fields = request.map(|request| request.field_violations).unwrap_or_default();
        fields.into_iter().map(|field| (field.field, field.description)).collect()
    }

    /// The status code, if a node answered.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Refused(status) => Some(status.code()),
            Error::Options(_) | Error::Unreachable(_) | Error::Timeout(_) => None,
        }
    }
}

/// Whether another node, or the same one later, may answer.
pub(crate) fn is_worth_another_try(status: &Status) -> bool {
    // What a node says arrives as text and has no source; a connection that breaks has one, whichever
    // code it shows as: a node that goes away in peace resets its calls as INTERNAL.
    std::error::Error::source(status).is_some()
        || matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_tried_again_and_a_refusal_is_not() {
        for code in (1..17).map(Code::from) {
            let said = Status::new(code, "a node's word");
            let again =
                matches!(code, Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded);
            assert_eq!(is_worth_another_try(&said), again, "{code:?}");
        }
        for reason in (0..14).map(h2::Reason::from) {
            let broken = Status::from_error(Box::new(h2::Error::from(reason)));
            assert!(is_worth_another_try(&broken), "{broken:?}");
        }
    }
}
