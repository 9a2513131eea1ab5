//! Alerts, the rules that they come from, and silences.

use domain::{
    State,
    alert::{Alert, AlertCommand, AlertKey, AlertState},
    envelope::Command,
    name::Name,
    principal::Role,
    rejected::{Reason, Rejected},
};
use proto::{convert, v1, v1::alerts_server::Alerts};
use tonic::{Request, Response, Status};

use super::{
    Api, auth,
    change::{answer, not_found},
    errors,
    list::{Lazy, page},
};
use crate::clock::wall_ms;

#[tonic::async_trait]
impl Alerts for Api {
    async fn list_alerts(
        &self,
        request: Request<v1::ListAlertsRequest>,
    ) -> Result<Response<v1::ListAlertsResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let (state, now_ms) = (&view.state, wall_ms());
        let key = |row: &Alert| {
            let project = row.project.as_ref().map(ToString::to_string);
            let project = project.unwrap_or_default();
            // Of one that was removed and made again both may be there.
            format!("{}/{}/{project}/{}/{:?}", row.rule, row.of.noun(), row.name, row.of)
        };
        let mut rows: Vec<_> = state.alerts.values().map(|row| (key(row), row)).collect();
        rows.sort_by(|one, other| one.0.cmp(&other.0));
        let rows = rows.into_iter();
        let rows =
            rows.map(|(key, row)| Lazy::new(key, || convert::alert::alert(state, row, now_ms)));
        let (alerts, next_page_token) = page(message.page, "novacron.v1.Alert", "", rows)?;
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListAlertsResponse { alerts, next_page_token, revision }))
    }

    async fn acknowledge_alert(
        &self,
        request: Request<v1::AcknowledgeAlertRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let rule = convert::name("rule", &message.rule).map_err(errors::rejected)?;
        let project = super::project(&message.project)?;
        let acknowledged = self.change(Role::Operator, mutation, &message, |state, _| {
            let alert = named(state, &rule, &project, &message.name)?;
            Ok(Command::Alert(AlertCommand::Acknowledge { alert }))
        });
        Ok(answer(acknowledged.await?))
    }

    async fn set_alert_rule(
        &self,
        request: Request<v1::SetAlertRuleRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let missing = || convert::invalid("rule", "is missing; say what it is to be like");
        let rule = message.rule.clone().ok_or_else(|| errors::rejected(missing()))?;
        let command = convert::alert::read_rule(&message.alert_rule, rule);
        let command = Command::Alert(command.map_err(errors::rejected)?);
        let set = self.change(Role::Admin, mutation, &message, |_, _| Ok(command.clone()));
        Ok(answer(set.await?))
    }

    async fn get_alert_rule(
        &self,
        request: Request<v1::GetAlertRuleRequest>,
    ) -> Result<Response<v1::AlertRule>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let named = &message.alert_rule;
        let name = convert::name("alert_rule", named).map_err(errors::rejected)?;
        let view = self.view(message.freshness.as_ref()).await?;
        let rule = view.state.alert_rules.get(&name);
        let rule = rule.ok_or_else(|| errors::rejected(not_found("alert rule", named)))?;
        Ok(Response::new(convert::alert::rule(rule)))
    }

    async fn list_alert_rules(
        &self,
        request: Request<v1::ListAlertRulesRequest>,
    ) -> Result<Response<v1::ListAlertRulesResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let rows = view.state.alert_rules.values();
        let rows = rows.map(|row| Lazy::new(&row.name, || convert::alert::rule(row)));
        let (alert_rules, next_page_token) = page(message.page, "novacron.v1.AlertRule", "", rows)?;
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListAlertRulesResponse { alert_rules, next_page_token, revision }))
    }

    async fn delete_alert_rule(
        &self,
        request: Request<v1::DeleteAlertRuleRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let rule = convert::name("alert_rule", &message.alert_rule).map_err(errors::rejected)?;
        let deleted = self.change(Role::Admin, mutation, &message, |_, _| {
            Ok(Command::Alert(AlertCommand::DeleteRule { rule: rule.clone() }))
        });
        Ok(answer(deleted.await?))
    }

    async fn set_silence(
        &self,
        request: Request<v1::SetSilenceRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let missing = || convert::invalid("what", "is missing; say what it is to be like");
        let what = message.what.clone().ok_or_else(|| errors::rejected(missing()))?;
        let command = convert::alert::read_silence(&message.silence, what);
        let command = Command::Alert(command.map_err(errors::rejected)?);
        let set = self.change(Role::Operator, mutation, &message, |_, _| Ok(command.clone()));
        Ok(answer(set.await?))
    }

    async fn list_silences(
        &self,
        request: Request<v1::ListSilencesRequest>,
    ) -> Result<Response<v1::ListSilencesResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let state = &view.state;
        let rows = state.silences.values();
        let rows = rows.map(|row| Lazy::new(&row.name, || convert::alert::silence(state, row)));
        let (silences, next_page_token) = page(message.page, "novacron.v1.Silence", "", rows)?;
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListSilencesResponse { silences, next_page_token, revision }))
    }

    async fn delete_silence(
        &self,
        request: Request<v1::DeleteSilenceRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let silence = convert::name("silence", &message.silence).map_err(errors::rejected)?;
        let deleted = self.change(Role::Operator, mutation, &message, |_, _| {
            Ok(Command::Alert(AlertCommand::DeleteSilence { silence: silence.clone() }))
        });
        Ok(answer(deleted.await?))
    }
}

/// The alert of a rule that is of what has this name; of VMs, in this project.
fn named(state: &State, rule: &Name, project: &Name, name: &str) -> Result<AlertKey, Rejected> {
    let is_of = |alert: &&Alert| {
        alert.name == name && alert.project.as_ref().is_none_or(|of| of == project)
    };
    // One that was removed and made again may have one that is over.
    let found = state.alerts_of(rule).filter(is_of);
    let found = found.min_by_key(|alert| alert.state == AlertState::Resolved);
    let text: String = name.chars().take(64).collect();
    let missing = || Rejected::new(Reason::NotFound, format!("rule {rule} has no alert of {text}"));
    found.map(|alert| (alert.rule.clone(), alert.of)).ok_or_else(missing)
}
