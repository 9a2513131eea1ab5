//! Alerts, the rules that they come from, and silences.

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use client::v1::{self, alerts_client::AlertsClient};
use serde_json::Value;

use crate::{
    Session, all_pages, call,
    output::{Column, at, column, labels, number, wide},
    spec::read_labels,
    vm::Project,
};

/// What may be done with alerts.
#[derive(Clone, Debug, Subcommand)]
pub enum AlertVerb {
    /// Show what fires, what is about to, and what was over within the last hour.
    List {
        /// A filter, such as `state=firing` or `severity=critical`.
        #[arg(short = 'l', long, value_name = "FILTER", default_value = "")]
        selector: String,
    },
    /// Say that you know of an alert.
    Ack {
        /// Its rule.
        rule: String,
        /// The name of what it is of.
        name: String,
        #[command(flatten)]
        project: Project,
    },
}

/// What may be done with rules of alerts.
#[derive(Clone, Debug, Subcommand)]
pub enum RuleVerb {
    /// Make a rule, or have one be like this: what is not given is the default again.
    #[command(
        after_help = "Examples:\n  novacron alert-rule set db-down vm-running --below 1 --for 30 -l role=db --severity critical --summary \"a database does not run\"\n  novacron alert-rule set no-db vm-running --absent -l role=db\n  novacron alert-rule set disk-fills disk-used-percent --rises 10 --within 3600"
    )]
    Set(Box<Rule>),
    /// Show one rule.
    Get {
        /// Its name.
        name: String,
    },
    /// Show all rules.
    List,
    /// Remove a rule. Its alerts are over.
    Delete {
        /// Its name.
        name: String,
    },
}

/// What may be done with silences.
#[derive(Clone, Debug, Subcommand)]
pub enum SilenceVerb {
    /// Tell nobody of certain alerts for a while.
    #[command(
        after_help = "Example:\n  novacron silence set rack-b --rule host-lost --of h7 --hours 4 --reason \"new memory\""
    )]
    Set(Silence),
    /// Show all silences that have not ended.
    List,
    /// End a silence.
    Delete {
        /// Its name.
        name: String,
    },
}

/// What a rule looks at, and what must not be so.
#[derive(Args, Clone, Debug)]
pub struct Rule {
    /// Its name.
    name: String,
    /// What it looks at: vm-down, vm-running, host-up, silent-voters, losable-voters, stuck-operations, queue-age-s,
    /// disk-used-percent, sync-ms, certificate-days, clock-skew-ms or canary-failures.
    signal: String,
    #[command(flatten)]
    test: Test,
    /// Within how many seconds it rises.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    within: u64,
    /// For how many seconds it must be so before anybody is told.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 0)]
    lasting: u64,
    /// The project of the VMs that it looks at; those of all, when none is named.
    #[arg(short, long, value_name = "NAME", default_value = "")]
    project: String,
    /// A label of the VMs or hosts that it looks at; may be given again, and then all count.
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// How bad it is.
    #[arg(long, default_value = "warning", value_parser = ["info", "warning", "critical"])]
    severity: String,
    /// What people are told, in a sentence.
    #[arg(long, value_name = "TEXT", default_value = "")]
    summary: String,
}

/// What must not be so.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
struct Test {
    /// It is more than this.
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    above: Option<i64>,
    /// It is less than this.
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    below: Option<i64>,
    /// There is nothing of the kind.
    #[arg(long)]
    absent: bool,
    /// It rises by so much.
    #[arg(long, value_name = "VALUE")]
    rises: Option<i64>,
}

/// Of which alerts nobody is told, and for how long.
#[derive(Args, Clone, Debug)]
pub struct Silence {
    /// Its name.
    name: String,
    /// The rule of the alerts; those of all, when none is named.
    #[arg(long, value_name = "NAME", default_value = "")]
    rule: String,
    /// The project of their VMs.
    #[arg(short, long, value_name = "NAME", default_value = "")]
    project: String,
    /// The name of what they are of: a VM, a host, a node.
    #[arg(long, value_name = "NAME", default_value = "")]
    of: String,
    /// For how many hours, from now on.
    #[arg(long, value_name = "HOURS", default_value_t = 1)]
    hours: u32,
    /// Why. Others want to know.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

const ALERTS: &[Column] = &[
    column("RULE", |row| at(row, "rule")),
    column("OF", |row| format!("{} {}", at(row, "of"), at(row, "name"))),
    column("STATE", |row| at(row, "state")),
    column("SEVERITY", |row| at(row, "severity")),
    column("SINCE", |row| at(row, "beganAt")),
    column("VALUE", |row| at(row, "value")),
    column("KNOWN BY", |row| at(row, "acknowledgedBy")),
    column("SUMMARY", |row| at(row, "summary")),
    wide("PROJECT", |row| at(row, "project")),
    wide("FIRED", |row| at(row, "firedAt")),
    wide("RESOLVED", |row| at(row, "resolvedAt")),
    wide("TOLD", |row| at(row, "told")),
    wide("SILENCE", |row| at(row, "silence")),
];

const RULES: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("SIGNAL", |row| at(row, "signal")),
    column("TEST", test),
    column("FOR", |row| seconds(row, "forMs")),
    column("SEVERITY", |row| at(row, "severity")),
    column("SUMMARY", |row| at(row, "summary")),
    wide("PROJECT", |row| at(row, "project")),
    wide("LABELS", labels),
];

