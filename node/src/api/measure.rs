//! Counts, times and traces requests, whatever becomes of them.

use std::{collections::HashMap, sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use domain::trace::Trace;
use http::Method;
use serde_json::Value;
use telemetry::{
    Attendance, Present,
    trace::{self, Span},
};
use tonic::Code;

use super::auth;
use crate::metrics;

/// What a request is called that is for nothing we have: names made up by callers must not become labels.
const OTHER: &str = "other";
/// Paths that are no methods.
const PLAIN: &[&str] =
    &["/healthz", "/readyz", "/metrics", "/openapi.json", super::discovery::PATH];

/// The methods by what asks for them.
pub(super) struct Methods {
    grpc: HashMap<String, Arc<Series>>,
    /// By verb and number of segments.
    rest: HashMap<(Method, usize), Vec<Route>>,
    plain: Vec<Arc<Series>>,
    other: [Arc<Series>; 2],
    under_way: [Attendance; 2],
}

const GRPC: &str = "grpc";
const REST: &str = "rest";
/// A change that came with others.
pub(super) const STREAM: &str = "stream";

/// What of one method is counted, at hand: there may be many requests each second.
pub(super) struct Series {
    face: &'static str,
    method: &'static str,
    ok: telemetry::series::Counter,
    took: telemetry::series::Histogram,
}

impl Series {
    pub(super) fn new(face: &'static str, method: &'static str) -> Arc<Series> {
        Arc::new(Series {
            face,
            method,
            ok: metrics::REQUESTS.of([face, method, "OK"]),
            took: metrics::REQUEST_SECONDS.of([face, method]),
        })
    }
}

struct Route {
    segments: Vec<Segment>,
    series: Arc<Series>,
}

enum Segment {
    Word(String),
    /// Anything, with this behind it.
    Any(String),
}

impl Segment {
    fn read(text: &str) -> Segment {
        match text.strip_prefix('{').and_then(|text| text.split_once('}')) {
            Some((_, after)) => Segment::Any(after.to_owned()),
            None => Segment::Word(text.to_owned()),
        }
    }

    fn takes(&self, text: &str) -> bool {
        match self {
            Segment::Word(word) => word == text,
            Segment::Any(after) if after.is_empty() => !text.contains(':'),
            Segment::Any(after) => text.ends_with(after.as_str()),
        }
    }
}

impl Methods {
    /// Those of the public API.
    pub(super) fn of_the_api() -> Methods {
        let path =
            |method: &&'static str| (format!("/novacron.v1.{method}"), Series::new(GRPC, method));
        let grpc = proto::METHODS.iter().map(path).collect();
        let mut rest: HashMap<_, Vec<Route>> = HashMap::new();
        let document: Value = serde_json::from_str(proto::OPENAPI).unwrap_or_default();
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            let segments = || path.split('/').map(Segment::read).collect::<Vec<_>>();
            for (verb, operation) in operations.as_object().into_iter().flatten() {
                let name = format!(
                    "{}/{}",
                    operation["tags"][0].as_str().unwrap_or_default(),
                    operation["operationId"].as_str().unwrap_or_default()
                );
                let method = proto::METHODS.iter().find(|method| **method == name);
                let verb = verb.to_uppercase().parse::<Method>();
                if let (Some(method), Ok(verb)) = (method, verb) {
                    let segments = segments();
                    let like = rest.entry((verb, segments.len())).or_default();
                    like.push(Route { segments, series: Series::new(REST, method) });
                }
            }
        }
        let plain = PLAIN.iter().map(|path| Series::new(REST, path)).collect();
        let other = [Series::new(REST, OTHER), Series::new(GRPC, OTHER)];
        let under_way = [REST, GRPC].map(|face| metrics::REQUESTS_UNDER_WAY.of([face]));
        Methods { grpc, rest, plain, other, under_way }
    }

    fn of(&self, request: &Request, grpc: bool) -> &Arc<Series> {
        let path = request.uri().path();
        if grpc {
            return self.grpc.get(path).unwrap_or(&self.other[1]);
        }
        if let Some(plain) = self.plain.iter().find(|plain| plain.method == path) {
            return plain;
        }
        let segments: Vec<&str> = path.split('/').collect();
        let like = self.rest.get(&(request.method().clone(), segments.len()));
        let fits = |route: &&Route| {
            route.segments.iter().zip(&segments).all(|(segment, text)| segment.takes(text))
        };
        let found = like.into_iter().flatten().find(fits);
        found.map_or(&self.other[0], |route| &route.series)
    }
}

