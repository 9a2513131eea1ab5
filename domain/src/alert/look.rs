//! Looking at everything that rules look at, from time to time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Alert, AlertKey, AlertState, Rule, Silence, Subject, Test, Told, signal};
use crate::{Draft, Revision, State, limit, name::Name};

/// What something that may rise was, oldest first: lease time in milliseconds, and how much.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trend(Vec<(u64, i64)>);

impl Trend {
    /// The same with the newest value, as far back as `within_ms` reaches: at most so many values that each tells
    /// of a twelfth of it.
    fn with(mut self, now_ms: u64, value: i64, within_ms: u64) -> Trend {
        const PARTS: u64 = 12;
        self.0.retain(|(at_ms, _)| at_ms + within_ms >= now_ms);
        if self.0.last().is_none_or(|(at_ms, _)| at_ms + within_ms / PARTS <= now_ms) {
            self.0.push((now_ms, value));
        }
        self
    }

    /// By how much it has grown from its least to `value`.
    fn rise(&self, value: i64) -> i64 {
        let least = self.0.iter().map(|(_, value)| *value).min();
        least.map_or(0, |least| value.saturating_sub(least))
    }
}

/// Looks, when it is time to.
pub(crate) fn look(draft: &mut Draft) {
    let now_ms = draft.state().now_ms;
    if now_ms < draft.state().alerts_look_ms {
        return;
    }
    draft.look_at_alerts(now_ms + limit::ALERTS_LOOK_MS);
    let rules: Vec<_> = draft.state().alert_rules.values().cloned().collect();
    for rule in rules {
        apply(draft, &rule);
    }
    sweep(draft);
}

fn apply(draft: &mut Draft, rule: &Rule) {
    let found = signal::find(draft.state(), rule, draft.wall_ms());
    let mut holds: BTreeMap<Subject, Option<i64>> = BTreeMap::new();
    if rule.test == Test::Absent {
        if found.is_empty() {
            holds.insert(Subject::Cluster, None);
        }
    } else {
        let mut trends = BTreeMap::new();
        for (of, value) in found {
            if is_so(draft.state(), rule, of, value, &mut trends) {
                holds.insert(of, Some(value));
            }
        }
        draft.set_trends(&rule.name, trends);
    }
    let over: Vec<Alert> = draft
        .state()
        .alerts_of(&rule.name)
        .filter(|alert| !holds.contains_key(&alert.of) && alert.state != AlertState::Resolved)
        .cloned()
        .collect();
    for alert in over {
        end(draft, alert);
    }
    let mut count = draft.state().alerts_of(&rule.name).count();
    for (of, value) in holds {
        count += usize::from(hold(draft, rule, of, value, count));
    }
}

fn is_so(
    state: &State,
    rule: &Rule,
    of: Subject,
    value: i64,
    trends: &mut BTreeMap<Subject, Trend>,
) -> bool {
    match rule.test {
        Test::Above(most) => value > most,
        Test::Below(least) => value < least,
        Test::Absent => false,
        Test::Rises { by, within_ms } => {
            let before = state.trends.get(&(rule.name.clone(), of)).cloned().unwrap_or_default();
            let trend = before.with(state.now_ms, value, within_ms);
            let rises = trend.rise(value) >= by;
            trends.insert(of, trend);
            rises
        }
    }
}

/// The rule's test holds for a subject. The rule has so many alerts; the answer is whether it has one more.
fn hold(draft: &mut Draft, rule: &Rule, of: Subject, value: Option<i64>, count: usize) -> bool {
    let (now_ms, wall_ms) = (draft.state().now_ms, draft.wall_ms());
    let known = draft.state().alerts.get(&(rule.name.clone(), of)).map(|it| Alert::clone(it));
    let is_new = known.is_none();
    let full =
        count >= limit::ALERTS_OF_RULE_MAX || draft.state().alerts.len() >= limit::ALERTS_MAX;
    let alert = match known {
        Some(alert) if alert.state != AlertState::Resolved => alert,
        // It is so again.
        Some(alert) => Alert {
            state: AlertState::Pending,
            since_ms: now_ms,
            began_wall_ms: wall_ms,
            fired_wall_ms: 0,
            resolved_wall_ms: 0,
            acknowledged: None,
            value,
            ..alert
        },
        None if full => return false,
        None => Alert {
            rule: rule.name.clone(),
            of,
            project: None,
            name: String::new(),
            state: AlertState::Pending,
            severity: rule.severity,
            value,
            since_ms: now_ms,
            began_wall_ms: wall_ms,
            fired_wall_ms: 0,
            resolved_wall_ms: 0,
            acknowledged: None,
            told: Told::Nothing,
            notice: None,
            untold_until_ms: 0,
            revision: Revision::ZERO,
        },
    };
    let (project, name) = match (is_new, of, rule.test) {
        (false, ..) => (alert.project.clone(), alert.name.clone()),
        (true, Subject::Cluster, Test::Absent) => {
            (rule.project.clone(), signal::named(draft.state(), of).1)
        }
        (true, ..) => signal::named(draft.state(), of),
    };
    let alert = Alert { project, name, ..alert };
    let begins = alert.since_ms == now_ms;
    if alert.state == AlertState::Pending && alert.since_ms + rule.for_ms <= now_ms {
        let (state, severity) = (AlertState::Firing, rule.severity);
        let fired =
            Alert { state, severity, value, since_ms: now_ms, fired_wall_ms: wall_ms, ..alert };
        draft.put(fired);
    } else if begins && alert.state == AlertState::Pending {
        draft.put(alert);
    }
    is_new
}

/// It is so no more. What nobody can have heard of is forgotten at once.
pub(super) fn end(draft: &mut Draft, alert: Alert) {
    let unheard = alert.told == Told::Nothing && alert.notice.is_none();
    if alert.state == AlertState::Pending && unheard {
        return draft.delete::<Alert>((alert.rule, alert.of));
    }
    let (since_ms, resolved_wall_ms) = (draft.state().now_ms, draft.wall_ms());
    draft.put(Alert { state: AlertState::Resolved, since_ms, resolved_wall_ms, ..alert });
}

/// Forgets what nobody has a use for any more.
fn sweep(draft: &mut Draft) {
    let (state, wall_ms) = (draft.state(), draft.wall_ms());
    let over = state.alerts.iter().filter(|(_, alert)| alert.is_over(state.now_ms));
    let over: Vec<AlertKey> = over.map(|(key, _)| key.clone()).collect();
    let ended = state.silences.values().filter(|silence| silence.until_wall_ms <= wall_ms);
    let ended: Vec<Name> = ended.map(|silence| silence.name.clone()).collect();
    over.into_iter().for_each(|key| draft.delete::<Alert>(key));
    ended.into_iter().for_each(|name| draft.delete::<Silence>(name));
}
