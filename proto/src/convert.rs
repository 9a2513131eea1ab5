//! How the API's messages and the domain's types become each other: one file per noun. Out is
//! always possible; in may fail, and then names the fields.

pub mod admin;
pub mod alert;
pub mod event;
pub mod infrastructure;
pub mod lock;
pub mod migration_policy;
pub mod operation;
pub mod vm;

use domain::{
    envelope::Outcome,
    name::Name,
    rejected::{Rejected, Violation},
};
use newtype_uuid::{TypedUuid, TypedUuidKind};

use crate::v1;

impl From<Outcome> for v1::Outcome {
    fn from(outcome: Outcome) -> v1::Outcome {
        v1::Outcome {
            kind: outcome.kind,
            object: outcome.object,
            operation: outcome.operation.map(|id| id.to_string()).unwrap_or_default(),
            revision: outcome.revision.as_u64(),
        }
    }
}

/// Reads a name.
///
/// # Errors
/// A violation of `field`.
pub fn name(field: &str, text: &str) -> Result<Name, Rejected> {
    Name::new(text).map_err(|error| invalid(field, error))
}

/// Reads an id.
///
/// # Errors
/// A violation of `field`.
pub fn id<K: TypedUuidKind>(field: &str, text: &str) -> Result<TypedUuid<K>, Rejected> {
    text.parse().map_err(|_| invalid(field, format!("{} is no id", clip(text))))
}

/// A refusal of one field.
pub fn invalid(field: &str, message: impl std::fmt::Display) -> Rejected {
    let violation = Violation::new(field, message.to_string());
    let message = format!("{field}: {message}");
    Rejected { reason: domain::rejected::Reason::Invalid, message, violations: vec![violation] }
}

/// A wall time for people, RFC 3339; empty for 0.
#[must_use]
pub fn time(wall_ms: u64) -> String {
    let instant = i64::try_from(wall_ms).ok().filter(|ms| *ms > 0);
    let instant = instant.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    instant.map(|instant| format!("{instant:.3}")).unwrap_or_default()
}

/// The beginning of a text somebody sent, for a message.
fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
