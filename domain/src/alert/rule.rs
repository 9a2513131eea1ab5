//! Rules: what must not be so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Alert, AlertState, Signal};
use crate::{
    Draft, Revision, State,
    event::Change,
    limit,
    name::Name,
    rejected::{Reason, Rejected, Violation},
    table::{Resource, Row, Table},
};

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name and identity.
    pub name: Name,
    /// What it looks at.
    pub signal: Signal,
    /// What must not be so.
    pub test: Test,
    /// For how long it must be so before anybody is told, milliseconds of lease time.
    pub for_ms: u64,
    /// The project of the VMs that it looks at; none for those of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Name>,
    /// The labels, all of them, of the VMs or hosts that it looks at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Name, String>,
    /// How bad it is.
    pub severity: Severity,
    /// What people are told, in a sentence.
    pub summary: String,
    /// The entry that changed it last.
    pub revision: Revision,
}

/// What must not be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// It is more than this.
    Above(i64),
    /// It is less than this.
    Below(i64),
    /// There is nothing of the kind that the rule looks at.
    Absent,
    /// It grew by at least so much within a time.
    Rises {
        /// By how much.
        by: i64,
        /// Within which time, milliseconds of lease time.
        within_ms: u64,
    },
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Soon somebody must do something.
    Warning,
    /// Somebody must do something now.
    Critical,
}

impl Severity {
    /// Every severity.
    pub const ALL: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Critical];

    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

impl Resource for Rule {
    type Key = Name;

    fn key(&self) -> Name {
        self.name.clone()
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Rule> {
        &state.alert_rules
    }
    fn table_mut(state: &mut State) -> &mut Table<Rule> {
        &mut state.alert_rules
    }
    fn change(row: Row<Rule>) -> Change {
        Change::AlertRule(row)
    }
}

impl Rule {
    /// Bytes of its texts of any length.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let labels = self.labels.iter().map(|(label, value)| label.as_str().len() + value.len());
        self.summary.len() + labels.sum::<usize>()
    }

    /// The rules that are there from the start.
    pub(crate) fn defaults() -> impl Iterator<Item = Rule> {
        use Severity::{Critical, Warning};
        use Signal::{
            CanaryFailures, CertificateDays, ClockSkewMs, DiskUsedPercent, HostUp, LosableVoters,
            QueueAgeS, SilentVoters, StuckOperations, SyncMs, VmDown,
        };
        use Test::{Above, Below, Rises};
        const MINUTE: u64 = 60_000;
        const HOUR: u64 = 60 * MINUTE;
        [
            ("vm-down", VmDown, Above(0), 2 * MINUTE, Warning, "the VM should run and does not"),
            (
                "host-lost",
                HostUp,
                Below(1),
                0,
                Critical,
                "the host is not heard of: its VMs are unknown, or start elsewhere",
            ),
            (
                "node-silent",
                SilentVoters,
                Above(0),
                MINUTE / 2,
                Warning,
                "a node that votes is not heard of",
            ),
            (
                "quorum-at-risk",
                LosableVoters,
                Below(1),
                MINUTE / 2,
                Critical,
                "if one more voter is lost, nothing can be decided",
            ),
            (
                "operation-stuck",
                StuckOperations,
                Above(0),
                MINUTE,
                Warning,
                "operations are stuck: a person must retry, resume or abandon them",
            ),
            (
                "queue-slow",
                QueueAgeS,
                Above(300),
                MINUTE,
                Warning,
                "operations wait for a worker for more than five minutes",
            ),
            (
                "disk-filling",
                DiskUsedPercent,
                Above(80),
                5 * MINUTE,
                Warning,
                "the node's disk is more than 80 % full; at 90 % growth is refused",
            ),
            (
                "disk-filling-fast",
                DiskUsedPercent,
                Rises { by: 10, within_ms: HOUR },
                0,
                Warning,
                "the node's disk has filled by 10 % within an hour",
            ),
            (
                "disk-slow",
                SyncMs,
                Above(500),
                2 * MINUTE,
                Warning,
                "the disk under the node's log takes more than half a second to sync",
            ),
            (
                "certificate-expires",
                CertificateDays,
                Below(25),
                0,
                Warning,
                "the node's certificate expires within 25 days: it should have been renewed at 30",
            ),
            (
                "clock-skew",
                ClockSkewMs,
                Above(2_000),
                MINUTE,
                Warning,
                "the node's clock differs from the leader's by more than 2 s",
            ),
            (
                "canary-failing",
                CanaryFailures,
                Above(0),
                0,
                Warning,
                "a VM could not be made, run or deleted on the host, as a canary tried",
            ),
        ]
        .into_iter()
        .map(|(name, signal, test, for_ms, severity, summary)| Rule {
            name: Name::new(name).expect("the literal is a name"),
            signal,
            test,
            for_ms,
            project: None,
            labels: BTreeMap::new(),
            severity,
            summary: summary.to_owned(),
            revision: Revision::ZERO,
        })
    }
}

