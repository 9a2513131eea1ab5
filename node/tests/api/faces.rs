//! gRPC and REST give the same answer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::v1;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::harness::{Lab, create, done, get, spec};

const PATIENCE: Duration = Duration::from_secs(60);

/// One request over HTTP/1.1 to the second node, as curl would send it.
pub(crate) async fn rest(
    lab: &Lab,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    rest_at(lab, 1, method, path, body).await
}

pub(crate) async fn rest_at(
    lab: &Lab,
    node: usize,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let mut tls = ask(lab, node, method, path, body).await;
    let mut answer = Vec::new();
    // A server may close without a farewell.
    let _ = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut answer)).await;
    understand(&answer)
}

/// What the second node sends to who watches, for three seconds and until so many messages are there:
/// a watch never ends.
pub(crate) async fn watch(lab: &Lab, path: &str, messages: usize) -> (StatusCode, Value) {
    const LEAST: Duration = Duration::from_secs(3);
    let mut tls = ask(lab, 1, Method::GET, path, None).await;
    let (begun, mut answer) = (Instant::now(), Vec::new());
    loop {
        let patience = if has(&answer, messages) { LEAST } else { PATIENCE };
        let read = tokio::time::timeout_at(begun + patience, tls.read_buf(&mut answer)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return understand(&answer);
        }
    }
}

/// Whether the head is there, and so many messages of a list that never ends.
fn has(answer: &[u8], messages: usize) -> bool {
    let answer = std::str::from_utf8(answer).unwrap_or_default();
    let Some((_, body)) = parted(answer) else { return false };
    let list = serde_json::from_str::<Vec<Value>>(&format!("{body}]")).unwrap_or_default();
    list.len() >= messages
}

