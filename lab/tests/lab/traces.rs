//! A VM is made and moves: a collector, told by three nodes that know nothing of each other's spans, can put both
//! stories together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use novacron_lab::{COLLECTOR, ClusterOptions, Hosts, Traces};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value},
    trace::v1::Span,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::harness::{await_phase, get, options, simulated_image, start};

const PATIENCE: Duration = Duration::from_secs(60);

/// A span and the node that told it.
#[derive(Clone)]
struct Told {
    node: String,
    span: Span,
}

/// Takes spans.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Told>>>);

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    let Some(any_value::Value::StringValue(text)) = found.value.clone()?.value else { return None };
    Some(text)
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut told = self.0.lock().unwrap();
        for of_node in request.into_inner().resource_spans {
            let resource = of_node.resource.unwrap_or_default();
            assert_eq!(text(&resource.attributes, "service.name").as_deref(), Some("novacron"));
            let node = text(&resource.attributes, "service.instance.id").unwrap();
            let spans = of_node.scope_spans.into_iter().flat_map(|scope| scope.spans);
            told.extend(spans.map(|span| Told { node: node.clone(), span }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// The trace, once these spans are there, each below its own, and of more than one node; what there
    /// is of it when they do not come. It waits a moment for others in any case.
    async fn trace(&self, id: &str, expected: &[(&str, &str)]) -> Vec<Told> {
        let begun = Instant::now();
        loop {
            let of_trace = |told: &&Told| hex(&told.span.trace_id) == id;
            let found: Vec<Told> =
                self.0.lock().unwrap().iter().filter(of_trace).cloned().collect();
            let is_there = |(name, parent): &(&str, &str)| above(&found, name) == Some(*parent);
            let is_whole = expected.iter().all(is_there) && nodes(&found).len() > 1;
            let patience = if is_whole { Duration::from_secs(3) } else { PATIENCE };
            if begun.elapsed() > patience {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A trace for people: what is below what, on which node, from when on, and for how long.
fn tree(spans: &[Told]) -> String {
    let begun = spans.iter().map(|told| told.span.start_time_unix_nano).min().unwrap_or(0);
    let ids: BTreeSet<&[u8]> = spans.iter().map(|told| &told.span.span_id[..]).collect();
    let mut below: BTreeMap<&[u8], Vec<&Told>> = BTreeMap::new();
    for told in spans {
        let parent = &told.span.parent_span_id[..];
        below.entry(if ids.contains(parent) { parent } else { &[] }).or_default().push(told);
    }
    let mut out = String::new();
    write(&mut out, &below, &[], 0, begun);
    out
}

fn write(
    out: &mut String,
    below: &BTreeMap<&[u8], Vec<&Told>>,
    of: &[u8],
    depth: usize,
    begun: u64,
) {
    let mut children = below.get(of).cloned().unwrap_or_default();
    children.sort_by_key(|told| told.span.start_time_unix_nano);
    for Told { node, span } in children {
        let ms = |ns: u64| ns / 1_000_000;
        let (at, took) = (
            span.start_time_unix_nano - begun,
            span.end_time_unix_nano - span.start_time_unix_nano,
        );
        let name = format!("{:1$}{2}", "", 2 * depth, span.name);
        writeln!(out, "{name:<36} {node:<3} {:>6} ms {:>6} ms", ms(at), ms(took)).unwrap();
        write(out, below, &span.span_id, depth + 1, begun);
    }
}

/// The name of what a span is below.
fn above<'a>(spans: &'a [Told], name: &str) -> Option<&'a str> {
    let span = &spans.iter().find(|told| told.span.name == name)?.span;
    let parent = spans.iter().find(|told| told.span.span_id == span.parent_span_id)?;
    Some(&parent.span.name)
}

fn nodes(spans: &[Told]) -> BTreeSet<&str> {
    spans.iter().map(|told| told.node.as_str()).collect()
}

/// Which names are below which, and which nodes have told.
fn check(spans: &[Told], expected: &[(&str, &str)]) {
    println!("{}", tree(spans));
    for (name, parent) in expected {
        assert_eq!(above(spans, name), Some(*parent), "what {name} is below in:\n{}", tree(spans));
    }
    let nodes = nodes(spans);
    assert!(nodes.len() > 1, "only {nodes:?} told:\n{}", tree(spans));
    let failed = |told: &&Told| told.span.status.as_ref().is_some_and(|status| status.code == 2);
    assert!(!spans.iter().any(|told| failed(&told)), "{}", tree(spans));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_made_and_moves_in_one_trace_each() {
    if let Err(why) = novacron_lab::bridges_are_possible() {
        panic!("{why}");
    }
    let traces = Some(Traces { collector: COLLECTOR, percent: Some(100) });
    let cluster = start(ClusterOptions { traces, ..options(Hosts::Apart) }).await;
    let collector = Collector::default();
    let listener = cluster.collector().unwrap();
    listener.set_nonblocking(true).unwrap();
    let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
    let serving = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(incoming);
    let serving = tokio::spawn(serving);
    cluster.await_voters(3).await.unwrap();
    let client = cluster.client().unwrap();
    simulated_image(&client).await;
    let leader = cluster.leader().await.unwrap().unwrap();
    // Where it is made is not where it is decided.
    let host = |number: usize| format!("h{}", (leader + number) % 3 + 1);
    let elsewhere = [host(0), host(2)];
    for host in &elsewhere {
        cluster.novacron(0, &["host", "cordon", host]).unwrap();
    }
    cluster.novacron(0, &["vm", "create", "web", "--image", "none"]).unwrap();
    await_phase(&client, "web", "running", PATIENCE).await;
    for host in &elsewhere {
        cluster.novacron(0, &["host", "uncordon", host]).unwrap();
    }
    let target = host(2);
    let whole = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let migrate = ["vm", "migrate", "web", "--to", &target];
    cluster.novacron_for(Some(whole), 0, &migrate).unwrap();
    assert_eq!(get(&client, "web").await.unwrap().host, target);

    let listed = cluster.novacron(0, &["operation", "list", "-o", "json"]).unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let trace_of = |kind: &str| {
        let row = listed.as_array().unwrap().iter().find(|row| row["kind"] == kind);
        row.unwrap()["traceId"].as_str().unwrap().to_owned()
    };
    let expected = [
        ("raft.commit", "Vms/CreateVm"),
        ("operation create", "Vms/CreateVm"),
        ("step prepare", "operation create"),
        ("driver.prepare", "step prepare"),
        ("driver.start", "step start"),
        ("report", "step prepare"),
    ];
    check(&collector.trace(&trace_of("create"), &expected).await, &expected);
    assert_eq!(trace_of("migrate"), "0af7651916cd43dd8448eb211c80319c", "what the caller brought");
    let expected = [
        ("operation migrate", "Vms/MigrateVm"),
        ("step copy", "operation migrate"),
        ("driver.receive", "step prepare"),
        ("driver.send", "step copy"),
        ("driver.resume", "step validate"),
        ("driver.release", "step retire"),
    ];
    check(&collector.trace(&trace_of("migrate"), &expected).await, &expected);
    serving.abort();
}
