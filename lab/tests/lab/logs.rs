//! What nodes log: objects whose fields have the names that docs/logging.md gives them, and no secret at any level.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use client::{
    Client, Options,
    v1::{self, credentials_client::CredentialsClient, tokens_client::TokensClient},
};
use novacron_lab::{Cluster, ClusterOptions, Hosts, status};
use serde_json::Value;

use crate::harness::{await_phase, create, options, simulated_image, spec, start};

const PATIENCE: Duration = Duration::from_secs(60);
const USER_DATA: &str = "#cloud-config\npassword: hunter2\n";

/// What is told of operations, by [`of_operation`].
const EXPECTED: [&str; 3] = [
    "vm-operations create prepare running simulator",
    "vm-operations create start done simulator",
    "vm-operations stop shut_down done simulator",
];

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_objects_and_tell_no_secret() {
    let options = ClusterOptions { json_log: Some("trace"), ..options(Hosts::Simulated) };
    let cluster = start(options).await;
    cluster.await_voters(3).await.unwrap();
    let client = cluster.client().unwrap();
    simulated_image(&client).await;
    // Secrets of every kind are made and given out, and credentials are used.
    let vm = v1::VmSpec { user_data: USER_DATA.to_owned(), ..spec("none") };
    create(&client, "web", vm).await.unwrap();
    await_phase(&client, "web", "running", PATIENCE).await;
    cluster.novacron(0, &["vm", "stop", "web"]).unwrap();
    let mutation = client.mutation().await.unwrap();
    let request = v1::CreateTokenRequest { mutation, ..Default::default() };
    let token = client.call(request, async |channel, request| {
        TokensClient::new(channel).create_token(request).await
    });
    let token = token.await.unwrap().token;
    let request = v1::CreateCredentialRequest {
        mutation: client.mutation().await.unwrap(),
        name: "reader".to_owned(),
        role: "viewer".to_owned(),
        ttl_seconds: 0,
    };
    let made = client.call(request, async |channel, request| {
        CredentialsClient::new(channel).create_credential(request).await
    });
    let bearer = made.await.unwrap().bearer;
    let access = cluster.access.clone();
    let reader = Client::new(Options {
        endpoints: access.endpoints,
        authority: access.authority,
        server_name: access.server_name,
        bearer: bearer.clone(),
        deadline: PATIENCE,
        traceparent: None,
    });
    status(&reader.unwrap()).await.unwrap();
    let last = |text: &str| text.rsplit('.').next().unwrap().to_owned();
    let admin = last(&cluster.access.bearer);
    let secrets = ["hunter2".to_owned(), last(&token), last(&bearer), admin];
    // What ended is written down a moment later.
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let told = told(&cluster, &secrets);
        let missing = EXPECTED.iter().find(|expected| !told.contains(**expected));
        let Some(missing) = missing else { break };
        assert!(begun.elapsed() < PATIENCE, "{missing:?} is not among {told:?}");
    }
}

/// What nodes have told of operations so far; no line tells a secret.
fn told(cluster: &Cluster, secrets: &[String]) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for node in 0..3 {
        // The last line may be half written.
        for line in cluster.log(node).split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            for secret in secrets {
                assert!(!line.contains(secret.as_str()), "a secret is told: {line}");
            }
            let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
            // Libraries may have nothing to say in words.
            let ours = line["target"].as_str().is_some_and(|target| target.starts_with("novacron"));
            for field in ["timestamp", "level", "target", "message"] {
                assert!(
                    line[field].is_string() || !ours && field == "message",
                    "no {field}: {line}"
                );
            }
            if line["message"] == "operation" {
                told.insert(of_operation(&line));
            }
        }
    }
    told
}

/// What a line about an operation says, in a few words.
fn of_operation(line: &Value) -> String {
    let text = |field: &str| line[field].as_str().unwrap_or_else(|| panic!("no {field}: {line}"));
    assert!(line["duration_ms"].is_u64(), "{line}");
    assert!(text("operation_id").len() == 36 && text("vm_id").len() == 36, "{line}");
    assert!(text("node").starts_with('n'), "{line}");
    let (service, operation, status) = (text("service"), text("operation"), text("status"));
    // Of a VM that goes nowhere.
    assert!(line["source_provider"].is_null(), "{line}");
    let phase = line["phase"].as_str().unwrap_or("none");
    let host = line["dest_provider"].as_str().unwrap_or("nowhere");
    format!("{service} {operation} {phase} {status} {host}")
}
