//! Has people told of alerts: operations of the kind `notify`, and what Alertmanager wants to hear again and again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{
    State,
    alert::{Alert, AlertCommand, AlertKey, AlertState, Notice, Severity, Told, Voters},
    envelope::Command,
    id::{Digest, OperationId},
    name::Name,
    operation::Class,
};
use newtype_uuid::GenericUuid;
use raft_store::Store;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::Instant};

use crate::{health::wall_ms, root::StaffOptions};

/// Who is told of alerts.
#[derive(Clone)]
pub struct Receiver {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: ReceiverKind,
    /// Its address: of an Alertmanager where its API begins, of a webhook the whole.
    pub url: String,
    /// The credential that it wants.
    pub bearer: Option<String>,
    /// The certificates that it is trusted by, PEM; those that the machine trusts, without.
    pub authority: Option<String>,
    /// It is told of nothing less bad.
    pub least: Severity,
}

/// What a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverKind {
    /// Prometheus' Alertmanager, by the second version of its API.
    Alertmanager,
    /// Anything that takes JSON.
    Webhook,
}

/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before a notice that failed is told again: at first, and at most.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Alertmanager takes what it does not hear of again for over.
const REPEAT: Duration = Duration::from_secs(60);
/// For how long it may believe what it heard last.
const BELIEVED: Duration = Duration::from_secs(300);
/// A voter not heard of for this long is silent, milliseconds.
const SILENCE_MS_MAX: u64 = 5_000;

/// Those who tell.
pub(super) struct Tellers {
    receivers: Arc<[Receiver]>,
    under_way: BTreeMap<OperationId, Telling>,
    heard: Heard,
    repeating: Option<JoinHandle<()>>,
    next_repeat: Instant,
}

struct Telling {
    work: JoinHandle<()>,
    times: u32,
    at: Instant,
}

/// What receivers, by their numbers, have taken last of an alert: its state, and since when it fires. So nobody is told
/// again because another did not take it.
type Heard = Arc<Mutex<BTreeMap<(usize, AlertKey), (AlertState, u64)>>>;

impl Tellers {
    pub(super) fn new(options: &StaffOptions) -> Tellers {
        Tellers {
            receivers: options.receivers.clone(),
            under_way: BTreeMap::new(),
            heard: Heard::default(),
            repeating: None,
            next_repeat: Instant::now(),
        }
    }

    /// Forgets what it has done: another node leads.
    pub(super) fn rest(&mut self) {
        let works = std::mem::take(&mut self.under_way).into_values().map(|telling| telling.work);
        works.chain(self.repeating.take()).for_each(|work| work.abort());
        self.heard = Heard::default();
    }

    /// Says how the voters are, and has people told; does not wait for them.
    pub(super) async fn act(&mut self, store: &Store) {
        let view = store.view();
        let state = &view.state;
        let voters = voters(store);
        if state.voters != Some(voters) {
            let Voters { silent, losable } = voters;
            propose(store, AlertCommand::Voters { silent, losable }).await;
        }
        if self.receivers.is_empty() {
            return;
        }
        let news = state.news(wall_ms());
        if !news.is_empty() {
            let operation = OperationId::from_untyped_uuid(uuid::Uuid::now_v7());
            propose(store, AlertCommand::Notify { operation, alerts: news }).await;
        }
        if state.busy(Class::MonitoringAlerts) > 0 {
            let notices: Vec<Notice> = state.notices().collect();
            self.under_way.retain(|id, _| notices.iter().any(|notice| notice.operation == *id));
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.retain(|(_, alert), _| state.alerts.contains_key(alert));
            drop(heard);
            for notice in notices {
                self.tell(store, state, notice);
            }
        }
        if Instant::now() >= self.next_repeat
            && self.repeating.as_ref().is_none_or(JoinHandle::is_finished)
        {
            self.next_repeat = Instant::now() + REPEAT;
            self.repeating = self.repeat(state);
        }
    }

    fn tell(&mut self, store: &Store, state: &State, notice: Notice) {
        let times = match self.under_way.get(&notice.operation) {
            Some(telling) => {
                let pause = (RETRY_MIN * 2_u32.saturating_pow(telling.times.min(8))).min(RETRY_MAX);
                if !telling.work.is_finished() || telling.at.elapsed() < pause {
                    return;
                }
                telling.times.saturating_add(1)
            }
            None => 0,
        };
        // What is only pending is nobody's business, and what is silenced meanwhile waits.
        let now_ms = wall_ms();
        let told = |alert: &&Alert| {
            alert.state != AlertState::Pending && state.silence_of(alert, now_ms).is_none()
        };
        let alerts: Vec<Alert> = notice.alerts.iter().filter(told).cloned().collect();
        let work = deliver(
            store.clone(),
            self.receivers.clone(),
            Letter::of(state, &alerts),
            notice.operation,
            self.heard.clone(),
        );
        let telling = Telling { work: tokio::spawn(work), times, at: Instant::now() };
        self.under_way.insert(notice.operation, telling);
    }

