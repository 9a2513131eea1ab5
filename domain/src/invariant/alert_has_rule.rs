//! What is pending or fires does so by a rule; what is about to be told is told by somebody.

use crate::{State, alert::AlertState, operation::Kind};

pub(super) fn check(state: &State) -> Result<(), String> {
    for alert in state.alerts.values() {
        if alert.state != AlertState::Resolved && !state.alert_rules.contains_key(&alert.rule) {
            return Err(format!(
                "alert of {} by rule {}, which is not there",
                alert.name, alert.rule
            ));
        }
        let Some(notice) = alert.notice else { continue };
        let tells = state.operations.get(&notice).is_some_and(|operation| {
            operation.kind == Kind::Notify && !operation.status.is_final()
        });
        if !tells {
            return Err(format!("alert of {} waits for operation {notice}", alert.name));
        }
    }
    Ok(())
}
