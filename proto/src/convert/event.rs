//! Events.

use domain::{
    State,
    event::{Change, Event, RowKey},
    principal::Principal,
    table::Row,
};

use super::{alert, infrastructure, lock, operation, time, vm};
use crate::v1;

/// An event as the API shows it. What belongs to rows around the changed one (a VM's phase depends
/// on its body and its host) is shown as it is in `state`, which is at least as new as the event.
#[must_use]
pub fn event(state: &State, event: &Event) -> v1::Event {
    v1::Event {
        revision: event.revision.as_u64(),
        at: time(event.wall_ms),
        author: author(&event.principal),
        changes: event.changes.iter().filter_map(|row| change(state, event, row)).collect(),
    }
}

fn author(principal: &Principal) -> String {
    match principal {
        Principal::Node(node) => format!("node:{node}"),
        Principal::Credential(id) => format!("credential:{id}"),
        Principal::Joiner => "joiner".to_owned(),
        Principal::Founder => "founder".to_owned(),
    }
}

fn change(state: &State, event: &Event, row: &Change) -> Option<v1::Change> {
    let (kind, object) = named(&row.key());
    let mut change = v1::Change { kind, object, deleted: row.is_delete(), ..Default::default() };
    match row {
        Change::Vm(Row::Put(row)) => change.vm = Some(vm::vm(state, row)),
        Change::Operation(Row::Put(row)) => change.operation = Some(operation::operation(row)),
        Change::Host(Row::Put(row)) => change.host = Some(infrastructure::host(state, row)),
        Change::Image(Row::Put(row)) => change.image = Some(infrastructure::image(state, row)),
        Change::Lock(Row::Put(row)) => change.lock = Some(lock::lock(state, row)),
        Change::Alert(Row::Put(row)) => {
            change.alert = Some(alert::alert(state, row, event.wall_ms))
        }
        Change::Instance(row) => return body(state, event, row),
        Change::Vm(Row::Delete(_))
        | Change::Operation(Row::Delete(_))
        | Change::Host(Row::Delete(_))
        | Change::Image(Row::Delete(_))
        | Change::Lock(Row::Delete(_))
        | Change::Project(_)
        | Change::Setting(_)
        | Change::MigrationPolicy(_)
        | Change::AlertRule(_)
        | Change::Alert(Row::Delete(_))
        | Change::Silence(_)
        | Change::Node(_)
        | Change::Token(_)
        | Change::Credential(_) => {}
    }
    Some(change)
}

/// A changed body is a changed VM, unless the event has the VM's own change too. Of a VM that is gone by now there
/// is nothing to show, but that something changed: whoever reads later is sent no less.
fn body(state: &State, event: &Event, row: &Row<domain::instance::Instance>) -> Option<v1::Change> {
    let Row::Put(body) = row else { return None };
    let told = event.changes.iter().any(|change| change.key() == RowKey::Vm(body.vm));
    (!told).then(|| v1::Change {
        kind: "vm".to_owned(),
        object: body.vm.to_string(),
        vm: state.vms.get(&body.vm).map(|row| vm::vm(state, row)),
        ..Default::default()
    })
}

fn named(key: &RowKey) -> (String, String) {
    let (kind, object) = match key {
        RowKey::Project(name) => ("project", name.to_string()),
        RowKey::Vm(id) => ("vm", id.to_string()),
        RowKey::Instance(id) => ("instance", id.to_string()),
        RowKey::Host(id) => ("host", id.to_string()),
        RowKey::Image(id) => ("image", id.to_string()),
        RowKey::Operation(id) => ("operation", id.to_string()),
        RowKey::Lock((project, name)) => ("lock", format!("{project}/{name}")),
        RowKey::MigrationPolicy(name) => ("migration policy", name.to_string()),
        RowKey::AlertRule(name) => ("alert rule", name.to_string()),
        RowKey::Alert((rule, of)) => ("alert", format!("{rule}/{}", alert::subject(*of))),
        RowKey::Silence(name) => ("silence", name.to_string()),
        RowKey::Setting(key) => ("setting", key.definition().name.to_owned()),
        RowKey::Node(id) => ("node", id.to_string()),
        RowKey::Token(id) => ("token", id.to_string()),
        RowKey::Credential(id) => ("credential", id.to_string()),
    };
    (kind.to_owned(), object)
}
