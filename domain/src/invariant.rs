//! What holds in every state, whatever was asked in whatever order. One file per invariant; they
//! are run by property tests, by debug builds after every entry, and by the fault tests.

mod alert_has_rule;
mod capacity_kept;
mod index_consistent;
mod one_body;
mod operation_has_vm;
mod revision_bounded;

use crate::State;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invariant {name} is broken: {detail}")]
pub struct Broken {
    /// The invariant.
    pub name: &'static str,
    /// Where and how.
    pub detail: String,
}

type Check = fn(&State) -> Result<(), String>;

/// Every invariant.
pub const ALL: &[(&str, Check)] = &[
    ("one-body", one_body::check),
    ("capacity-kept", capacity_kept::check),
    ("operation-has-vm", operation_has_vm::check),
    ("revision-bounded", revision_bounded::check),
    ("index-consistent", index_consistent::check),
    ("alert-has-rule", alert_has_rule::check),
];

/// Checks all of them. Costs time in proportion to the whole state.
///
/// # Errors
/// The first one that is broken.
pub fn check(state: &State) -> Result<(), Broken> {
    for (name, check) in ALL {
        check(state).map_err(|detail| Broken { name, detail })?;
    }
    Ok(())
}
