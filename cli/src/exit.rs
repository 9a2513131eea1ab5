//! How the process ends.

use client::Error;
use tonic::Code;

/// An end that is no failure of a call.
#[derive(Debug, thiserror::Error)]
pub enum Exit {
    /// The operation ended otherwise than asked.
    #[error("{0}")]
    Stuck(String),
    /// It takes longer than it may.
    #[error("{0}")]
    Timeout(String),
    /// Nothing of that name.
    #[error("{0}")]
    NotFound(String),
}

/// The exit code for an error; see the crate's documentation.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return match exit {
            Exit::Stuck(_) => 3,
            Exit::NotFound(_) => 4,
            Exit::Timeout(_) => 7,
        };
    }
    let Some(error) = error.downcast_ref::<Error>() else { return 1 };
    match error.code() {
        Some(Code::NotFound) => 4,
        Some(Code::Aborted | Code::AlreadyExists) => 5,
        Some(Code::PermissionDenied | Code::Unauthenticated) => 6,
        Some(Code::InvalidArgument) => 2,
        Some(_) => 1,
        None if matches!(error, Error::Timeout(_)) => 7,
        None => 1,
    }
}
