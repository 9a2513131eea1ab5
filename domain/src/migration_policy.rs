//! Migration policies: how the guests of a project, or those with certain labels, are migrated.
//!
//! The most particular policy that applies to a VM counts, as a whole: the one with the most labels, one
//! with a project before one without, and of equals the first by name. Where none applies the defaults do.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{
    Draft, Revision, State,
    event::Change,
    limit,
    name::Name,
    operation::Terms,
    rejected::{Reason, Rejected, Violation},
    setting::Key,
    table::{Resource, Row, Table},
    vm::Vm,
};

/// A migration policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationPolicy {
    /// Its name and identity.
    pub name: Name,
    /// The project whose VMs it applies to; none for those of all.
    pub project: Option<Name>,
    /// The labels that a VM has, all of them, to which it applies.
    pub labels: BTreeMap<Name, String>,
    /// How they are migrated.
    pub terms: Terms,
    /// The entry that changed it last.
    pub revision: Revision,
}

/// What may be asked of migration policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum MigrationPolicyCommand {
    /// Make one, or have one be like this. It counts for migrations that are asked for from then on.
    Set {
        /// Its name.
        name: Name,
        /// See [`MigrationPolicy::project`].
        project: Option<Name>,
        /// See [`MigrationPolicy::labels`].
        labels: BTreeMap<Name, String>,
        /// See [`MigrationPolicy::terms`].
        terms: Terms,
    },
    /// Remove one.
    Delete {
        /// Its name.
        name: Name,
    },
}

impl Resource for MigrationPolicy {
    type Key = Name;

    fn key(&self) -> Name {
        self.name.clone()
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<MigrationPolicy> {
        &state.migration_policies
    }
    fn table_mut(state: &mut State) -> &mut Table<MigrationPolicy> {
        &mut state.migration_policies
    }
    fn change(row: Row<MigrationPolicy>) -> Change {
        Change::MigrationPolicy(row)
    }
}

impl MigrationPolicy {
    /// Bytes of its texts of any length.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.labels.iter().map(|(label, value)| label.as_str().len() + value.len()).sum()
    }

    fn applies_to(&self, vm: &Vm) -> bool {
        self.project.as_ref().is_none_or(|project| *project == vm.project)
            && self.labels.iter().all(|(label, value)| vm.spec.labels.get(label) == Some(value))
    }

    /// The greatest of those that apply is the one that counts.
    fn rank(&self) -> (usize, bool, Reverse<&Name>) {
        (self.labels.len(), self.project.is_some(), Reverse(&self.name))
    }
}

impl State {
    /// The policy that counts for the VM's migrations, if there is one.
    #[must_use]
    pub fn migration_policy_of(&self, vm: &Vm) -> Option<&MigrationPolicy> {
        let apply = self.migration_policies.values().filter(|policy| policy.applies_to(vm));
        apply.map(|policy| &**policy).max_by_key(|policy| policy.rank())
    }
}

/// Decides about migration policies.
pub(crate) fn decide(draft: &mut Draft, command: MigrationPolicyCommand) -> Result<(), Rejected> {
    let state = draft.state();
    match command {
        MigrationPolicyCommand::Set { name, project, labels, terms } => {
            check(state, project.as_ref(), &labels, &terms)?;
            if !state.migration_policies.contains_key(&name) {
                let count = state.migration_policies.len();
                draft.room_for("migration policies", count, limit::MIGRATION_POLICIES_MAX)?;
            }
            draft.reply_object("migration policy", &name);
            let revision = Revision::ZERO;
            draft.put(MigrationPolicy { name, project, labels, terms, revision });
        }
        MigrationPolicyCommand::Delete { name } => {
            if !state.migration_policies.contains_key(&name) {
                return Err(Rejected::not_found("migration policy", name));
            }
            draft.reply_object("migration policy", &name);
            draft.delete::<MigrationPolicy>(name);
        }
    }
    Ok(())
}

fn check(
    state: &State,
    project: Option<&Name>,
    labels: &BTreeMap<Name, String>,
    terms: &Terms,
) -> Result<(), Rejected> {
    if let Some(project) = project.filter(|project| !state.projects.contains_key(*project)) {
        return Err(Rejected::not_found("project", project));
    }
    let mut violations = Vec::new();
    let mut within = |field: &str, value: u64, min: u64, max: u64| {
        if !(min..=max).contains(&value) {
            let message = format!("is {value}; it must be {min} to {max}");
            violations.push(Violation::new(field, message));
        }
    };
    let copy = &terms.copy;
    let most_ms = u64::from(limit::DOWNTIME_MS_MAX);
    within("policy.downtime_ms", copy.downtime_ms.into(), 1, most_ms);
    if copy.stalled_downtime_ms != 0 {
        let least_ms = u64::from(copy.downtime_ms);
        within("policy.stalled_downtime_ms", copy.stalled_downtime_ms.into(), least_ms, most_ms);
    }
    within(
        "policy.connections",
        copy.connections.into(),
        1,
        limit::MIGRATION_CONNECTIONS_MAX.into(),
    );
    within("policy.rounds_max", copy.rounds_max.into(), 1, limit::MIGRATION_ROUNDS_MAX.into());
    for (field, key, value) in [
        ("policy.deadline_ms", Key::MigrationDeadlineMs, terms.deadline_ms),
        ("policy.deadline_ms_per_gib", Key::MigrationDeadlineMsPerGib, terms.deadline_ms_per_gib),
    ] {
        let bounds = key.definition();
        if let Some(value) = value {
            within(field, value, bounds.min, bounds.max);
        }
    }
    within("policy.labels", labels.len() as u64, 0, limit::LABELS_MAX as u64);
    for (label, value) in labels {
        let (field, most) = (format!("policy.labels.{label}"), limit::LABEL_VALUE_BYTES_MAX);
        if value.len() > most {
            let message = format!("has {} bytes; at most {most} are allowed", value.len());
            violations.push(Violation::new(&field, message));
        }
    }
    Rejected::unless_empty(violations)
}

/// The refusal to remove a project that policies are for.
pub(crate) fn none_for(state: &State, project: &Name) -> Result<(), Rejected> {
    let mut policies = state.migration_policies.values();
    let of = |policy: &&std::sync::Arc<MigrationPolicy>| policy.project.as_ref() == Some(project);
    match policies.find(of) {
        None => Ok(()),
        Some(policy) => {
            let name = &policy.name;
            let message =
                format!("migration policy {name} is for project {project}; remove it first");
            Err(Rejected::new(Reason::ProjectInUse, message))
        }
    }
}
