//! Operations.

use domain::operation::Operation;

use super::time;
use crate::v1;

/// An operation as the API shows it.
#[must_use]
pub fn operation(operation: &Operation) -> v1::Operation {
    v1::Operation {
        id: operation.id.to_string(),
        kind: operation.kind.as_str().to_owned(),
        project: operation.project.to_string(),
        vm: operation.vm_name.to_string(),
        status: operation.status.as_str().to_owned(),
        done: operation.status.is_final(),
        message: operation.message.clone(),
        created_at: time(operation.created_wall_ms),
        ended_at: time(operation.ended_wall_ms),
        etag: operation.revision.as_u64(),
    }
}