/// Counts a request when the head of its answer is known. What a stream tells after that counts no more.
pub(super) async fn measure(
    State(methods): State<Arc<Methods>>,
    request: Request,
    next: Next,
) -> Response {
    let grpc = auth::is_grpc(request.headers());
    let series = methods.of(&request, grpc).clone();
    let brought = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let under_way = methods.under_way[usize::from(grpc)].enter();
    let (place, mut asked) = Asked::begin(series, brought.and_then(Trace::parse), Some(under_way));
    let response = trace::within(place, next.run(request)).await;
    asked.code = if grpc { grpc_code(&response) } else { rest_code(&response) };
    response
}

/// A request that is counted when it ends, also when its caller has gone away.
pub(super) struct Asked {
    series: Arc<Series>,
    code: &'static str,
    begun: Instant,
    span: Option<Span>,
    _under_way: Option<Present>,
}

impl Asked {
    /// Begins one, and says where it is in its trace.
    pub(super) fn begin(
        series: Arc<Series>,
        brought: Option<Trace>,
        under_way: Option<Present>,
    ) -> (Trace, Asked) {
        let (place, above) = trace::enter(brought);
        let is_method = !series.method.starts_with('/') && series.method != OTHER;
        let span = is_method.then(|| Span::at(place, above, series.method)).flatten();
        let asked = Asked {
            series,
            code: "CANCELLED",
            begun: Instant::now(),
            span: span.map(Span::answers),
            _under_way: under_way,
        };
        (place, asked)
    }

    /// Says what came of it.
    pub(super) fn ends(&mut self, failed: Option<Code>) {
        self.code = name(failed.unwrap_or(Code::Ok));
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(span) = &mut self.span {
            span.say("rpc.system", self.series.face);
            match self.code {
                "OK" => {}
                // Whoever was not let in does not fill the collector.
                "UNAUTHENTICATED" | "RESOURCE_EXHAUSTED" => span.forget(),
                code => span.fail(code),
            }
        }
        let Series { face, method, ok, took } = &*self.series;
        took.record(self.begun.elapsed().as_secs_f64());
        match self.code {
            "OK" => ok.increment(1),
            code => metrics::REQUESTS.of([*face, *method, code]).increment(1),
        }
    }
}

/// An error is told in the head; what has a body has begun well.
fn grpc_code(response: &Response) -> &'static str {
    let status = response.headers().get("grpc-status");
    name(status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes())))
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What a REST answer's status means, in the words of gRPC.
fn rest_code(response: &Response) -> &'static str {
    match response.status().as_u16() {
        200..=399 => "OK",
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 | 405 => "NOT_FOUND",
        409 | 412 => "ABORTED",
        410 => "OUT_OF_RANGE",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        501 => "UNIMPLEMENTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500..=599 => "INTERNAL",
        _ => "FAILED_PRECONDITION",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn requests_have_the_names_of_methods_or_none() {
        let methods = Methods::of_the_api();
        let name = |verb: &str, path: &str, grpc: bool| {
            let request = http::Request::builder().method(verb).uri(path);
            let kind = if grpc { "application/grpc" } else { "application/json" };
            let request = request.header("content-type", kind).body(Body::empty()).unwrap();
            methods.of(&request, grpc).method
        };
        for (verb, path, grpc, expected) in [
            ("POST", "/novacron.v1.Vms/CreateVm", true, "Vms/CreateVm"),
            ("POST", "/novacron.v1.Uploads/UploadImageFile", true, "Uploads/UploadImageFile"),
            ("POST", "/novacron.v1.Vms/MadeUp", true, OTHER),
            ("POST", "/novacron.v1.Vms/CreateVm", false, OTHER),
            ("GET", "/v1/projects/p/vms", false, "Vms/ListVms"),
            ("POST", "/v1/projects/p/vms", false, "Vms/CreateVm"),
            ("GET", "/v1/projects/p/vms/web", false, "Vms/GetVm"),
            ("POST", "/v1/projects/p/vms/web:start", false, "Vms/StartVm"),
            ("GET", "/v1/projects/p/vms/web:start", false, OTHER),
            ("POST", "/v1/projects/p/vms/web:madeUp", false, OTHER),
            ("GET", "/metrics", false, "/metrics"),
            ("GET", "/whatever", false, OTHER),
        ] {
            assert_eq!(name(verb, path, grpc), expected, "{verb} {path}");
        }
        let in_rest: usize = methods.rest.values().map(Vec::len).sum();
        assert!(in_rest > 50, "only {in_rest} methods were found in the description of REST");
    }
}