    /// Tells Alertmanagers of all that fires and that they may have heard of; also where there is a silence by now: they
    /// would take it for over.
    fn repeat(&self, state: &State) -> Option<JoinHandle<()>> {
        let told =
            |alert: &&Arc<Alert>| alert.state == AlertState::Firing && alert.told != Told::Nothing;
        let alerts: Vec<Alert> =
            state.alerts.values().filter(told).map(|alert| Alert::clone(alert)).collect();
        if alerts.is_empty() {
            return None;
        }
        let (receivers, letter) = (self.receivers.clone(), Letter::of(state, &alerts));
        Some(tokio::spawn(async move {
            let hears = |receiver: &&Receiver| receiver.kind == ReceiverKind::Alertmanager;
            for receiver in receivers.iter().filter(hears) {
                let letter = letter.without(|alert| alert.severity < receiver.least);
                if letter.alerts.is_empty() {
                    continue;
                }
                if let Err(why) = send(receiver, &letter, None).await {
                    tracing::warn!(receiver = %receiver.name, why, "what fires was not told again");
                }
            }
        }))
    }
}

/// How the voters are, as the leader hears of them.
fn voters(store: &Store) -> Voters {
    let status = store.status();
    let silent = status.voters.iter().filter(|voter| {
        let follower = status.followers.get(voter);
        let heard = follower.and_then(|follower| follower.silent_ms);
        **voter != status.node && heard.is_none_or(|ms| ms > SILENCE_MS_MAX)
    });
    Voters {
        silent: u32::try_from(silent.count()).unwrap_or(u32::MAX),
        losable: u32::try_from(status.losable()).unwrap_or(u32::MAX),
    }
}

async fn propose(store: &Store, command: AlertCommand) {
    if let Err(error) = store.propose_as_node(Command::Alert(command)).await {
        tracing::debug!(%error, "nothing came of it for alerts");
    }
}

/// Tells every receiver what it has not taken yet, and the cluster what came of it.
async fn deliver(
    store: Store,
    receivers: Arc<[Receiver]>,
    letter: Letter,
    operation: OperationId,
    heard: Heard,
) {
    let (mut took, mut failures) = (Vec::new(), Vec::new());
    for (number, receiver) in receivers.iter().enumerate() {
        let news = letter.without(|alert| {
            let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            let last = heard.get(&(number, (alert.rule.clone(), alert.of)));
            alert.severity < receiver.least || last == Some(&(alert.state, alert.fired_wall_ms))
        });
        if news.alerts.is_empty() {
            continue;
        }
        match send(receiver, &news, Some(news.key(operation))).await {
            Ok(()) => {
                took.push(receiver.name.as_str());
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.extend(news.alerts.iter().map(|(alert, _)| {
                    let key = (number, (alert.rule.clone(), alert.of));
                    (key, (alert.state, alert.fired_wall_ms))
                }));
            }
            Err(why) => failures.push(format!("{}: {why}", receiver.name)),
        }
    }
    let answer = match (failures.is_empty(), took.is_empty()) {
        (true, true) => Ok("there was nothing that anybody had not heard".to_owned()),
        (true, false) => Ok(format!("told {}", took.join(", "))),
        (false, _) => Err(failures.join("; ")),
    };
    if let Err(why) = &answer {
        tracing::warn!(%operation, why, "people were not told of alerts");
    }
    let told = letter.alerts.iter();
    let told = told.map(|(alert, _)| ((alert.rule.clone(), alert.of), alert.state)).collect();
    propose(&store, AlertCommand::Notified { operation, answer, told }).await;
}

/// What receivers are told.
struct Letter {
    cluster: String,
    alerts: Vec<(Alert, String)>,
}

impl Letter {
    fn of(state: &State, alerts: &[Alert]) -> Letter {
        let cluster = state.cluster.as_ref().map(|cluster| cluster.name.to_string());
        let summary = |alert: &Alert| {
            state.alert_rules.get(&alert.rule).map(|rule| rule.summary.clone()).unwrap_or_default()
        };
        let alerts = alerts.iter().map(|alert| (alert.clone(), summary(alert))).collect();
        Letter { cluster: cluster.unwrap_or_default(), alerts }
    }

