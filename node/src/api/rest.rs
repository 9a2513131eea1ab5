//! The REST face, and the few paths that are neither gRPC nor in a .proto file.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use base64::Engine;
use http::{StatusCode, header};
use proto::{rest, v1};
use rest_over_grpc::serving::RestService;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetail, StatusExt};

use super::{Api, BODY_BYTES_MAX, Node, auth, discovery, errors};

macro_rules! bridges {
    ($api:ident: $($module:ident :: $bridge:ident),+ $(,)?) => {
        rest::Transcoder::new($(v1::$module::$bridge::externally_authenticated($api.clone())),+)
    };
}

/// Adds everything that has an HTTP annotation: what no other route takes.
pub(super) fn with_rest(router: Router, api: &Api) -> Router {
    let transcoder = bridges!(api:
        __rest_over_grpc_bridge_Vms::VmsRestBridge,
        __rest_over_grpc_bridge_Operations::OperationsRestBridge,
        __rest_over_grpc_bridge_Locks::LocksRestBridge,
        __rest_over_grpc_bridge_MigrationPolicies::MigrationPoliciesRestBridge,
        __rest_over_grpc_bridge_Alerts::AlertsRestBridge,
        __rest_over_grpc_bridge_Monitoring::MonitoringRestBridge,
        __rest_over_grpc_bridge_Hosts::HostsRestBridge,
        __rest_over_grpc_bridge_Images::ImagesRestBridge,
        __rest_over_grpc_bridge_Projects::ProjectsRestBridge,
        __rest_over_grpc_bridge_Settings::SettingsRestBridge,
        __rest_over_grpc_bridge_Credentials::CredentialsRestBridge,
        __rest_over_grpc_bridge_Tokens::TokensRestBridge,
        __rest_over_grpc_bridge_Clusters::ClustersRestBridge,
        __rest_over_grpc_bridge_Events::EventsRestBridge,
    );
    let service = RestService::new(Arc::new(transcoder)).with_max_body_bytes(BODY_BYTES_MAX);
    router.fallback_service(service)
}

/// Health, metrics, the API's description.
pub(super) fn plain_routes(api: &Api) -> Router {
    let (ready, discovered) = (api.store.clone(), api.store.clone());
    let node = Arc::new(Node {
        store: api.store.clone(),
        hosts: api.hosts.clone(),
        files: api.files.clone(),
        directory: api.directory.clone(),
    });
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || readiness(ready.clone())))
        .route("/metrics", get(move || metrics(node.clone())))
        .route(discovery::PATH, get(move |wanted| discovery::targets(discovered.clone(), wanted)))
        .route(
            "/openapi.json",
            get(|| async { ([(header::CONTENT_TYPE, "application/json")], proto::OPENAPI) }),
        )
}

/// What Prometheus asks for.
async fn metrics(node: Arc<Node>) -> Response {
    // It looks at files.
    match tokio::task::spawn_blocking(move || node.tell()).await {
        Ok(told) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], told)
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Ready is who can serve a linearizable read.
async fn readiness(store: raft_store::Store) -> Response {
    let patience = std::time::Duration::from_secs(2);
    let read = store.read(raft_store::Consistency::Linearizable);
    match tokio::time::timeout(patience, read).await {
        Ok(Ok(_)) => "ready\n".into_response(),
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "there is no leader\n").into_response(),
    }
}

/// A failure as the REST face shows it: `{"code", "message", "details"}`.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is another crate's")]
pub(super) fn response(status: &Status) -> Response {
    let code = match status.code() {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let details: Vec<Value> =
        status.get_error_details_vec().into_iter().filter_map(detail).collect();
    let body = json!({
        "code": status.code() as i32, "message": status.message(), "details": details,
    });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (code, kind, body.to_string()).into_response()
}

/// Details arrive from the bridge as one blob; they leave as JSON. What is gone (a compacted watch)
/// answers 410, so that clients tell it from a bad request.
pub(super) async fn readable_errors(request: Request, next: Next) -> Response {
    // It may quote the whole of a request.
    const ERROR_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;
    let grpc = auth::is_grpc(request.headers());
    let response = next.run(request).await;
    let status = response.status();
    if grpc || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, ERROR_BYTES_MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut body = match serde_json::from_slice::<Value>(&bytes) {
        Ok(body @ Value::Object(_)) => body,
        // What is refused before anybody has read it answers in plain text.
        Ok(_) | Err(_) if status == StatusCode::PAYLOAD_TOO_LARGE => json!({
            "code": Code::InvalidArgument as i32,
            "message": format!("a request may have {} bytes", BODY_BYTES_MAX),
        }),
        Ok(_) | Err(_) => return Response::from_parts(parts, Body::from(bytes)),
    };
    let details = body["details"].take();
    let details = details.as_array().cloned().unwrap_or_default().into_iter();
    let mut details: Vec<Value> = details.flat_map(expand).collect();
    if let (false, Some(reason)) = (details.iter().any(is_info), reason_of(status)) {
        details.insert(0, info(reason));
    }
    body["details"] = details.into();
    if let Some(message) = body["message"].as_str() {
        body["message"] = domain::limit::clip(message).into();
    }
    if body["code"] == Code::OutOfRange as i32 {
        parts.status = StatusCode::GONE;
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(body.to_string()))
}

/// Why a request was refused that no handler has seen.
fn reason_of(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => Some("MALFORMED"),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Some("NO_SUCH_PATH"),
        StatusCode::PAYLOAD_TOO_LARGE => Some("TOO_LARGE"),
        _ => None,
    }
}

fn info(reason: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason, "domain": errors::DOMAIN,
    })
}

fn is_info(detail: &Value) -> bool {
    detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
}

fn expand(value: Value) -> Vec<Value> {
    use prost::Message;
    use tonic_types::RpcStatusExt;
    if value["kind"] != "grpc-status-details-bin" {
        return vec![value];
    }
    let decoded = value["value"].as_str().and_then(|text| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
        tonic_types::pb::Status::decode(bytes.as_slice()).ok()
    });
    match decoded {
        Some(status) => status.get_error_details_vec().into_iter().filter_map(detail).collect(),
        None => vec![value],
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is another crate's")]
fn detail(detail: ErrorDetail) -> Option<Value> {
    match detail {
        ErrorDetail::ErrorInfo(found) => Some(info(&found.reason)),
        ErrorDetail::BadRequest(request) => {
            let fields = request.field_violations.iter();
            let fields =
                fields.map(|field| json!({"field": field.field, "description": field.description}));
            Some(json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": fields.collect::<Vec<_>>(),
            }))
        }
        ErrorDetail::RetryInfo(retry) => Some(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{}s", retry.retry_delay?.as_secs_f64()),
        })),
        _ => None,
    }
}
