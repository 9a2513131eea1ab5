//! No row and no event is newer than the state, and events are in order.

use crate::{Revision, State};

pub(super) fn check(state: &State) -> Result<(), String> {
    let newest = state.revision();
    let rows = state.vms.values().map(|vm| vm.revision);
    let rows = rows.chain(state.instances.values().map(|body| body.revision));
    let rows = rows.chain(state.operations.values().map(|operation| operation.revision));
    if let Some(revision) = rows.into_iter().find(|revision| *revision > newest) {
        return Err(format!("a row of revision {revision} in a state of revision {newest}"));
    }
    let mut before = Revision::ZERO;
    for event in state.events.iter() {
        if event.revision <= before || event.revision > newest {
            return Err(format!("event {} after {before}, state {newest}", event.revision));
        }
        before = event.revision;
    }
    Ok(())
}
