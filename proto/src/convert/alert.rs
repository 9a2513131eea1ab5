//! Alerts, their rules, and silences.

use std::collections::BTreeMap;

use domain::{
    Revision, State,
    alert::{Alert, AlertCommand, Rule, Severity, Signal, Silence, Subject, Test},
    name::Name,
    principal::Principal,
    rejected::Rejected,
};

use super::{invalid, name, time};
use crate::v1;

/// A rule as the API shows it.
#[must_use]
pub fn rule(rule: &Rule) -> v1::AlertRule {
    let (test, value, within_ms) = match rule.test {
        Test::Above(value) => ("above", value, 0),
        Test::Below(value) => ("below", value, 0),
        Test::Absent => ("absent", 0, 0),
        Test::Rises { by, within_ms } => ("rises", by, within_ms),
    };
    v1::AlertRule {
        name: rule.name.to_string(),
        signal: rule.signal.as_str().to_owned(),
        test: test.to_owned(),
        value,
        within_ms,
        for_ms: rule.for_ms,
        project: text(rule.project.as_ref()),
        labels: rule
            .labels
            .iter()
            .map(|(label, value)| (label.to_string(), value.clone()))
            .collect(),
        severity: rule.severity.as_str().to_owned(),
        summary: rule.summary.clone(),
        etag: rule.revision.as_u64(),
    }
}

/// An alert as the API shows it at this wall time.
#[must_use]
pub fn alert(state: &State, alert: &Alert, wall_ms: u64) -> v1::Alert {
    let rule = state.alert_rules.get(&alert.rule);
    v1::Alert {
        rule: alert.rule.to_string(),
        of: alert.of.noun().to_owned(),
        name: alert.name.clone(),
        project: text(alert.project.as_ref()),
        state: alert.state.as_str().to_owned(),
        severity: alert.severity.as_str().to_owned(),
        value: alert.value,
        summary: rule.map(|rule| rule.summary.clone()).unwrap_or_default(),
        began_at: time(alert.began_wall_ms),
        fired_at: time(alert.fired_wall_ms),
        resolved_at: time(alert.resolved_wall_ms),
        acknowledged_by: alert
            .acknowledged
            .as_ref()
            .map(|it| author(state, it))
            .unwrap_or_default(),
        told: alert.told.as_str().to_owned(),
        notice: alert.notice.map(|operation| operation.to_string()).unwrap_or_default(),
        silence: text(state.silence_of(alert, wall_ms).map(|silence| &silence.name)),
        etag: alert.revision.as_u64(),
    }
}

/// A silence as the API shows it.
#[must_use]
pub fn silence(state: &State, silence: &Silence) -> v1::Silence {
    v1::Silence {
        name: silence.name.to_string(),
        rule: text(silence.rule.as_ref()),
        project: text(silence.project.as_ref()),
        of: text(silence.of.as_ref()),
        until: time(silence.until_wall_ms),
        reason: silence.reason.clone(),
        author: author(state, &silence.author),
        etag: silence.revision.as_u64(),
    }
}

/// What an alert is of, by its id.
#[must_use]
pub fn subject(of: Subject) -> String {
    let noun = of.noun();
    match of {
        Subject::Cluster => noun.to_owned(),
        Subject::Node(id) => format!("{noun}/{id}"),
        Subject::Host(id) => format!("{noun}/{id}"),
        Subject::Vm(id) => format!("{noun}/{id}"),
        Subject::Queue(class) => format!("{noun}/{}", class.as_str()),
    }
}

fn text(name: Option<&Name>) -> String {
    name.map(ToString::to_string).unwrap_or_default()
}

/// The name of a credential, while it is there.
fn author(state: &State, principal: &Principal) -> String {
    match principal {
        Principal::Credential(id) => {
            let known = state.credentials.get(id);
            known.map_or_else(|| id.to_string(), |credential| credential.name.to_string())
        }
        Principal::Node(id) => format!("node {id}"),
        Principal::Joiner | Principal::Founder => "nobody".to_owned(),
    }
}

/// Reads the command that makes a rule be like this. Amounts are checked where it is decided.
///
/// # Errors
/// The field that is wrong.
pub fn read_rule(named: &str, rule: v1::AlertRule) -> Result<AlertCommand, Rejected> {
    let signal = Signal::ALL.into_iter().find(|signal| signal.as_str() == rule.signal);
    let signal = signal.ok_or_else(|| {
        let all: Vec<&str> = Signal::ALL.iter().map(|signal| signal.as_str()).collect();
        invalid("rule.signal", format!("is none; use one of {}", all.join(", ")))
    })?;
    let test = match rule.test.as_str() {
        "above" => Test::Above(rule.value),
        "below" => Test::Below(rule.value),
        "absent" => Test::Absent,
        "rises" => Test::Rises { by: rule.value, within_ms: rule.within_ms },
        _ => return Err(invalid("rule.test", "use above, below, absent or rises")),
    };
    let severity = match rule.severity.as_str() {
        "" => Severity::Warning,
        text => Severity::ALL
            .into_iter()
            .find(|severity| severity.as_str() == text)
            .ok_or_else(|| invalid("rule.severity", "use info, warning or critical"))?,
    };
    let mut labels = BTreeMap::new();
    for (label, value) in rule.labels {
        labels.insert(name("rule.labels", &label)?, value);
    }
    Ok(AlertCommand::SetRule(Box::new(Rule {
        name: name("alert_rule", named)?,
        signal,
        test,
        for_ms: rule.for_ms,
        project: optional("rule.project", &rule.project)?,
        labels,
        severity,
        summary: rule.summary,
        revision: Revision::ZERO,
    })))
}

/// Reads the command that makes a silence be like this.
///
/// # Errors
/// The field that is wrong.
pub fn read_silence(named: &str, what: v1::Silence) -> Result<AlertCommand, Rejected> {
    let until = what.until.parse::<jiff::Timestamp>();
    let until =
        until.map_err(|_| invalid("what.until", "use a time such as 2026-01-31T18:00:00Z"))?;
    Ok(AlertCommand::SetSilence(Box::new(Silence {
        name: name("silence", named)?,
        rule: optional("what.rule", &what.rule)?,
        project: optional("what.project", &what.project)?,
        of: optional("what.of", &what.of)?,
        until_wall_ms: u64::try_from(until.as_millisecond()).unwrap_or(0),
        reason: what.reason,
        author: Principal::Founder,
        revision: Revision::ZERO,
    })))
}

fn optional(field: &str, text: &str) -> Result<Option<Name>, Rejected> {
    if text.is_empty() { Ok(None) } else { name(field, text).map(Some) }
}
