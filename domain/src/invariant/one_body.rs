//! A VM has at most one body, on a host that exists, of a VM that exists.

use std::collections::BTreeMap;

use crate::State;

pub(super) fn check(state: &State) -> Result<(), String> {
    let mut bodies = BTreeMap::new();
    for body in state.instances.values() {
        if let Some(other) = bodies.insert(body.vm, body.id) {
            return Err(format!("VM {} has bodies {other} and {}", body.vm, body.id));
        }
        if !state.vms.contains_key(&body.vm) {
            return Err(format!("body {} belongs to no VM", body.id));
        }
        if !state.hosts.contains_key(&body.host) {
            return Err(format!("body {} is on no host", body.id));
        }
    }
    Ok(())
}
