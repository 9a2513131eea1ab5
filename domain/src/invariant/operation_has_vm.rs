//! An unfinished operation and its VM know each other: nobody waits for what nobody works on.

use crate::State;

pub(super) fn check(state: &State) -> Result<(), String> {
    for operation in state.operations.values().filter(|operation| !operation.status.is_final()) {
        let Some(vm) = operation.vm() else { continue };
        let vm = state.vms.get(&vm);
        if vm.and_then(|vm| vm.operation) != Some(operation.id) {
            return Err(format!("operation {} is open but its VM does not know it", operation.id));
        }
    }
    for vm in state.vms.values() {
        let Some(id) = vm.operation else { continue };
        if state.operations.get(&id).is_none_or(|operation| operation.status.is_final()) {
            return Err(format!("VM {} is busy with operation {id}, which is over", vm.name));
        }
    }
    Ok(())
}
