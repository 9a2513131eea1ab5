//! Alerts: what a rule says must not be so, and is.
//!
//! ```text
//!  (no row) ──▶ Pending ──▶ Firing ──▶ Resolved ──▶ (no row, an hour later)
//!      ▲           │           ▲           │
//!      └───────────┘           └── Pending ┘
//! ```
//!
//! Everything that rules look at is in the state, so the alerts follow from the log: at a tick every node looks, and
//! all see the same. People are told by operations of the kind `notify`, which the leader proposes.

mod look;
mod notice;
mod rule;
mod signal;
mod silence;

use serde::{Deserialize, Serialize};

pub use look::Trend;
pub(crate) use look::look;
pub use notice::Notice;
pub(crate) use notice::ended;
pub(crate) use rule::none_for;
pub use rule::{Rule, Severity, Test};
pub use signal::Signal;
pub use silence::Silence;

use crate::{
    Draft, Revision, State,
    event::Change,
    id::{HostId, NodeId, OperationId, VmId},
    limit,
    name::Name,
    operation::Class,
    principal::Principal,
    rejected::{Reason, Rejected},
    table::{Resource, Row, Table},
};

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// Which rule says so.
    pub rule: Name,
    /// Of what.
    pub of: Subject,
    /// Its project, when it is of a VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Name>,
    /// What people call what it is of; it outlives what it names.
    pub name: String,
    /// How far it is.
    pub state: AlertState,
    /// How bad it is, as the rule said when it began to fire.
    pub severity: Severity,
    /// What the rule looked at, when its state changed last; none when there was nothing to look at.
    pub value: Option<i64>,
    /// Lease time of its last change of state, milliseconds.
    pub since_ms: u64,
    /// Wall time since when the rule's test holds, Unix milliseconds.
    pub began_wall_ms: u64,
    /// Wall time since when it fires, Unix milliseconds; 0 before.
    pub fired_wall_ms: u64,
    /// Wall time of its end, Unix milliseconds; 0 before.
    pub resolved_wall_ms: u64,
    /// Who knows of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Principal>,
    /// What people were told.
    #[serde(default)]
    pub told: Told,
    /// The operation that tells them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<OperationId>,
    /// Lease time before which they are not tried to be told again, milliseconds.
    #[serde(default)]
    pub untold_until_ms: u64,
    /// The entry that changed it last.
    pub revision: Revision,
}

/// How far an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It is so, and not yet for as long as the rule says.
    Pending,
    /// It is so.
    Firing,
    /// It is so no more.
    Resolved,
}

impl AlertState {
    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
            AlertState::Resolved => "resolved",
        }
    }
}

/// What people believe of an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Nobody was told that it fires, or all were told that it is over.
    #[default]
    Nothing,
    /// Somebody may have been told that it fires.
    Perhaps,
    /// All were told that it fires.
    Firing,
}

impl Told {
    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Told::Nothing => "nothing",
            Told::Perhaps => "perhaps",
            Told::Firing => "firing",
        }
    }
}

/// What an alert is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The cluster.
    Cluster,
    /// A node.
    Node(NodeId),
    /// A host.
    Host(HostId),
    /// A VM.
    Vm(VmId),
    /// A queue.
    Queue(Class),
}

impl Subject {
    /// The noun, as the API and receivers are told.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Subject::Cluster => "cluster",
            Subject::Node(_) => "node",
            Subject::Host(_) => "host",
            Subject::Vm(_) => "vm",
            Subject::Queue(_) => "queue",
        }
    }
}

/// Names an alert: its rule and what it is of.
pub type AlertKey = (Name, Subject);