pub(super) fn set(draft: &mut Draft, rule: Rule) -> Result<(), Rejected> {
    let state = draft.state();
    if let Some(project) = rule.project.as_ref().filter(|it| !state.projects.contains_key(*it)) {
        return Err(Rejected::not_found("project", project));
    }
    check(&rule)?;
    if !state.alert_rules.contains_key(&rule.name) {
        draft.room_for("alert rules", state.alert_rules.len(), limit::ALERT_RULES_MAX)?;
    }
    let same = |old: &Rule| {
        (old.signal, old.test, &old.project, &old.labels)
            == (rule.signal, rule.test, &rule.project, &rule.labels)
    };
    let looks_at_the_same = state.alert_rules.get(&rule.name).is_some_and(|old| same(old));
    draft.reply_object("alert rule", &rule.name);
    if !looks_at_the_same {
        draft.set_trends(&rule.name, BTreeMap::new());
    }
    draft.put(rule);
    Ok(())
}

fn check(rule: &Rule) -> Result<(), Rejected> {
    let mut violations = Vec::new();
    let mut refuse = |field: &str, message: String| violations.push(Violation::new(field, message));
    if rule.for_ms > limit::ALERT_FOR_MS_MAX {
        refuse("rule.for_ms", format!("must be 0 to {}", limit::ALERT_FOR_MS_MAX));
    }
    let signal = rule.signal.definition();
    if let Test::Rises { by, within_ms } = rule.test {
        let (least, most) = (limit::ALERT_WITHIN_MS_MIN, limit::ALERT_WITHIN_MS_MAX);
        if !(least..=most).contains(&within_ms) {
            refuse("rule.within_ms", format!("must be {least} to {most}"));
        }
        if by <= 0 {
            refuse("rule.value", "must be at least 1: by so much it rises".to_owned());
        }
        if !signal.can_rise {
            refuse("rule.test", format!("{} is 0 or 1; use above or below", signal.name));
        }
    }
    if rule.project.is_some() && !signal.is_of_vms {
        refuse("rule.project", format!("{} is not of VMs; leave it out", signal.name));
    }
    if !rule.labels.is_empty() && !signal.has_labels {
        refuse(
            "rule.labels",
            format!("{} is of nothing that has labels; leave them out", signal.name),
        );
    }
    if rule.labels.len() > limit::LABELS_MAX {
        refuse(
            "rule.labels",
            format!("has {}; at most {} are allowed", rule.labels.len(), limit::LABELS_MAX),
        );
    }
    for (label, value) in &rule.labels {
        let most = limit::LABEL_VALUE_BYTES_MAX;
        if value.len() > most {
            refuse(
                &format!("rule.labels.{label}"),
                format!("has {} bytes; at most {most} are allowed", value.len()),
            );
        }
    }
    if rule.summary.len() > limit::ALERT_SUMMARY_BYTES_MAX {
        refuse(
            "rule.summary",
            format!(
                "has {} bytes; at most {} are allowed",
                rule.summary.len(),
                limit::ALERT_SUMMARY_BYTES_MAX
            ),
        );
    }
    Rejected::unless_empty(violations)
}

pub(super) fn delete(draft: &mut Draft, name: Name) -> Result<(), Rejected> {
    if !draft.state().alert_rules.contains_key(&name) {
        return Err(Rejected::not_found("alert rule", name));
    }
    let alerts: Vec<Alert> = draft.state().alerts_of(&name).map(Alert::clone).collect();
    for alert in alerts {
        match alert.state {
            AlertState::Pending | AlertState::Firing => super::look::end(draft, alert),
            AlertState::Resolved => {}
        }
    }
    draft.reply_object("alert rule", &name);
    draft.set_trends(&name, BTreeMap::new());
    draft.delete::<Rule>(name);
    Ok(())
}

impl State {
    /// The alerts of a rule.
    pub fn alerts_of(&self, rule: &Name) -> impl Iterator<Item = &Alert> {
        let from = (rule.clone(), super::Subject::Cluster);
        let of = rule.clone();
        let range = self.alerts.range(from..).take_while(move |((rule, _), _)| *rule == of);
        range.map(|(_, alert)| &**alert)
    }
}

/// The refusal to remove a project that rules are for.
pub(crate) fn none_for(state: &State, project: &Name) -> Result<(), Rejected> {
    match state.alert_rules.values().find(|rule| rule.project.as_ref() == Some(project)) {
        None => Ok(()),
        Some(rule) => {
            let message =
                format!("alert rule {} is for project {project}; remove it first", rule.name);
            Err(Rejected::new(Reason::ProjectInUse, message))
        }
    }
}
