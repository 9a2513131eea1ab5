//! The secondary indexes say what the rows say: a state loaded from its own records is the same.

use crate::{State, state::Loader};

pub(super) fn check(state: &State) -> Result<(), String> {
    let mut loader = Loader::default();
    for record in state.records() {
        loader.push(record).map_err(|error| error.to_string())?;
    }
    let again = loader.finish().map_err(|error| error.to_string())?;
    if again == *state { Ok(()) } else { Err(difference(state, &again)) }
}

/// Names the first index that differs, for the reader of a failed test.
fn difference(a: &State, b: &State) -> String {
    let parts = [
        ("vm_names", a.vm_names == b.vm_names),
        ("vms_by_image", a.vms_by_image == b.vms_by_image),
        ("unplaced", a.unplaced == b.unplaced),
        ("neighbours", a.neighbours == b.neighbours),
        ("instances_by_vm", a.instances_by_vm == b.instances_by_vm),
        ("spares_by_vm", a.spares_by_vm == b.spares_by_vm),
        ("instances_by_host", a.instances_by_host == b.instances_by_host),
        ("used", a.used == b.used),
        ("movable", a.movable == b.movable),
        ("host_names", a.host_names == b.host_names),
        ("image_names", a.image_names == b.image_names),
        ("operations_open", a.operations_open == b.operations_open),
        ("operations_ended", a.operations_ended == b.operations_ended),
        ("operations_stuck", a.operations_stuck == b.operations_stuck),
        ("operations_by_parent", a.operations_by_parent == b.operations_by_parent),
        ("operations_by_host", a.operations_by_host == b.operations_by_host),
        ("operations_waiting", a.operations_waiting == b.operations_waiting),
        ("operations_working", a.operations_working == b.operations_working),
        ("locks_by_end", a.locks_by_end == b.locks_by_end),
        ("events", a.events == b.events),
        ("requests", a.requests == b.requests),
    ];
    let wrong: Vec<_> = parts.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
    format!("loading the records again gives another state: {}", wrong.join(", "))
}