/// What may be asked of alerts, their rules and silences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum AlertCommand {
    /// Make a rule, or have one be like this. Its revision is not read.
    SetRule(Box<Rule>),
    /// Remove a rule; its alerts end.
    DeleteRule {
        /// Its name.
        rule: Name,
    },
    /// Say that one knows of an alert.
    Acknowledge {
        /// Which.
        alert: AlertKey,
    },
    /// Tell nobody of certain alerts for a while. Its author and revision are not read.
    SetSilence(Box<Silence>),
    /// End a silence.
    DeleteSilence {
        /// Its name.
        silence: Name,
    },
    /// Have people told of what changed. Only nodes ask for it.
    Notify {
        /// The operation's id.
        operation: OperationId,
        /// Of which alerts.
        alerts: Vec<AlertKey>,
    },
    /// What came of telling them. Only nodes tell.
    Notified {
        /// The operation.
        operation: OperationId,
        /// Who was told; or why somebody was not.
        answer: Result<String, String>,
        /// What each alert was when they were told.
        told: Vec<(AlertKey, AlertState)>,
    },
    /// How many voters are silent, and how many more may be lost. Only the leading node tells.
    Voters {
        /// Those that are not heard of.
        silent: u32,
        /// See the signal [`Signal::LosableVoters`].
        losable: u32,
    },
}

impl Resource for Alert {
    type Key = AlertKey;

    fn key(&self) -> AlertKey {
        (self.rule.clone(), self.of)
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Alert> {
        &state.alerts
    }
    fn table_mut(state: &mut State) -> &mut Table<Alert> {
        &mut state.alerts
    }
    fn change(row: Row<Alert>) -> Change {
        Change::Alert(row)
    }
}

/// Decides about alerts.
pub(crate) fn decide(draft: &mut Draft, command: AlertCommand) -> Result<(), Rejected> {
    match command {
        AlertCommand::SetRule(rule) => rule::set(draft, *rule),
        AlertCommand::DeleteRule { rule } => rule::delete(draft, rule),
        AlertCommand::Acknowledge { alert } => acknowledge(draft, &alert),
        AlertCommand::SetSilence(silence) => silence::set(draft, *silence),
        AlertCommand::DeleteSilence { silence } => silence::delete(draft, silence),
        AlertCommand::Notify { operation, alerts } => notice::begin(draft, operation, alerts),
        AlertCommand::Notified { operation, answer, told } => {
            notice::note(draft, operation, answer, &told)
        }
        AlertCommand::Voters { silent, losable } => {
            draft.note_voters(Voters { silent, losable });
            Ok(())
        }
    }
}

/// What the leader said of the voters last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voters {
    /// Those that are not heard of.
    pub silent: u32,
    /// How many more may be lost before nothing can be decided.
    pub losable: u32,
}

fn acknowledge(draft: &mut Draft, key: &AlertKey) -> Result<(), Rejected> {
    let found = draft.state().alerts.get(key);
    let alert = found.ok_or_else(|| Rejected::not_found("alert of rule", &key.0))?;
    if alert.state == AlertState::Resolved {
        let message = format!("the alert of rule {} has ended", key.0);
        return Err(Rejected::new(Reason::AlertEnded, message));
    }
    let acknowledged = Some(draft.principal().clone());
    let alert = Alert { acknowledged, ..Alert::clone(alert) };
    draft.reply_object("alert", &alert.rule);
    draft.put(alert);
    Ok(())
}

impl Alert {
    /// Whether people do not know yet what is so, and may be told now.
    #[must_use]
    pub fn is_news(&self, state: &State, wall_ms: u64) -> bool {
        let differs = match self.state {
            AlertState::Pending => false,
            AlertState::Firing => self.told != Told::Firing,
            AlertState::Resolved => self.told != Told::Nothing,
        };
        differs
            && self.notice.is_none()
            && self.untold_until_ms <= state.now_ms
            && state.silence_of(self, wall_ms).is_none()
    }

    /// Whether it says the same as if it were forgotten.
    fn is_over(&self, now_ms: u64) -> bool {
        let kept_ms = match self.told {
            Told::Nothing => limit::ALERT_KEPT_MS,
            Told::Perhaps | Told::Firing => limit::ALERT_UNTOLD_KEPT_MS,
        };
        self.state == AlertState::Resolved
            && self.notice.is_none()
            && self.since_ms + kept_ms <= now_ms
    }
}
