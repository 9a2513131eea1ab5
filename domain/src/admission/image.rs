//! The image must exist and suit the rest of the spec.

use crate::{State, rejected::Violation, vm::VmSpec};

pub(super) fn check(state: &State, spec: &VmSpec, violations: &mut Vec<Violation>) {
    let Some(image) = state.image_named(&spec.image) else {
        let message = format!("there is no image {}; import it first", spec.image);
        violations.push(Violation::new("spec.image", message));
        return;
    };
    if !spec.cmdline.is_empty() && !image.is_kernel() {
        let message = format!("image {} is a disk and brings its own command line", image.name);
        violations.push(Violation::new("spec.cmdline", message));
    }
    if spec.root_disk_mib > 0 && image.disk().is_none() && !image.files.is_empty() {
        let message = format!("image {} brings no disk; use spec.disks", image.name);
        violations.push(Violation::new("spec.root_disk_mib", message));
    }
}
