//! Every call with an HTTP annotation, through both faces: the same answer, to the letter.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use client::{Client, Error, v1};
use http::{Method, StatusCode};
use novacron::dev::Access;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage,
    SerializeOptions, prost::Message,
};
use serde_json::{Map, Value, json};
use tonic::{
    Code, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{
    faces::{rest, watch},
    harness::{Lab, client},
};

/// The revision of an entry that every cluster has: the first of the first epoch.
const FIRST: &str = "281474976710657";

/// The calls in an order in which each has something to do: its name, its message, and the status
/// that REST answers with. `$operation`, `$credential`, `$token` and `$fence` are what the last
/// call before made.
fn calls() -> Vec<(&'static str, Value, u16)> {
    let vm = || json!({"project": "both", "vm": "web"});
    let policy = |policy: Value| json!({"migrationPolicy": "careful", "policy": policy});
    let rule = |rule: Value| json!({"alertRule": "mine", "rule": rule});
    let silence = |what: Value| json!({"silence": "quiet", "what": what});
    let spec = |memory_mib: u32| json!({"vcpus": 1, "memoryMib": memory_mib, "image": "tiny"});
    vec![
        ("GetVersion", json!({}), 200),
        // While nothing runs.
        ("ListHostUse", json!({}), 200),
        ("CreateProject", json!({"name": "both"}), 200),
        ("CreateProject", json!({"name": "both"}), 409),
        ("CreateProject", json!({"name": "../both"}), 400),
        ("ListProjects", json!({}), 200),
        ("CreateImage", json!({"name": "tiny"}), 200),
        ("GetImage", json!({"image": "tiny"}), 200),
        ("GetImage", json!({"image": "none"}), 404),
        ("ListImages", json!({"page": {"pageSize": 1}}), 200),
        ("ListImages", json!({"page": {"pageToken": "bad"}}), 400),
        ("CreateVm", json!({"project": "both", "name": "web", "spec": spec(64)}), 200),
        ("CreateVm", json!({"project": "both", "name": "bad", "spec": spec(0)}), 400),
        ("CreateVm", json!({"project": "none", "name": "web", "spec": spec(64)}), 404),
        ("GetOperation", json!({"operation": "$operation"}), 200),
        ("GetOperation", json!({"operation": "none"}), 400),
        ("WaitOperation", json!({"operation": "$operation", "timeoutMs": 1}), 200),
        ("CancelOperation", json!({"operation": "$operation"}), 400),
        ("RetryOperation", json!({"operation": "$operation"}), 400),
        ("ResumeOperation", json!({"operation": "$operation"}), 400),
        ("AbandonOperation", json!({"operation": "$operation"}), 400),
        ("ProbeHosts", json!({"hosts": ["host-0001"]}), 200),
        ("ProbeHosts", json!({"hosts": ["none"]}), 404),
        ("ProbeHosts", json!({"class": "migrations"}), 400),
        ("ListQueues", json!({}), 200),
        ("ListOperations", json!({"page": {"filter": "project=both"}}), 200),
        ("GetVm", vm(), 200),
        ("ExplainVm", vm(), 200),
        ("ListVms", json!({"project": "both"}), 200),
        ("PlanVms", json!({"vms": [{"project": "both", "name": "db", "spec": spec(64)}]}), 200),
        ("ListVms", json!({"project": "both", "page": {"orderBy": "colour"}}), 400),
        ("GetVmUsage", vm(), 200),
        ("GetConsoleLog", vm(), 200),
        ("PauseVm", vm(), 200),
        ("ResumeVm", vm(), 200),
        ("RebootVm", vm(), 200),
        ("MigrateVm", vm(), 200),
        ("MigrateVm", json!({"project": "both", "vm": "web", "host": "none"}), 404),
        ("StopVm", json!({"project": "both", "vm": "web", "force": true}), 200),
        ("UpdateVm", json!({"project": "both", "vm": "web", "spec": spec(96)}), 200),
        ("UpdateVm", json!({"project": "both", "vm": "web", "spec": spec(96), "etag": "1"}), 409),
        ("StartVm", vm(), 200),
        ("DeleteImage", json!({"image": "tiny"}), 400),
        ("DeleteVm", vm(), 200),
        ("DeleteVm", vm(), 404),
        ("DeleteImage", json!({"image": "tiny"}), 200),
        ("DeleteProject", json!({"project": "both"}), 200),
        (
            "AcquireLock",
            json!({"project": "default", "lock": "l", "owner": "me", "ttlMs": "60000"}),
            200,
        ),
        (
            "AcquireLock",
            json!({"project": "default", "lock": "l", "owner": "me", "ttlMs": "60000"}),
            400,
        ),
        ("GetLock", json!({"project": "default", "lock": "l"}), 200),
        ("ListLocks", json!({"project": "default"}), 200),
        ("RenewLock", json!({"project": "default", "lock": "l", "fence": "$fence"}), 200),
        ("ReleaseLock", json!({"project": "default", "lock": "l", "fence": "$fence"}), 200),
        ("RenewLock", json!({"project": "default", "lock": "l", "fence": "$fence"}), 409),
        ("SetMigrationPolicy", policy(json!({"labels": {"tier": "gold"}, "connections": 4})), 200),
        ("SetMigrationPolicy", policy(json!({"connections": 400})), 400),
        ("SetMigrationPolicy", json!({"migrationPolicy": "careful"}), 400),
        ("SetMigrationPolicy", policy(json!({"whenSilent": "panic"})), 400),
        ("SetMigrationPolicy", policy(json!({"project": "none"})), 404),
        ("GetMigrationPolicy", json!({"migrationPolicy": "careful"}), 200),
        ("GetMigrationPolicy", json!({"migrationPolicy": "none"}), 404),
        ("ListMigrationPolicies", json!({}), 200),
        ("DeleteMigrationPolicy", json!({"migrationPolicy": "careful"}), 200),
        ("DeleteMigrationPolicy", json!({"migrationPolicy": "careful"}), 404),
        ("SetAlertRule", rule(json!({"signal": "host-up", "test": "below", "value": "1"})), 200),
        ("SetAlertRule", rule(json!({"signal": "moon", "test": "absent"})), 400),
        ("SetAlertRule", rule(json!({"signal": "host-up", "test": "odd"})), 400),
        ("SetAlertRule", rule(json!({"signal": "host-up", "test": "rises", "value": "1"})), 400),
        ("SetAlertRule", json!({"alertRule": "mine"}), 400),
        ("GetAlertRule", json!({"alertRule": "mine"}), 200),
        ("GetAlertRule", json!({"alertRule": "none"}), 404),
        ("ListAlertRules", json!({}), 200),
        ("ListAlerts", json!({"page": {"filter": "state=firing"}}), 200),
        ("AcknowledgeAlert", json!({"rule": "mine", "name": "host-0001"}), 404),
        ("SetSilence", silence(json!({"rule": "mine", "until": "2099-01-01T00:00:00Z"})), 400),
        ("SetSilence", silence(json!({"until": "soon", "reason": "new disks"})), 400),
        ("ListSilences", json!({}), 200),
        ("DeleteSilence", json!({"silence": "none"}), 404),
        ("DeleteAlertRule", json!({"alertRule": "mine"}), 200),
        ("DeleteAlertRule", json!({"alertRule": "mine"}), 404),
        ("ListSettings", json!({}), 200),
        ("SetSetting", json!({"setting": "voters-max", "value": "3"}), 200),
        ("SetSetting", json!({"setting": "voters-max", "value": "1000"}), 400),
        ("CreateCredential", json!({"name": "ci", "role": "viewer"}), 200),
        ("CreateCredential", json!({"name": "ci2", "role": "king"}), 400),
        ("ListCredentials", json!({}), 200),
        ("RevokeCredential", json!({"credential": "$credential"}), 200),
        ("CreateToken", json!({"node": "n9"}), 200),
        ("ListTokens", json!({}), 200),
        ("RevokeToken", json!({"token": "$token"}), 200),
        ("GetHost", json!({"host": "host-0001"}), 200),
        ("GetHostMetrics", json!({"host": "host-0001", "stepSeconds": 600}), 200),
        ("GetHostMetrics", json!({"host": "host-0001", "stepSeconds": 7}), 400),
        ("GetHostMetrics", json!({"host": "none"}), 404),
        ("GetVmMetrics", json!({"project": "default", "vm": "none"}), 404),
        ("ListVmUse", json!({"project": "../both"}), 400),
        ("ListHosts", json!({"page": {"filter": "status=ready"}}), 200),
        ("ListForeignVms", json!({"host": "host-0001"}), 200),
        ("LabelHost", json!({"host": "host-0001", "set": {"rack": "a"}, "remove": ["disk"]}), 200),
        ("LabelHost", json!({"host": "host-0001", "set": {"rack": "a"}, "remove": ["rack"]}), 400),
        ("CordonHost", json!({"host": "host-0001"}), 200),
        ("PreviewDrain", json!({"host": "host-0001"}), 200),
        ("DrainHost", json!({"host": "host-0001"}), 200),
        ("UncordonHost", json!({"host": "host-0001"}), 200),
        ("RestoreHost", json!({"host": "host-0001"}), 200),
        ("RestoreHost", json!({"host": "none"}), 404),
        ("ConfirmHostDead", json!({"host": "host-0001"}), 400),
        ("RemoveHost", json!({"host": "host-0001"}), 400),
        ("Join", json!({"secret": "no", "name": "n9", "storeId": "x"}), 400),
        ("ListEvents", json!({"sinceRevision": FIRST, "limit": 5}), 200),
        ("ListEvents", json!({"sinceRevision": "1"}), 410),
        ("GetCluster", json!({}), 200),
        ("TransferLeader", json!({"node": "n3"}), 200),
        ("RemoveNode", json!({"node": "none"}), 404),
        ("RemoveNode", json!({"node": "n1"}), 200),
    ]
}

/// What needs no credential: it tells nothing, or carries a token of its own.
const OPEN: &[&str] = &["GetVersion", "Join"];
/// What viewers may not do.
const OPERATORS: &[&str] = &[
    "CreateImage",
    "DeleteImage",
    "CreateVm",
    "UpdateVm",
    "DeleteVm",
    "PlanVms",
    "StartVm",
    "StopVm",
    "RebootVm",
    "PauseVm",
    "ResumeVm",
    "MigrateVm",
    "GetConsoleLog",
    "CancelOperation",
    "RetryOperation",
    "ResumeOperation",
    "AbandonOperation",
    "ProbeHosts",
    "AcquireLock",
    "RenewLock",
    "ReleaseLock",
    "AcknowledgeAlert",
    "SetSilence",
    "DeleteSilence",
];
/// What operators may not do either.
const ADMINS: &[&str] = &[
    "CreateProject",
    "DeleteProject",
    "SetSetting",
    "CreateCredential",
    "ListCredentials",
    "RevokeCredential",
    "CreateToken",
    "ListTokens",
    "RevokeToken",
    "SetAlertRule",
    "DeleteAlertRule",
    "SetMigrationPolicy",
    "DeleteMigrationPolicy",
    "LabelHost",
    "CordonHost",
    "DrainHost",
    "UncordonHost",
    "RestoreHost",
    "ConfirmHostDead",
    "RemoveHost",
    "TransferLeader",
    "RemoveNode",
];

/// Clients that may not do everything.
struct Lesser {
    nobody: Client,
    viewer: Client,
    operator: Client,
}

impl Lesser {
    async fn of(lab: &Lab) -> Lesser {
        let nobody = Access { bearer: String::new(), ..lab.cluster.access.clone() };
        Lesser {
            nobody: client(&nobody),
            viewer: lab.client_as("viewer", "looker").await.0,
            operator: lab.client_as("operator", "doer").await.0,
        }
    }

    /// Whether whoever has the role just below the one that a call needs is refused for it. None is ever served.
    async fn are_refused(&self, name: &str, call: &Call, message: &Value) -> bool {
        let (who, expected) = if OPEN.contains(&name) {
            return true;
        } else if ADMINS.contains(&name) {
            (&self.operator, Code::PermissionDenied)
        } else if OPERATORS.contains(&name) {
            (&self.viewer, Code::PermissionDenied)
        } else {
            (&self.nobody, Code::Unauthenticated)
        };
        match call.by_grpc(who, message).await {
            Answer::Refused { code, .. } => code == i64::from(i32::from(expected)),
            Answer::Done(answer) => panic!("{name} serves whom it must not: {answer}"),
        }
    }
}

/// What a call is: its gRPC path, its messages, and where REST has it.
struct Call {
    grpc: String,
    input: MessageDescriptor,
    output: MessageDescriptor,
    method: Method,
    path: String,
    body: bool,
}

impl Call {
    /// Reads the HTTP annotation; none for what only gRPC has.
    fn read(method: &MethodDescriptor) -> Option<Call> {
        let pool = method.parent_pool();
        let annotation = pool.get_extension_by_name("google.api.http")?;
        let options = method.options();
        let rule = options.get_extension(&annotation);
        let rule = rule.as_message().filter(|_| options.has_extension(&annotation))?;
        let (verb, path) = ["get", "put", "post", "delete", "patch"]
            .into_iter()
            .find(|verb| rule.has_field_by_name(verb))
            .map(|verb| (verb, rule.get_field_by_name(verb).unwrap()))?;
        Some(Call {
            grpc: format!("/{}/{}", method.parent_service().full_name(), method.name()),
            input: method.input(),
            output: method.output(),
            method: verb.to_uppercase().parse().unwrap(),
            path: path.as_str().unwrap().to_owned(),
            body: rule.has_field_by_name("body"),
        })
    }

    async fn by_grpc(&self, client: &Client, message: &Value) -> Answer {
        let message = DynamicMessage::deserialize(self.input.clone(), message).unwrap();
        let called = client.call(message, async |channel, request| {
            let mut grpc = tonic::client::Grpc::new(channel);
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = self.grpc.parse().unwrap();
            grpc.unary(request, path, Dynamic(self.output.clone())).await
        });
        match called.await {
            Ok(answer) => {
                let options = SerializeOptions::new();
                let json =
                    answer.serialize_with_options(serde_json::value::Serializer, &options).unwrap();
                Answer::Done(json)
            }
            Err(Error::Refused(status)) => {
                let code = status.code() as i64;
                let error = Error::Refused(status);
                Answer::Refused {
                    code,
                    reason: error.reason(),
                    message: error.to_string(),
                    fields: error.violations().into_iter().map(|(field, _)| field).collect(),
                }
            }
            Err(error) => panic!("{}: {error}", self.grpc),
        }
    }

    async fn by_rest(&self, lab: &Lab, message: &Value) -> (StatusCode, Answer) {
        let mut rest_of = message.as_object().unwrap().clone();
        let mut path = self.path.clone();
        for field in self.input.fields() {
            let hole = format!("{{{}}}", field.name());
            if path.contains(&hole) {
                let value = rest_of.remove(field.json_name()).unwrap();
                path = path.replace(&hole, value.as_str().unwrap());
            }
        }
        let body = self.body.then(|| Value::Object(rest_of.clone()));
        if body.is_none() {
            let mut query = Vec::new();
            flatten("", &rest_of, &mut query);
            path = format!("{path}?{}", query.join("&"));
        }
        let (status, answer) = rest(lab, self.method.clone(), &path, body).await;
        if status == StatusCode::OK {
            return (status, Answer::Done(answer));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let details = answer["details"].as_array().cloned().unwrap_or_default();
        let fields = details.iter().filter_map(|detail| detail["fieldViolations"].as_array());
        let refused = Answer::Refused {
            code: answer["code"].as_i64().unwrap(),
            reason: text(&answer["details"][0]["reason"]),
            message: text(&answer["message"]),
            fields: fields.flatten().map(|field| text(&field["field"])).collect(),
        };
        (status, refused)
    }
}

fn flatten(prefix: &str, fields: &Map<String, Value>, query: &mut Vec<String>) {
    for (key, value) in fields {
        match value {
            Value::Object(inner) => flatten(&format!("{prefix}{key}."), inner, query),
            Value::String(text) => {
                query.push(format!("{prefix}{key}={}", text.replace('=', "%3D")));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                query.push(format!("{prefix}{key}={value}"));
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Done(Value),
    Refused { code: i64, reason: String, message: String, fields: Vec<String> },
}

impl Answer {
    /// Without what is told once only, or changes with every look.
    fn comparable(mut self) -> Answer {
        if let Answer::Done(Value::Object(fields)) = &mut self {
            fields.remove("bearer");
            fields.remove("token");
            // A clock that runs down.
            for guarded in
                fields.get_mut("guardedHosts").and_then(Value::as_array_mut).into_iter().flatten()
            {
                guarded["endsInMs"] = Value::Null;
            }
        }
        self
    }
}

/// Messages of whatever kind.
#[derive(Clone)]
struct Dynamic(MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Dynamic;
    type Decoder = Dynamic;

    fn encoder(&mut self) -> Dynamic {
        self.clone()
    }

    fn decoder(&mut self) -> Dynamic {
        self.clone()
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let mut message = DynamicMessage::new(self.0.clone());
        message.merge(from).map_err(|error| Status::internal(error.to_string()))?;
        assert_eq!(message.unknown_fields().count(), 0, "{}", message.descriptor().name());
        Ok(Some(message))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_answers_alike_through_both_faces() {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let methods: Vec<_> = methods.filter(|method| !method.is_server_streaming()).collect();
    let lab = Lab::start(3, 3, 0).await;
    lab.await_voters(3).await;
    // The node that REST asks, so that who answered is the same.
    let mut access = lab.cluster.access.clone();
    access.endpoints = vec![access.endpoints[1].clone()];
    let lesser = Lesser::of(&lab).await;
    let client = client(&access);
    let mut refused = BTreeSet::new();
    let mut made = json!({});
    let mut called = BTreeSet::new();
    for (name, message, expected) in calls() {
        let method = methods.iter().find(|method| method.name() == name).unwrap();
        let call = Call::read(method).unwrap();
        called.insert(name);
        let mut message: Value = fill(message, &made);
        let mutates = call.input.get_field_by_name("mutation").is_some();
        if mutates {
            // One request, sent twice: it has one effect, and both faces tell of it.
            let mutation = client.mutation().await.unwrap().unwrap();
            message["mutation"] = serde_json::to_value(mutation).unwrap();
        }
        if lesser.are_refused(name, &call, &message).await {
            refused.insert(name);
        }
        let begun = Instant::now();
        let answer = loop {
            let (status, by_rest) = call.by_rest(&lab, &message).await;
            assert_eq!(status.as_u16(), expected, "{name} {message}: {by_rest:?}");
            let by_grpc = call.by_grpc(&client, &message).await;
            let whole = by_rest.clone();
            let (by_rest, by_grpc) = (by_rest.comparable(), by_grpc.comparable());
            if by_rest == by_grpc {
                break whole;
            }
            // What time changes between two reads is read again.
            let patient = !mutates && begun.elapsed() < Duration::from_secs(20);
            assert!(patient, "{name} {message}\nREST: {by_rest:?}\ngRPC: {by_grpc:?}");
        };
        if let Answer::Done(answer) = answer {
            note(&client, name, &answer, &mut made).await;
        }
    }
    let missing: Vec<&str> = methods
        .iter()
        .filter(|method| Call::read(method).is_some() && !called.contains(method.name()))
        .map(MethodDescriptor::name)
        .collect();
    assert!(missing.is_empty(), "not compared: {missing:?}");
    let served: Vec<_> = called.difference(&refused).collect();
    assert!(served.is_empty(), "not refused to who may not: {served:?}");
    watch_both(&lab, &client).await;
    println!("{} calls of {} methods answered alike", calls().len(), called.len());
    lab.cluster.stop().await;
}

/// The one stream: its first messages, as both faces send them.
async fn watch_both(lab: &Lab, client: &Client) {
    let path = format!("/v1/events:watch?sinceRevision={FIRST}&kinds=project");
    let (status, body) = watch(lab, &path, 2).await;
    assert_eq!(status, StatusCode::OK);
    // A list that never ends.
    let by_rest: Vec<Value> =
        serde_json::from_str(&format!("{}]", body.as_str().unwrap())).unwrap();
    assert!(by_rest.len() >= 2, "a project came and went: {body}");
    let since_revision = FIRST.parse().unwrap();
    let kinds = vec!["project".to_owned()];
    let request = v1::WatchRequest { since_revision, kinds, ..Default::default() };
    let mut watch = client.watch(request);
    for message in by_rest.iter().filter(|message| message["event"].is_object()) {
        let event = watch.next().await.unwrap();
        assert_eq!(message["event"], serde_json::to_value(event).unwrap());
    }
}

fn fill(message: Value, made: &Value) -> Value {
    let mut text = message.to_string();
    for (key, value) in made.as_object().unwrap() {
        text = text.replace(&format!("${key}"), value.as_str().unwrap());
    }
    serde_json::from_str(&text).unwrap()
}

/// Keeps what later calls name, and waits for what was begun.
async fn note(client: &Client, name: &str, answer: &Value, made: &mut Value) {
    let outcome = if answer["outcome"].is_object() { &answer["outcome"] } else { answer };
    let noun = match name {
        "CreateCredential" => "credential",
        "CreateToken" => "token",
        _ => "",
    };
    if !noun.is_empty() {
        made[noun] = outcome["object"].clone();
    }
    if name == "AcquireLock" {
        made["fence"] = answer["fence"].clone();
    }
    let Some(operation) = outcome["operation"].as_str().filter(|id| !id.is_empty()) else { return };
    if outcome["revision"].is_string() {
        let ended: v1::Operation =
            client.wait(operation, Duration::from_secs(60), |_| ()).await.unwrap();
        assert_eq!(ended.status, "done", "{name}: {}", ended.message);
        made["operation"] = ended.id.into();
    }
}