const SILENCES: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("RULE", |row| at(row, "rule")),
    column("OF", |row| at(row, "of")),
    column("UNTIL", |row| at(row, "until")),
    column("BY", |row| at(row, "author")),
    column("REASON", |row| at(row, "reason")),
    wide("PROJECT", |row| at(row, "project")),
];

fn test(row: &Value) -> String {
    let value = number(row, "value");
    match at(row, "test").as_str() {
        "rises" => format!("rises by {value} in {}", seconds(row, "withinMs")),
        "absent" => "absent".to_owned(),
        test => format!("{test} {value}"),
    }
}

fn seconds(row: &Value, field: &str) -> String {
    let ms: u64 = at(row, field).parse().unwrap_or(0);
    format!("{} s", ms / 1_000)
}

pub(crate) async fn run(session: &Session, verb: AlertVerb) -> Result<()> {
    match verb {
        AlertVerb::List { selector } => {
            let page = Some(v1::Page { filter: selector, ..Default::default() });
            let request = v1::ListAlertsRequest { page, freshness: None };
            let (rows, _) = all_pages!(session, AlertsClient<_>, list_alerts, request, alerts);
            session.output.rows(&rows, ALERTS)
        }
        AlertVerb::Ack { rule, name, project } => {
            let what = format!("alert {rule} of {name} acknowledged");
            let mutation = session.client.mutation().await?;
            let project = project.project;
            let request = v1::AcknowledgeAlertRequest { mutation, rule, name, project };
            let outcome = call!(session, AlertsClient<_>, acknowledge_alert, request).await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}

pub(crate) async fn run_rule(session: &Session, verb: RuleVerb) -> Result<()> {
    match verb {
        RuleVerb::Set(rule) => {
            let what = format!("alert rule {} set", rule.name);
            let request = rule.request(session.client.mutation().await?)?;
            let outcome = call!(session, AlertsClient<_>, set_alert_rule, request).await?;
            session.settle(&what, Some(outcome)).await
        }
        RuleVerb::Get { name } => {
            let request = v1::GetAlertRuleRequest { alert_rule: name, freshness: None };
            let rule = call!(session, AlertsClient<_>, get_alert_rule, request).await?;
            session.output.row(&rule, RULES)
        }
        RuleVerb::List => {
            let request = v1::ListAlertRulesRequest::default();
            let (rows, _) =
                all_pages!(session, AlertsClient<_>, list_alert_rules, request, alert_rules);
            session.output.rows(&rows, RULES)
        }
        RuleVerb::Delete { name } => {
            let what = format!("alert rule {name} deleted");
            let mutation = session.client.mutation().await?;
            let request = v1::DeleteAlertRuleRequest { mutation, alert_rule: name };
            let outcome = call!(session, AlertsClient<_>, delete_alert_rule, request).await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}

pub(crate) async fn run_silence(session: &Session, verb: SilenceVerb) -> Result<()> {
    match verb {
        SilenceVerb::Set(silence) => {
            let what = format!("silence {} set", silence.name);
            let request = silence.request(session.client.mutation().await?)?;
            let outcome = call!(session, AlertsClient<_>, set_silence, request).await?;
            session.settle(&what, Some(outcome)).await
        }
        SilenceVerb::List => {
            let request = v1::ListSilencesRequest::default();
            let (rows, _) = all_pages!(session, AlertsClient<_>, list_silences, request, silences);
            session.output.rows(&rows, SILENCES)
        }
        SilenceVerb::Delete { name } => {
            let what = format!("silence {name} deleted");
            let mutation = session.client.mutation().await?;
            let request = v1::DeleteSilenceRequest { mutation, silence: name };
            let outcome = call!(session, AlertsClient<_>, delete_silence, request).await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}

impl Rule {
    fn request(self, mutation: Option<v1::Mutation>) -> Result<v1::SetAlertRuleRequest> {
        let Test { above, below, absent: _, rises } = self.test;
        let (test, value) = match (above, below, rises) {
            (Some(value), ..) => ("above", value),
            (_, Some(value), _) => ("below", value),
            (.., Some(value)) => ("rises", value),
            (None, None, None) => ("absent", 0),
        };
        let milliseconds = |seconds: u64| seconds.saturating_mul(1_000);
        let mut rule = v1::AlertRule {
            signal: self.signal,
            test: test.to_owned(),
            value,
            within_ms: if test == "rises" { milliseconds(self.within) } else { 0 },
            for_ms: milliseconds(self.lasting),
            project: self.project,
            severity: self.severity,
            summary: self.summary,
            ..Default::default()
        };
        read_labels(&self.labels, &mut rule.labels)?;
        Ok(v1::SetAlertRuleRequest { mutation, alert_rule: self.name, rule: Some(rule) })
    }
}

impl Silence {
    fn request(self, mutation: Option<v1::Mutation>) -> Result<v1::SetSilenceRequest> {
        let hours = jiff::SignedDuration::from_hours(self.hours.into());
        let until = jiff::Timestamp::now().checked_add(hours).context("--hours is too far away")?;
        let what = v1::Silence {
            rule: self.rule,
            project: self.project,
            of: self.of,
            until: until.to_string(),
            reason: self.reason,
            ..Default::default()
        };
        Ok(v1::SetSilenceRequest { mutation, silence: self.name, what: Some(what) })
    }
}
