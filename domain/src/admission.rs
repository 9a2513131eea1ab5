//! The one gate through which a spec becomes desired state, whichever way it came. All problems are
//! reported at once.

mod bounds;
mod image;

use crate::{
    State,
    id::ImageId,
    rejected::{Rejected, Violation},
    vm::VmSpec,
};

/// A rule: appends the problems it sees.
type Rule = fn(&State, &VmSpec, &mut Vec<Violation>);

const RULES: &[Rule] = &[bounds::check, bounds::check_texts, image::check];

/// Checks a spec; the answer is the image it names. `old` is the spec it replaces: what was let in
/// once and is unchanged may not hold up a change of something else.
///
/// # Errors
/// [`Reason::Invalid`](crate::rejected::Reason::Invalid) with every problem.
pub(crate) fn admit(
    state: &State,
    spec: &VmSpec,
    old: Option<&VmSpec>,
) -> Result<ImageId, Rejected> {
    let mut violations = Vec::new();
    for rule in RULES {
        rule(state, spec, &mut violations);
    }
    if old.is_none_or(|old| old.host != spec.host) {
        pinned_host(state, spec, &mut violations);
    }
    Rejected::unless_empty(violations)?;
    let image = state.image_named(&spec.image);
    image.map(|image| image.id).ok_or_else(|| Rejected::not_found("image", &spec.image))
}

fn pinned_host(state: &State, spec: &VmSpec, violations: &mut Vec<Violation>) {
    if let Some(host) = &spec.host
        && state.host_named(host).is_none()
    {
        violations.push(Violation::new("spec.host", format!("there is no host {host}")));
    }
}