async fn ask(
    lab: &Lab,
    node: usize,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> TlsStream<TcpStream> {
    let access = &lab.cluster.access;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(access.authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(&access.endpoints[node]).await.unwrap();
    let name = ServerName::try_from(access.server_name.clone()).unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: novacron\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        access.bearer,
        body.len()
    );
    tls.write_all(request.as_bytes()).await.unwrap();
    tls
}

fn understand(answer: &[u8]) -> (StatusCode, Value) {
    let (head, body) = parted(std::str::from_utf8(answer).unwrap()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

/// The head and the body, once all of the head is there.
fn parted(answer: &str) -> Option<(&str, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body)
    } else {
        body.to_owned()
    };
    Some((head, body))
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 || rest.len() < size + 2 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn both_faces_give_the_same_answer() {
    let lab = Lab::start(3, 3, 0).await;
    lab.image("tiny").await;
    let client = lab.client();
    let vms = "/v1/projects/default/vms";

    // What one face makes the other shows, to the letter.
    let body = json!({"name": "web", "spec": {"vcpus": 1, "memoryMib": 64, "image": "tiny",
        "labels": {"tier": "gold"}}});
    let (status, outcome) = rest(&lab, Method::POST, vms, Some(body)).await;
    assert_eq!(status, StatusCode::OK, "{outcome}");
    let outcome: v1::Outcome = serde_json::from_value(outcome).unwrap();
    done(&client, &outcome).await;
    let (status, shown) = rest(&lab, Method::GET, &format!("{vms}/web"), None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(shown, serde_json::to_value(get(&client, "web").await.unwrap()).unwrap());
    let (_, list) =
        rest(&lab, Method::GET, &format!("{vms}?page.filter=labels.tier%3Dgold"), None).await;
    assert_eq!(list["vms"], json!([shown]));
    let (status, _) =
        rest(&lab, Method::POST, &format!("{vms}/web:stop"), Some(json!({"force": true}))).await;
    assert_eq!(status, StatusCode::OK);

    // Failures: the same reason, and the fields.
    let by_grpc = create(&client, "bad", v1::VmSpec { vcpus: 0, ..spec() }).await.unwrap_err();
    let body = json!({"name": "bad", "spec": {"memoryMib": 64, "image": "tiny"}});
    let (status, failure) = rest(&lab, Method::POST, vms, Some(body)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(failure["message"], by_grpc.to_string());
    assert_eq!(failure["details"][0]["reason"], by_grpc.reason());
    assert_eq!(failure["details"][1]["fieldViolations"][0]["field"], "spec.vcpus");
    // Each label is wrong: a refusal names some of them, and stays small.
    let labels: BTreeMap<String, &str> = (0..3_000).map(|n| (format!("L{n}"), "x")).collect();
    let spec = v1::VmSpec {
        labels: labels.iter().map(|(key, value)| (key.clone(), (*value).to_owned())).collect(),
        ..spec()
    };
    let refused = create(&client, "bad", spec).await.unwrap_err();
    assert_eq!(refused.reason(), "INVALID", "{refused}");
    let many_labels = json!({"name": "bad", "spec": {"vcpus": 1, "memoryMib": 64, "image": "tiny",
        "labels": labels}});
    let table = [
        (Method::GET, format!("{vms}/none"), None, 404, "NOT_FOUND"),
        (Method::GET, "/v1/nowhere".to_owned(), None, 404, "NO_SUCH_PATH"),
        (Method::PUT, vms.to_owned(), None, 404, "NO_SUCH_PATH"),
        (
            Method::POST,
            vms.to_owned(),
            Some(json!({"name": "x", "colour": "red"})),
            400,
            "MALFORMED",
        ),
        (Method::POST, vms.to_owned(), Some(json!([1])), 400, "MALFORMED"),
        // As large as it may be, and larger.
        (Method::POST, vms.to_owned(), Some(json!({"a".repeat(1_000_000): 1})), 400, "MALFORMED"),
        (Method::POST, vms.to_owned(), Some(json!({"a".repeat(1 << 20): 1})), 413, "TOO_LARGE"),
        (Method::POST, vms.to_owned(), Some(many_labels.clone()), 400, "INVALID"),
        (Method::GET, "/v1/events".to_owned(), None, 200, ""),
        // A revision of another epoch: a history that was left behind.
        (Method::GET, "/v1/events?sinceRevision=1".to_owned(), None, 410, "OTHER_HISTORY"),
        (
            Method::PUT,
            "/v1/settings/voters-max".to_owned(),
            Some(json!({"value": 99})),
            400,
            "INVALID",
        ),
        (Method::PUT, "/v1/settings/none".to_owned(), Some(json!({"value": 1})), 404, "NOT_FOUND"),
    ];
    for (method, path, body, expected, reason) in table {
        let (status, answer) = rest(&lab, method.clone(), &path, body).await;
        assert_eq!(status.as_u16(), expected, "{method} {path}: {answer}");
        if !reason.is_empty() {
            assert_eq!(answer["details"][0]["reason"], reason, "{method} {path}: {answer}");
        }
    }

    // Every path of the description is served.
    let document: Value = serde_json::from_str(proto::OPENAPI).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut paths = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|method| *method != "parameters") {
            if path.ends_with(":watch") {
                continue;
            }
            let filled = path
                .replace(['{', '}'], "")
                .replace("/v1/projects/project", "/v1/projects/default");
            let method: Method = method.to_uppercase().parse().unwrap();
            let (status, answer) = rest(&lab, method.clone(), &filled, Some(json!({}))).await;
            assert!(status.as_u16() < 500, "{method} {filled}: {status} {answer}");
            paths += 1;
        }
    }
    assert!(paths > 30, "only {paths} paths");
    for (path, expected) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        assert_eq!(rest(&lab, Method::GET, path, None).await.1, expected);
    }
    let (_, metrics) = rest(&lab, Method::GET, "/metrics", None).await;
    assert!(metrics.as_str().unwrap().contains("novacron_raft_term"), "{metrics}");
    lab.cluster.stop().await;
}
