//! Telling people of alerts: an operation of the kind `notify`.

use super::{Alert, AlertKey, AlertState, Told};
use crate::{
    Draft, State,
    id::OperationId,
    limit,
    operation::{Kind, Operation, Status, Subject, end, open_notice},
    principal::Principal,
    rejected::{Reason, Rejected},
    setting::Key,
};

/// What an operation is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The operation.
    pub operation: OperationId,
    /// The alerts, as they are now.
    pub alerts: Vec<Alert>,
}

impl State {
    /// What is to be told now.
    pub fn notices(&self) -> impl Iterator<Item = Notice> {
        let running = self.unfinished_operations();
        let running = running.filter(|it| it.kind == Kind::Notify && it.status == Status::Running);
        running.map(|operation| Notice {
            operation: operation.id,
            alerts: held_by(self, operation.id),
        })
    }

    /// Alerts that people do not know of yet, the worst first; at most [`limit::NOTICE_ALERTS_MAX`].
    #[must_use]
    pub fn news(&self, wall_ms: u64) -> Vec<AlertKey> {
        let news = self.alerts.iter().filter(|(_, alert)| alert.is_news(self, wall_ms));
        let mut news: Vec<_> = news.collect();
        news.sort_by_key(|(_, alert)| std::cmp::Reverse(alert.severity));
        news.into_iter().take(limit::NOTICE_ALERTS_MAX).map(|(key, _)| key.clone()).collect()
    }
}

pub(super) fn begin(
    draft: &mut Draft,
    id: OperationId,
    alerts: Vec<AlertKey>,
) -> Result<(), Rejected> {
    let wall_ms = draft.wall_ms();
    let state = draft.state();
    let news = alerts.iter().take(limit::NOTICE_ALERTS_MAX).filter_map(|key| state.alerts.get(key));
    let news = news.filter(|alert| alert.is_news(state, wall_ms));
    let news: Vec<Alert> = news.map(|alert| Alert::clone(alert)).collect();
    if news.is_empty() {
        return Err(Rejected::new(Reason::Fenced, "people know all of this already"));
    }
    let count = u32::try_from(news.len()).unwrap_or(u32::MAX);
    open_notice(draft, id, Subject::Alerts { count })?;
    for alert in news {
        draft.put(Alert { notice: Some(id), ..alert });
    }
    draft.reply_operation(id);
    Ok(())
}

/// Notes what came of telling people.
pub(super) fn note(
    draft: &mut Draft,
    id: OperationId,
    answer: Result<String, String>,
    told: &[(AlertKey, AlertState)],
) -> Result<(), Rejected> {
    if !matches!(draft.principal(), Principal::Node(_)) {
        return Err(Rejected::new(Reason::PermissionDenied, "only nodes tell people"));
    }
    let state = draft.state();
    let operation = state.operations.get(&id).filter(|it| it.kind == Kind::Notify);
    let Some(operation) = operation.filter(|it| it.status == Status::Running).cloned() else {
        return Err(Rejected::new(Reason::Fenced, "nobody waits for this answer any more"));
    };
    let retries = state.setting(Key::OperationRetries);
    let took_it = answer.is_ok();
    for (key, was) in told {
        let known = draft.state().alerts.get(key).filter(|alert| alert.notice == Some(id));
        let Some(alert) = known.cloned() else { continue };
        let told = match (was, took_it) {
            (AlertState::Firing, true) => Told::Firing,
            (AlertState::Firing, false) => alert.told.max(Told::Perhaps),
            (AlertState::Resolved, true) => Told::Nothing,
            // Some may know that it is over.
            (AlertState::Resolved, false) => alert.told.min(Told::Perhaps),
            (AlertState::Pending, _) => alert.told,
        };
        if told != alert.told {
            draft.put(Alert { told, ..Alert::clone(&alert) });
        }
    }
    match answer {
        Ok(whom) => end(draft, id, Status::Done, limit::clip(&whom)),
        Err(why) => {
            let (failures, message) = (operation.failures + 1, limit::clip(&why));
            let failed = Operation { failures, message, ..Operation::clone(&operation) };
            let message = failed.message.clone();
            draft.put(failed);
            if u64::from(failures) > retries {
                // Nobody need take it up: what is still so is told by a new one.
                end(draft, id, Status::RolledBack, message);
            }
        }
    }
    Ok(())
}

fn held_by(state: &State, notice: OperationId) -> Vec<Alert> {
    let alerts = state.alerts.values().filter(|alert| alert.notice == Some(notice));
    alerts.map(|alert| Alert::clone(alert)).collect()
}

/// The operation that was to tell of alerts has ended. What changed meanwhile is told by the next.
pub(crate) fn ended(draft: &mut Draft, id: OperationId, status: Status) {
    let (done, now_ms) = (status == Status::Done, draft.state().now_ms);
    for alert in held_by(draft.state(), id) {
        // Of one that did not get done nobody knows how far it came.
        let told = if done { alert.told } else { Told::Perhaps };
        let untold_until_ms = if done { 0 } else { now_ms + limit::NOTICE_PAUSE_MS };
        draft.put(Alert { told, notice: None, untold_until_ms, ..alert });
    }
}
