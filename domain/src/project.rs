//! A project: a space of VM names.

use serde::{Deserialize, Serialize};

use crate::{
    Draft, Revision, State, alert,
    event::Change,
    limit, migration_policy,
    name::Name,
    rejected::{Reason, Rejected},
    table::{Resource, Row, Table},
};

/// A project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Its name and identity.
    pub name: Name,
    /// The entry that changed it last.
    pub revision: Revision,
}

/// What may be asked of projects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ProjectCommand {
    /// Make one.
    Create {
        /// Its name.
        name: Name,
    },
    /// Remove an empty one.
    Delete {
        /// Its name.
        name: Name,
    },
}

impl Resource for Project {
    type Key = Name;

    fn key(&self) -> Name {
        self.name.clone()
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Project> {
        &state.projects
    }
    fn table_mut(state: &mut State) -> &mut Table<Project> {
        &mut state.projects
    }
    fn change(row: Row<Project>) -> Change {
        Change::Project(row)
    }
}

/// Decides about projects.
pub(crate) fn decide(draft: &mut Draft, command: ProjectCommand) -> Result<(), Rejected> {
    let state = draft.state();
    match command {
        ProjectCommand::Create { name } => {
            if state.projects.contains_key(&name) {
                let message = format!("project {name} exists already; choose another name");
                return Err(Rejected::new(Reason::NameTaken, message));
            }
            draft.room_for("projects", state.projects.len(), limit::PROJECTS_MAX)?;
            draft.reply_object("project", &name);
            draft.put(Project { name, revision: Revision::ZERO });
        }
        ProjectCommand::Delete { name } => {
            if !state.projects.contains_key(&name) {
                return Err(Rejected::not_found("project", name));
            }
            migration_policy::none_for(state, &name)?;
            alert::none_for(state, &name)?;
            let vms = state.vms_in(&name).count();
            let locks = state.locks_in(&name).count();
            if vms > 0 || locks > 0 || name == Name::default_project() {
                let message = match vms {
                    0 if locks > 0 => format!("project {name} has {locks} locks that are held"),
                    0 => "the default project always exists".to_owned(),
                    n => format!("project {name} has {n} VMs; delete them first"),
                };
                return Err(Rejected::new(Reason::ProjectInUse, message));
            }
            draft.reply_object("project", &name);
            draft.delete::<Project>(name);
        }
    }
    Ok(())
}
