//! Operations.

use domain::{
    State,
    operation::{Class, Operation, Progress, Status, Subject},
    rejected::Rejected,
};

use super::{time, vm::trouble};
use crate::v1;

/// An operation as the API shows it.
#[must_use]
pub fn operation(operation: &Operation) -> v1::Operation {
    let migration = operation.migration.as_deref();
    let (project, vm, host) = match &operation.subject {
        Subject::Vm { project, name, .. } => (project.to_string(), name.to_string(), String::new()),
        Subject::Host { name, .. } => (String::new(), String::new(), name.to_string()),
        Subject::Cluster | Subject::Alerts { .. } => Default::default(),
    };
    let steps = &operation.steps;
    v1::Operation {
        id: operation.id.to_string(),
        kind: operation.kind.as_str().to_owned(),
        project,
        vm,
        host,
        class: operation.class.as_str().to_owned(),
        parent: operation.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        failures: operation.failures,
        ready: operation.waits(),
        trace_id: operation.place_in_trace().id.to_string(),
        status: operation.status.as_str().to_owned(),
        done: operation.status.is_final(),
        message: operation.message.clone(),
        created_at: time(operation.created_wall_ms),
        ended_at: time(operation.ended_wall_ms),
        etag: operation.revision.as_u64(),
        step: steps.last().map(|(step, _)| step.as_str().to_owned()).unwrap_or_default(),
        steps: steps
            .iter()
            .map(|(step, wall_ms)| v1::OperationStep {
                name: step.as_str().to_owned(),
                begun_at: time(*wall_ms),
            })
            .collect(),
        migration_policy: migration
            .and_then(|migration| migration.policy.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
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
        allowed_downtime_ms: progress.downtime_max_ms,
    }
}

/// The same; one that goes on says what its VM waits for.
#[must_use]
pub fn operation_now(state: &State, row: &Operation) -> v1::Operation {
    let mut shown = operation(row);
    if !shown.done && shown.message.is_empty() {
        let vm = row.vm().and_then(|vm| state.vms.get(&vm));
        let trouble = vm.and_then(|vm| trouble(state, vm)).or_else(|| turn(state, row));
        shown.message = trouble.unwrap_or_default();
    }
    shown
}

/// The class that is named.
///
/// # Errors
/// A violation of the field, when there is none of that name.
pub fn class(text: &str) -> Result<Class, Rejected> {
    let found = Class::ALL.into_iter().find(|class| class.as_str() == text);
    found.ok_or_else(|| {
        let known = Class::ALL.map(Class::as_str).join(", ");
        super::invalid("class", format!("must be one of {known}"))
    })
}

/// A class of operations as the API shows it.
#[must_use]
pub fn queue(state: &State, class: Class) -> v1::Queue {
    let next = state.waiting(class).next();
    v1::Queue {
        class: class.as_str().to_owned(),
        urgency: class.urgency().to_owned(),
        workers: state.workers(class),
        workers_min: state.setting(class.workers()),
        workers_max: state.setting(class.workers_max()),
        running: state.busy(class),
        waiting: state.waiting_count(class) as u64,
        next_waited_ms: next.map_or(0, |next| state.now_ms.saturating_sub(next.accepted_ms)),
        next: next.map(|next| next.id.to_string()).unwrap_or_default(),
    }
}

/// How many are before it, when it waits for a worker.
fn turn(state: &State, row: &Operation) -> Option<String> {
    if row.status != Status::Queued || !row.ready {
        return None;
    }
    // Nobody counts a long queue for a sentence.
    const COUNTED_MAX: usize = 1_000;
    let class = row.class;
    let before = state.waiting(class).take(COUNTED_MAX).position(|other| other.id == row.id);
    let workers = state.workers(class);
    let before = before.map_or_else(|| format!("over {COUNTED_MAX}"), |n| n.to_string());
    Some(match workers {
        0 => format!("{} are stopped: {} is 0", class.as_str(), class.workers().definition().name),
        n => format!("waits for one of {n} workers of {}; {before} before it", class.as_str()),
    })
}
