//! A VM has at most one active body and at most one other, on two hosts that exist; only a migration
//! under way has an incoming one.

use std::collections::BTreeMap;

use crate::{State, instance::Role, operation::Kind};

pub(super) fn check(state: &State) -> Result<(), String> {
    let mut bodies = BTreeMap::new();
    for body in state.instances.values() {
        let (Some(vm), true) = (state.vms.get(&body.vm), state.hosts.contains_key(&body.host))
        else {
            return Err(format!("body {} is of no VM or on no host", body.id));
        };
        if let Some(other) = bodies.insert((body.vm, body.role == Role::Active), body.id) {
            return Err(format!("VM {} has bodies {other} and {}", body.vm, body.id));
        }
        let other = match body.role {
            Role::Active => state.spare_of(body.vm),
            Role::Incoming | Role::Retiring => state.instance_of(body.vm),
        };
        if other.is_some_and(|other| other.host == body.host) {
            return Err(format!("VM {} has two bodies on host {}", body.vm, body.host));
        }
        let operation = vm.operation.and_then(|id| state.operations.get(&id));
        let migrates = operation.is_some_and(|operation| operation.kind == Kind::Migrate);
        if body.role == Role::Incoming && !migrates {
            return Err(format!("body {} waits for a guest that nobody sends", body.id));
        }
    }
    Ok(())
}
