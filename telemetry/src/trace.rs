//! Traces: who asked for what, and how long each part of it took, on every node that had a part in it.
//!
//! A [`Trace`] travels with what it belongs to: in a request's `traceparent`, in the entry of the log, in the
//! operation. So no span is held open while an operation goes from node to node: each node tells what it did, when
//! that has ended, and the collector puts the pieces together.

use std::{
    borrow::Cow,
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use domain::trace::{Trace, TraceId};
use opentelemetry::{
    InstrumentationScope, KeyValue, TraceFlags,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_otlp::{
    WithExportConfig, WithTonicConfig,
    tonic_types::transport::{Certificate, ClientTlsConfig},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks,
        SpanProcessor,
    },
};

use crate::{Counter, Label};

pub(crate) static SPANS: Counter<1> = Counter::new(
    "novacron_trace_spans_total",
    "Spans that were to go to the collector of traces.",
    [Label { name: "outcome", values: "`sent`, `failed`" }],
);

/// Spans that may wait for the collector; more are dropped.
const QUEUE: usize = 8_192;
/// How often they are sent.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

static TELLER: OnceLock<Teller> = OnceLock::new();

struct Teller {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    /// Of all random numbers of 56 bits, those below this are of traces that are told.
    below: u64,
}

/// Where traces go.
#[derive(Clone, Debug)]
pub struct Options {
    /// The collector's gRPC address, `http://…` or `https://…`.
    pub endpoint: String,
    /// The certificates that a collector behind TLS is trusted by, PEM.
    pub authority: Option<String>,
    /// Of a hundred calls that bring no decision along, so many are told.
    pub percent: f64,
    /// The node; none when several share a process.
    pub node: Option<String>,
    /// The program's version.
    pub version: &'static str,
}

/// Begins to tell spans. It wants a Tokio runtime, and is done once in a process.
///
/// # Errors
/// When the address or the certificates cannot be used. A collector that does not answer is no error.
pub fn start(options: Options) -> Result<(), String> {
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&options.endpoint)
        .with_timeout(PATIENCE);
    if options.endpoint.starts_with("https:") {
        let mut tls = ClientTlsConfig::new();
        if let Some(authority) = options.authority {
            tls = tls.ca_certificate(Certificate::from_pem(authority));
        }
        exporter = exporter.with_tls_config(tls);
    }
    let exporter = exporter.build().map_err(|error| error.to_string())?;
    let batches =
        BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_scheduled_delay(INTERVAL);
    let mut processor = BatchSpanProcessor::builder(Counted::new(exporter))
        .with_batch_config(batches.build())
        .build();
    let mut resource = Resource::builder_empty()
        .with_service_name("novacron")
        .with_attribute(KeyValue::new("service.version", options.version));
    if let Some(node) = options.node {
        resource = resource.with_attribute(KeyValue::new("service.instance.id", node));
    }
    processor.set_resource(&resource.build());
    let scope = InstrumentationScope::builder("novacron").build();
    let teller = Teller { processor, scope, below: threshold(options.percent) };
    TELLER.set(teller).map_err(|_| "traces are told already".to_owned())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a part of 2 to the 56th, which is what the numbers have bits for"
)]
fn threshold(percent: f64) -> u64 {
    (percent.clamp(0.0, 100.0) / 100.0 * (1_u64 << 56) as f64) as u64
}

/// Sends what waits, for five seconds at most. It blocks.
pub fn stop() {
    if let Some(teller) = TELLER.get() {
        // Nothing is left to tell it to.
        let _ = teller.processor.shutdown();
    }
}

tokio::task_local! {
    static CURRENT: Trace;
}

/// What the present task works for, if anybody knows.
#[must_use]
pub fn current() -> Option<Trace> {
    CURRENT.try_with(|trace| *trace).ok()
}

/// Does `work` for `trace`: it is [`current`] there.
pub async fn within<F: Future>(trace: Trace, work: F) -> F::Output {
    CURRENT.scope(trace, work).await
}

/// Where a request is that brings this place along, and the span that it is below: 0 when a trace begins with it.
#[must_use]
pub fn enter(brought: Option<Trace>) -> (Trace, u64) {
    brought.map_or_else(|| (begin(), 0), |above| (Trace { span: random(), ..above }, above.span))
}

