//! Operations.

use domain::{
    State,
    operation::{Operation, Progress},
};

use super::{time, vm::trouble};
use crate::v1;

/// An operation as the API shows it.
#[must_use]
pub fn operation(operation: &Operation) -> v1::Operation {
    let migration = operation.migration.as_deref();
    let steps = migration.into_iter().flat_map(|migration| &migration.begun);
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
        step: migration.map(|migration| migration.step.as_str().to_owned()).unwrap_or_default(),
        steps: steps
            .map(|(step, wall_ms)| v1::OperationStep {
                name: step.as_str().to_owned(),
                begun_at: time(*wall_ms),
            })
            .collect(),
        progress: migration.and_then(|migration| migration.progress).map(progress),
        priority: u32::from(operation.priority),
    }
}

fn progress(progress: Progress) -> v1::CopyProgress {
    v1::CopyProgress {
        total_bytes: progress.total_bytes,
        remaining_bytes: progress.remaining_bytes,
        dirty_bytes_per_second: progress.dirty_bytes_s,
        rounds: progress.rounds,
        expected_downtime_ms: progress.downtime_ms,
    }
}

/// The same; one that goes on says what its VM waits for.
#[must_use]
pub fn operation_now(state: &State, row: &Operation) -> v1::Operation {
    let mut shown = operation(row);
    if !shown.done && shown.message.is_empty() {
        let trouble = state.vms.get(&row.vm).and_then(|vm| trouble(state, vm));
        shown.message = trouble.unwrap_or_default();
    }
    shown
}
