//! Silences: nobody is told of certain alerts for a while. The alerts are there all the same.

use serde::{Deserialize, Serialize};

use super::Alert;
use crate::{
    Draft, Revision, State,
    event::Change,
    limit,
    name::Name,
    principal::Principal,
    rejected::{Rejected, Violation},
    table::{Resource, Row, Table},
};

/// A silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// Its name and identity.
    pub name: Name,
    /// The rule of the alerts; none for those of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Name>,
    /// The project of their VMs; none for whatever they are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Name>,
    /// The name of what they are of; none for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Name>,
    /// Wall time of its end, Unix milliseconds.
    pub until_wall_ms: u64,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    pub author: Principal,
    /// The entry that changed it last.
    pub revision: Revision,
}

impl Resource for Silence {
    type Key = Name;

    fn key(&self) -> Name {
        self.name.clone()
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Silence> {
        &state.silences
    }
    fn table_mut(state: &mut State) -> &mut Table<Silence> {
        &mut state.silences
    }
    fn change(row: Row<Silence>) -> Change {
        Change::Silence(row)
    }
}

impl State {
    /// A silence that an alert falls under at this wall time.
    #[must_use]
    pub fn silence_of(&self, alert: &Alert, wall_ms: u64) -> Option<&Silence> {
        let holds = |silence: &&Silence| {
            let any = |wanted: &Option<Name>, is: &str| {
                wanted.as_ref().is_none_or(|wanted| wanted.as_str() == is)
            };
            wall_ms < silence.until_wall_ms
                && any(&silence.rule, alert.rule.as_str())
                && any(&silence.project, alert.project.as_ref().map_or("", Name::as_str))
                && any(&silence.of, &alert.name)
        };
        self.silences.values().map(|silence| &**silence).find(holds)
    }
}

pub(super) fn set(draft: &mut Draft, silence: Silence) -> Result<(), Rejected> {
    let mut violations = Vec::new();
    let mut refuse = |field: &str, message: String| violations.push(Violation::new(field, message));
    let (now_ms, most_ms) = (draft.wall_ms(), limit::SILENCE_MS_MAX);
    if silence.until_wall_ms <= now_ms {
        refuse("what.until", "has passed".to_owned());
    } else if silence.until_wall_ms > now_ms + most_ms {
        refuse("what.until", format!("is more than {} days away", most_ms / 86_400_000));
    }
    if silence.reason.trim().is_empty() || silence.reason.len() > limit::ALERT_SUMMARY_BYTES_MAX {
        let most = limit::ALERT_SUMMARY_BYTES_MAX;
        refuse("what.reason", format!("must be 1 to {most} bytes: others want to know why"));
    }
    Rejected::unless_empty(violations)?;
    let state = draft.state();
    if !state.silences.contains_key(&silence.name) {
        draft.room_for("silences", state.silences.len(), limit::SILENCES_MAX)?;
    }
    draft.reply_object("silence", &silence.name);
    let author = draft.principal().clone();
    draft.put(Silence { author, ..silence });
    Ok(())
}

pub(super) fn delete(draft: &mut Draft, name: Name) -> Result<(), Rejected> {
    if !draft.state().silences.contains_key(&name) {
        return Err(Rejected::not_found("silence", name));
    }
    draft.reply_object("silence", &name);
    draft.delete::<Silence>(name);
    Ok(())
}