/// A trace that begins here. Whether it is told follows from its id, as elsewhere in OpenTelemetry.
fn begin() -> Trace {
    let id = u128::from(random()) << 64 | u128::from(random());
    let low = u64::try_from(id & ((1 << 56) - 1)).unwrap_or(0);
    let sampled = TELLER.get().is_some_and(|teller| low < teller.below);
    Trace { id: TraceId(id.max(1)), span: random(), sampled }
}

/// Never 0. Seeded by the kernel, also where the clock stands still.
fn random() -> u64 {
    use std::cell::RefCell;
    thread_local! {
        static SOURCE: RefCell<fastrand::Rng> =
            RefCell::new(fastrand::Rng::with_seed(RandomState::new().hash_one(0)));
    }
    SOURCE.with_borrow_mut(|source| source.u64(1..))
}

/// A part of a trace. It is told when it is dropped, as it is then.
pub struct Span {
    place: Trace,
    parent: u64,
    kind: SpanKind,
    name: Cow<'static, str>,
    begun: SystemTime,
    ended: Option<SystemTime>,
    attributes: Vec<KeyValue>,
    status: Status,
}

impl Span {
    /// One that begins now, below `parent`, if that is told.
    #[must_use]
    pub fn below(parent: Trace, name: impl Into<Cow<'static, str>>) -> Option<Span> {
        Span::at(Trace { span: random(), ..parent }, parent.span, name)
    }

    /// One whose own place is known. `parent` is 0 where a trace begins.
    #[must_use]
    pub fn at(place: Trace, parent: u64, name: impl Into<Cow<'static, str>>) -> Option<Span> {
        (place.sampled && TELLER.get().is_some()).then(|| Span {
            place,
            parent,
            kind: SpanKind::Internal,
            name: name.into(),
            begun: SystemTime::now(),
            ended: None,
            attributes: Vec::new(),
            status: Status::Unset,
        })
    }

    /// It answers a caller of this node.
    #[must_use]
    pub fn answers(mut self) -> Span {
        self.kind = SpanKind::Server;
        self
    }

    /// When it began and ended, Unix milliseconds.
    #[must_use]
    pub fn between(mut self, begun_ms: u64, ended_ms: u64) -> Span {
        let time = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        (self.begun, self.ended) = (time(begun_ms), Some(time(ended_ms.max(begun_ms))));
        self
    }

    /// Says something of it.
    pub fn say(&mut self, name: &'static str, value: impl Into<String>) {
        self.attributes.push(KeyValue::new(name, value.into()));
    }

    /// It is not told after all.
    pub fn forget(&mut self) {
        self.place.sampled = false;
    }

    /// It did not do what it should.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        self.status = Status::error(why);
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(teller) = TELLER.get().filter(|_| self.place.sampled) else { return };
        let ended = self.ended.unwrap_or_else(SystemTime::now).max(self.begun);
        teller.processor.on_end(SpanData {
            span_context: SpanContext::new(
                self.place.id.0.into(),
                self.place.span.into(),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: self.parent.into(),
            parent_span_is_remote: false,
            span_kind: self.kind.clone(),
            name: std::mem::take(&mut self.name),
            start_time: self.begun,
            end_time: ended,
            attributes: std::mem::take(&mut self.attributes),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: std::mem::replace(&mut self.status, Status::Unset),
            instrumentation_scope: teller.scope.clone(),
        });
    }
}

/// Counts what becomes of spans, and says once when the collector does not take them.
#[derive(Debug)]
struct Counted {
    exporter: opentelemetry_otlp::SpanExporter,
    is_failing: AtomicBool,
}

impl Counted {
    fn new(exporter: opentelemetry_otlp::SpanExporter) -> Counted {
        Counted { exporter, is_failing: AtomicBool::new(false) }
    }
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let sent = self.exporter.export(batch).await;
        let outcome = if sent.is_ok() { "sent" } else { "failed" };
        SPANS.of([outcome]).increment(count);
        let was_failing = self.is_failing.swap(sent.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (&sent, was_failing) {
            tracing::warn!(%error, "the collector does not take traces; they are lost until it does");
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