    /// The same without those for which this holds.
    fn without(&self, holds: impl Fn(&Alert) -> bool) -> Letter {
        let alerts = self.alerts.iter().filter(|(alert, _)| !holds(alert)).cloned().collect();
        Letter { cluster: self.cluster.clone(), alerts }
    }

    /// By what a receiver knows it again: the operation, and what is told.
    fn key(&self, operation: OperationId) -> String {
        let told = self.alerts.iter().map(|(alert, _)| {
            let state = alert.state.as_str();
            format!(
                "{}/{}/{}/{state}/{}",
                alert.rule,
                alert.of.noun(),
                alert.name,
                alert.fired_wall_ms
            )
        });
        let digest = Digest::of(&[told.collect::<Vec<_>>().join("\n").as_bytes()]);
        format!("{operation}-{}", &digest.to_string()[..16])
    }

    fn for_alertmanager(&self, now_ms: u64) -> Vec<Value> {
        let believed_ms = u64::try_from(BELIEVED.as_millis()).unwrap_or(u64::MAX);
        let told = self.alerts.iter().map(|(alert, summary)| {
            let mut labels = json!({
                "alertname": alert.rule,
                "severity": alert.severity,
                "cluster": self.cluster,
            });
            labels[alert.of.noun()] = alert.name.clone().into();
            if let Some(project) = &alert.project {
                labels["project"] = project.to_string().into();
            }
            let mut annotations = json!({ "summary": summary });
            if let Some(value) = alert.value {
                annotations["value"] = value.to_string().into();
            }
            if alert.acknowledged.is_some() {
                annotations["acknowledged"] = "true".into();
            }
            let ends_ms = match alert.state {
                AlertState::Resolved => alert.resolved_wall_ms,
                AlertState::Pending | AlertState::Firing => now_ms + believed_ms,
            };
            json!({
                "labels": labels,
                "annotations": annotations,
                "startsAt": time(alert.fired_wall_ms),
                "endsAt": time(ends_ms),
            })
        });
        told.collect()
    }

    fn for_webhook(&self) -> Value {
        let alerts = self.alerts.iter().map(|(alert, summary)| {
            json!({
                "rule": alert.rule,
                "state": alert.state.as_str(),
                "severity": alert.severity,
                "of": alert.of.noun(),
                "name": alert.name,
                "project": alert.project,
                "value": alert.value,
                "summary": summary,
                "began_at": time(alert.began_wall_ms),
                "fired_at": time(alert.fired_wall_ms),
                "resolved_at": time(alert.resolved_wall_ms),
                "acknowledged": alert.acknowledged.is_some(),
            })
        });
        json!({ "version": 1, "cluster": self.cluster, "alerts": alerts.collect::<Vec<_>>() })
    }
}

/// RFC 3339; null for never.
fn time(wall_ms: u64) -> Value {
    let at = i64::try_from(wall_ms).ok().filter(|ms| *ms > 0);
    let at = at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or(Value::Null, |at| at.to_string().into())
}

/// Tells one receiver. Where it is told the same again it is by the same key.
async fn send(receiver: &Receiver, letter: &Letter, key: Option<String>) -> Result<(), String> {
    let failed = |error: reqwest::Error| {
        // The address may have a secret in it.
        let why = error.without_url();
        let mut text = why.to_string();
        let mut cause = std::error::Error::source(&why);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    };
    let client = client(receiver).map_err(failed)?;
    let (url, body) = match receiver.kind {
        ReceiverKind::Alertmanager => {
            let url = format!("{}/api/v2/alerts", receiver.url.trim_end_matches('/'));
            (url, Value::Array(letter.for_alertmanager(wall_ms())))
        }
        ReceiverKind::Webhook => (receiver.url.clone(), letter.for_webhook()),
    };
    let mut request =
        client.post(url).header("content-type", "application/json").body(body.to_string());
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    if let Some(bearer) = &receiver.bearer {
        request = request.bearer_auth(bearer);
    }
    let answer = request.send().await.map_err(failed)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    // What it says beside that is not passed on: it may repeat what it was sent, the credential too.
    Err(format!("it answers {status}"))
}

fn client(receiver: &Receiver) -> Result<reqwest::Client, reqwest::Error> {
    // Another part of the program may have chosen it before; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A receiver that sends one elsewhere has not taken anything.
    let redirect = reqwest::redirect::Policy::none();
    let mut builder = reqwest::Client::builder().timeout(PATIENCE).redirect(redirect);
    if let Some(authority) = &receiver.authority {
        builder = builder.tls_certs_only([reqwest::Certificate::from_pem(authority.as_bytes())?]);
    }
    builder.build()
}
