//! Alerts on their way: from a guest that was stopped to Debian's Alertmanager, and back; and to a webhook, whatever
//! becomes of it or of the leader.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actors::{Receiver, ReceiverKind};
use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use client::{Client, v1};
use domain::{
    alert::{Severity, Signal},
    name::Name,
    operation::Kind,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use v1::{alerts_client::AlertsClient, operations_client::OperationsClient};

use crate::{
    doctor::free,
    harness::{Lab, create, spec},
    kinds::act,
    scripted::Fault,
    stage::{NODES, PATIENCE},
    tally::Tally,
};

/// What somebody was told: the rule, of what, and its state.
type Heard = (String, String, String);

/// Takes what webhooks are told, or does not.
#[derive(Clone, Default)]
struct Hook(Arc<Mutex<Heart>>);

#[derive(Default)]
struct Heart {
    heard: Vec<Heard>,
    /// What becomes of the next that tells of a rule.
    faults: BTreeMap<String, Fault>,
    struck: u32,
    held: bool,
}

impl Hook {
    async fn start() -> (Hook, String) {
        let hook = Hook::default();
        let taken = hook.clone();
        let router = Router::new().route(
            "/told",
            post(move |body: Bytes| {
                let hook = taken.clone();
                async move { hook.take(&body).await }
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/told", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (hook, url)
    }

    async fn take(&self, body: &[u8]) -> StatusCode {
        let letter: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(
            (&letter["version"], &letter["cluster"]),
            (&1.into(), &"dev".into()),
            "{letter}"
        );
        let text = |alert: &Value, field: &str| alert[field].as_str().unwrap().to_owned();
        let told = letter["alerts"].as_array().unwrap().iter();
        let told = told.map(|it| (text(it, "rule"), text(it, "name"), text(it, "state")));
        let told: Vec<Heard> = told.collect();
        let fault = {
            let mut heart = self.0.lock().unwrap();
            let fault = told.iter().find_map(|(rule, ..)| heart.faults.remove(rule));
            heart.struck += u32::from(fault.is_some());
            heart.held |= fault == Some(Fault::Holds);
            if !matches!(fault, Some(Fault::Fails)) {
                heart.heard.extend(told);
            }
            fault
        };
        match fault {
            Some(Fault::Fails) => StatusCode::SERVICE_UNAVAILABLE,
            // Its connection breaks.
            Some(Fault::AnswerLost) => panic!("the answer is lost"),
            Some(Fault::Holds) => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                StatusCode::OK
            }
            Some(Fault::None | Fault::Twice | Fault::Panics) | None => StatusCode::OK,
        }
    }

    /// What was told of a rule, in its order.
    fn heard(&self, rule: &str) -> Vec<String> {
        let heart = self.0.lock().unwrap();
        let of = heart.heard.iter().filter(|(of, ..)| of == rule);
        of.map(|(.., state)| state.clone()).collect()
    }
}

fn receiver(name: &str, kind: ReceiverKind, url: String) -> Receiver {
    let name = Name::new(name).unwrap();
    Receiver { name, kind, url, bearer: None, authority: None, least: Severity::Info }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn set_rule(client: &Client, name: &str, rule: v1::AlertRule) {
    let mutation = client.mutation().await.unwrap();
    let request =
        v1::SetAlertRuleRequest { mutation, alert_rule: name.to_owned(), rule: Some(rule) };
    let call = client.call(request, async |channel, request| {
        AlertsClient::new(channel).set_alert_rule(request).await
    });
    call.await.unwrap();
}

async fn delete_rule(client: &Client, name: &str) {
    let mutation = client.mutation().await.unwrap();
    let request = v1::DeleteAlertRuleRequest { mutation, alert_rule: name.to_owned() };
    let call = client.call(request, async |channel, request| {
        AlertsClient::new(channel).delete_alert_rule(request).await
    });
    call.await.unwrap();
}

/// The alerts of a rule.
async fn alerts(client: &Client, rule: &str) -> Vec<v1::Alert> {
    let page = Some(v1::Page { filter: format!("rule={rule}"), ..Default::default() });
    let request = v1::ListAlertsRequest { page, freshness: None };
    let call = client.call(request, async |channel, request| {
        AlertsClient::new(channel).list_alerts(request).await
    });
    call.await.unwrap().alerts
}

async fn notices(client: &Client) -> Vec<v1::Operation> {
    let page = Some(v1::Page { filter: "kind=notify".to_owned(), ..Default::default() });
    let request = v1::ListOperationsRequest { page, ..Default::default() };
    let call = client.call(request, async |channel, request| {
        OperationsClient::new(channel).list_operations(request).await
    });
    call.await.unwrap().operations
}

/// Debian's Alertmanager.
struct Alertmanager {
    process: Child,
    address: String,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Alertmanager {
    fn start(directory: &Path) -> Alertmanager {
        std::fs::write(
            directory.join("alertmanager.yml"),
            "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
        )
        .unwrap();
        let address = free();
        let process = Command::new("prometheus-alertmanager")
            .current_dir(directory)
            .args(["--config.file=alertmanager.yml", "--storage.path=told", "--log.level=warn"])
            .args([&format!("--web.listen-address={address}"), "--cluster.listen-address="])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.join("alertmanager.log")).unwrap())
            .spawn()
            .unwrap();
        Alertmanager { process, address }
    }

    /// What fires there; none while nobody answers.
    async fn firing(&self) -> Vec<Value> {
        let Ok(mut connection) = TcpStream::connect(&self.address).await else { return Vec::new() };
        let request = "GET /api/v2/alerts?active=true HTTP/1.0\r\n\r\n";
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_guest_is_an_alert_in_alertmanager_until_it_runs_again() {
    let directory = tempfile::tempdir().unwrap();
    let alertmanager = Alertmanager::start(directory.path());
    let (hook, url) = Hook::start().await;
    let receivers = vec![
        receiver("people", ReceiverKind::Alertmanager, format!("http://{}", alertmanager.address)),
        receiver("chat", ReceiverKind::Webhook, url),
    ];
    let lab = Lab::start_telling(1, 1, receivers).await;
    let client = lab.client();
    lab.image("tiny").await;
    let labels = [("role".to_owned(), "db".to_owned())];
    let db = v1::VmSpec { labels: labels.clone().into(), ..spec() };
    let made = create(&client, "db", db).await.unwrap();
    client.wait(&made.operation, PATIENCE, |_| ()).await.unwrap();
    let rule = v1::AlertRule {
        signal: "vm-running".to_owned(),
        test: "below".to_owned(),
        value: 1,
        labels: labels.into(),
        severity: "critical".to_owned(),
        summary: "a database does not run".to_owned(),
        ..Default::default()
    };
    set_rule(&client, "db-down", rule).await;
    act(&client, Kind::Kill, "db", "").await.unwrap();
    until("the alert", async || !alertmanager.firing().await.is_empty()).await;
    let firing = alertmanager.firing().await;
    let labels = &firing[0]["labels"];
    let expected = serde_json::json!({
        "alertname": "db-down", "severity": "critical", "cluster": "dev", "vm": "db", "project": "default",
    });
    assert_eq!((firing.len(), labels), (1, &expected), "{firing:?}");
    let annotations = serde_json::json!({"summary": "a database does not run", "value": "0"});
    assert_eq!(firing[0]["annotations"], annotations);
    until("that it was told", async || {
        alerts(&client, "db-down").await.first().is_some_and(|alert| alert.told == "firing")
    })
    .await;

    act(&client, Kind::Start, "db", "").await.unwrap();
    until("the end of the alert", async || alertmanager.firing().await.is_empty()).await;
    until("that its end was told", async || {
        alerts(&client, "db-down").await.first().is_some_and(|alert| alert.told == "nothing")
    })
    .await;
    assert_eq!(hook.heard("db-down"), ["firing", "resolved"]);
    assert!(notices(&client).await.iter().all(|notice| notice.message == "told people, chat"));
    lab.cluster.stop().await;
}

/// docs/alerts.md has a row for each signal, as it is, and for each rule that is there from the start.
#[tokio::test(flavor = "multi_thread")]
async fn signals_and_rules_are_documented() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/alerts.md"));
    let page = page.unwrap();
    for signal in Signal::ALL {
        let signal = signal.definition();
        let row = format!("| `{}` | {} | {} |", signal.name, signal.of, signal.meaning);
        assert!(page.contains(&row), "docs/alerts.md lacks {row}");
    }
    let lab = Lab::start(1, 1, 0).await;
    let request = v1::ListAlertRulesRequest::default();
    let client = lab.client();
    let call = client.call(request, async |channel, request| {
        AlertsClient::new(channel).list_alert_rules(request).await
    });
    let rules = call.await.unwrap().alert_rules;
    assert_eq!(rules.len(), 12);
    for rule in rules {
        assert!(
            page.contains(&format!("| `{}` |", rule.name)),
            "docs/alerts.md lacks {}",
            rule.name
        );
    }
    lab.cluster.stop().await;
}

/// Notices, struck: the receiver refuses, takes it and does not say so, or holds it; the leader is lost meanwhile.
pub async fn strike(tally: &Arc<Tally>) {
    let (hook, url) = Hook::start().await;
    // It is well, and told after the other.
    let (well, url_of_well) = Hook::start().await;
    let receivers = vec![
        receiver("chat", ReceiverKind::Webhook, url),
        receiver("log", ReceiverKind::Webhook, url_of_well),
    ];
    let mut lab = Lab::start_telling(NODES, 1, receivers).await;
    lab.await_voters(NODES).await;
    let client = lab.client();
    let always = || v1::AlertRule {
        signal: "losable-voters".to_owned(),
        test: "below".to_owned(),
        value: 100,
        ..Default::default()
    };
    let told = async |rule: &str, told: &str| {
        until(&format!("{rule}: {told}"), async || {
            alerts(&client, rule).await.first().is_some_and(|alert| alert.told == told)
        })
        .await;
    };
    for (fault, heard) in [
        (Fault::Fails, ["firing", "resolved"].as_slice()),
        (Fault::AnswerLost, &["firing", "firing", "resolved"]),
        (Fault::Holds, &["firing", "firing", "resolved"]),
    ] {
        let rule = format!("rule-{}", heard.len() + usize::from(fault == Fault::Holds));
        hook.0.lock().unwrap().faults.insert(rule.clone(), fault);
        set_rule(&client, &rule, always()).await;
        told(&rule, "firing").await;
        delete_rule(&client, &rule).await;
        told(&rule, "nothing").await;
        assert_eq!(hook.heard(&rule), heard, "{fault:?}");
        assert_eq!(well.heard(&rule), ["firing", "resolved"], "{fault:?}: told once");
        tally.note("notify", "tell".to_owned(), &format!("{fault:?}"));
    }
    assert_eq!(hook.0.lock().unwrap().struck, 3);

    // The next leader does not know what was told, and tells it again.
    hook.0.lock().unwrap().held = false;
    hook.0.lock().unwrap().faults.insert("lost".to_owned(), Fault::Holds);
    set_rule(&client, "lost", always()).await;
    until("the notice", async || hook.0.lock().unwrap().held).await;
    let leader = lab.leader().await;
    lab.cluster.stop_node(leader).await;
    told("lost", "firing").await;
    delete_rule(&client, "lost").await;
    told("lost", "nothing").await;
    assert_eq!(hook.heard("lost"), ["firing", "firing", "resolved"]);
    tally.note("notify", "tell".to_owned(), "leader lost");
    assert_eq!(well.heard("lost"), ["firing", "resolved"], "the first leader did not come to it");
    lab.cluster.stop().await;
}
