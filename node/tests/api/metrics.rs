//! What nodes measure: it is documented, it is what is scraped, and a real Prometheus takes it from a cluster and
//! answers the dashboards and the rules with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use client::v1;
use http::{Method, StatusCode};
use serde_json::Value;
use telemetry::{Described, Kind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use v1::{locks_client::LocksClient, vms_client::VmsClient};

use crate::{
    doctor::free,
    faces::{rest, watch},
    harness::{Lab, create, done, spec},
    reference::check,
};

const HEAD: &str = "# Metrics\n\nEvery node answers `GET /metrics` in Prometheus' text form: from its own machine to anybody, else to who has a credential.\n\
    `GET /v1/prometheus/sd` tells Prometheus of all nodes, and with `?of=vms` of the VMs that have the label `metrics-address`;\n\
    `packaging/prometheus/` has a configuration and rules for alerts, `packaging/grafana/` has dashboards.\n\n\
    What is of the whole cluster (VMs, hosts, queues) every node tells from its own state, and one that is behind tells what was: ask the leader, with\n\
    `… and on (instance) novacron_raft_is_leader == 1`. What happens (counters, histograms) each process counts for itself: take the sum. Histograms have `_bucket`, `_sum` and `_count`.\n\n";

#[test]
fn metrics_are_documented() {
    check("metrics.md", &format!("{HEAD}{}", telemetry::render(novacron::metrics::inventory())));
}

/// What a scrape says, by family.
struct Scraped {
    kinds: BTreeMap<String, String>,
    /// The labels of the series of a family.
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn read(text: &str) -> Scraped {
    let mut scraped = Scraped { kinds: BTreeMap::new(), labels: BTreeMap::new() };
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            let twice = scraped.kinds.insert(name.to_owned(), kind.to_owned());
            assert!(twice.is_none(), "{name} is told twice");
        } else if !line.starts_with('#') {
            let (name, labels) = match line.split_once('{') {
                Some((name, rest)) => (name, rest.rsplit_once('}').unwrap().0),
                None => (line.split(' ').next().unwrap(), ""),
            };
            let of_histogram = ["_bucket", "_sum", "_count"].iter();
            let family = of_histogram
                .filter_map(|end| name.strip_suffix(end))
                .find(|family| scraped.kinds.get(*family).is_some_and(|kind| kind == "histogram"))
                .unwrap_or(name);
            let names = labels.split("\",").filter_map(|label| label.split('=').next());
            let names = names.filter(|name| !name.is_empty() && *name != "le");
            scraped.labels.entry(family.to_owned()).or_default().extend(names.map(str::to_owned));
        }
    }
    scraped
}

/// What happens only sometimes.
const SELDOM: &[&str] = &[
    "novacron_actor_failures_total",
    "novacron_raft_snapshot_duration_seconds",
    "novacron_state_copy_duration_seconds",
    "novacron_trace_spans_total",
    "novacron_canary_duration_seconds",
    "novacron_canary_failures",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_scraped() {
    let lab = Lab::start(3, 2, 0).await;
    lab.await_voters(3).await;
    lab.image("tiny").await;
    work(&lab).await;
    let mut texts = Vec::new();
    // One of them leads.
    for node in 0..3 {
        texts.push(scrape(&lab, node).await);
    }
    let inventory: BTreeMap<&str, &Described> = novacron::metrics::inventory()
        .iter()
        .copied()
        .flatten()
        .map(|metric| (metric.name, metric))
        .collect();
    let mut seen = BTreeSet::new();
    for text in &texts {
        let scraped = read(text);
        for (name, labels) in &scraped.labels {
            let metric = inventory.get(name.as_str());
            let metric = metric.unwrap_or_else(|| panic!("{name} is in no inventory"));
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            assert_eq!(scraped.kinds[name], kind, "{name}");
            let expected = metric.labels.iter().map(|label| label.name.to_owned());
            assert_eq!(*labels, expected.collect(), "{name}");
            assert!(text.contains(&format!("# HELP {name} {}", metric.help)), "{name} has no help");
            seen.insert(metric.name);
        }
        promtool(&["check", "metrics"], text);
    }
    let missing: Vec<_> =
        inventory.keys().filter(|name| !seen.contains(*name) && !SELDOM.contains(name)).collect();
    assert!(missing.is_empty(), "nobody tells {missing:?}");
    for needle in [
        r#"vm_operations_total{service="vm-operations",operation="create",status="done"}"#,
        r#"migration_duration_seconds_count{source_provider="simulator",dest_provider="simulator"}"#,
        r#"novacron_api_requests_total{face="grpc",method="Vms/CreateVm",code="OK"}"#,
        r#"novacron_api_requests_total{face="rest",method="Vms/GetVm",code="NOT_FOUND"}"#,
        r#"novacron_driver_calls_total{driver="simulator",call="start",outcome="ok"}"#,
        r#"novacron_raft_leader_checks_total{by="promises"}"#,
    ] {
        let values = texts.iter().flat_map(|text| text.lines());
        let values =
            values.filter_map(|line| line.strip_prefix(needle)?.trim().parse::<f64>().ok());
        assert!(values.sum::<f64>() > 0.0, "nobody tells {needle}");
    }
    lab.cluster.stop().await;
}

/// Has everything happen that is counted.
async fn work(lab: &Lab) {
    let client = lab.client();
    let outcome = create(&client, "vm1", spec()).await.unwrap();
    assert_eq!(done(&client, &outcome).await.status, "done");
    let request = v1::MigrateVmRequest {
        mutation: client.mutation().await.unwrap(),
        vm: "vm1".to_owned(),
        ..Default::default()
    };
    let outcome = client
        .call(request, async |channel, request| VmsClient::new(channel).migrate_vm(request).await)
        .await
        .unwrap();
    assert_eq!(done(&client, &outcome).await.status, "done");
    let request = v1::AcquireLockRequest {
        mutation: client.mutation().await.unwrap(),
        lock: "lock".to_owned(),
        owner: "test".to_owned(),
        ttl_ms: 60_000,
        ..Default::default()
    };
    let lock = client.call(request, async |channel, request| {
        LocksClient::new(channel).acquire_lock(request).await
    });
    lock.await.unwrap();
    let (status, _) = rest(lab, Method::GET, "/v1/projects/default/vms/none", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = watch(lab, "/v1/events:watch?sinceRevision=0", 0).await;
    assert_eq!(status, StatusCode::OK);
    // What ended is written down a moment later.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
}

pub async fn scrape(lab: &Lab, node: usize) -> String {
    let (status, text) = crate::faces::rest_at(lab, node, Method::GET, "/metrics", None).await;
    assert_eq!(status, StatusCode::OK);
    text.as_str().unwrap().to_owned()
}

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(file)
}

/// Whether Debian's `prometheus` is here. Where everything must be tried, it must.
fn has_prometheus() -> bool {
    let found = ["prometheus", "promtool"].iter().all(|program| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    });
    assert!(found || std::env::var_os("REQUIRE_REAL_VMS").is_none(), "there is no prometheus");
    if !found {
        println!("SKIPPED a real Prometheus: it is not installed");
    }
    found
}

/// Has Prometheus' own tool look at something.
fn promtool(arguments: &[&str], input: &str) {
    if !has_prometheus() {
        return;
    }
    let mut tool = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn rules_and_dashboards_ask_for_what_there_is() {
    let rules = packaging("prometheus/rules.yml");
    promtool(&["check", "rules", rules.to_str().unwrap()], "");
    promtool(&["test", "rules", packaging("prometheus/rules.test.yml").to_str().unwrap()], "");
    let known: BTreeSet<&str> = novacron::metrics::inventory()
        .iter()
        .copied()
        .flatten()
        .map(|metric| metric.name)
        .collect();
    let rules = std::fs::read_to_string(rules).unwrap();
    let dashboards = dashboards();
    assert!(dashboards.len() > 20);
    let texts = dashboards.iter().map(String::as_str).chain([rules.as_str()]);
    for text in texts {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named = words.filter(|word| {
            ["novacron_", "vm_operations", "migration_duration"]
                .iter()
                .any(|it| word.starts_with(it))
        });
        for name in named {
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is = known.contains(name) || family.is_some_and(|family| known.contains(family));
            assert!(is, "{name} is asked for, and nobody measures it");
        }
    }
}

/// What the dashboards ask.
fn dashboards() -> Vec<String> {
    let mut queries = Vec::new();
    for file in ["grafana/novacron-cluster.json", "grafana/novacron-nodes.json"] {
        let board: Value =
            serde_json::from_slice(&std::fs::read(packaging(file)).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap();
                let query = query.replace("$__rate_interval", "10s");
                queries.push(query.replace("$cluster", "dev"));
            }
        }
    }
    queries
}

/// A Prometheus that scrapes a cluster, as packaging/prometheus/ has it.
struct Prometheus {
    process: Child,
    address: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    fn start(lab: &Lab, directory: &Path) -> Prometheus {
        let access = &lab.cluster.access;
        let write = |file: &str, text: &str| std::fs::write(directory.join(file), text).unwrap();
        write("novacron.token", &access.bearer);
        write("novacron-ca.crt", &access.authority);
        write("rules.yml", &std::fs::read_to_string(packaging("prometheus/rules.yml")).unwrap());
        let config = std::fs::read_to_string(packaging("prometheus/prometheus.yml")).unwrap();
        let config = config
            .replace("127.0.0.1:7400", &access.endpoints[0])
            .replace("_interval: 15s", "_interval: 1s");
        write("prometheus.yml", &config);
        let address = free();
        let process = Command::new("prometheus")
            .current_dir(directory)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"])
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .unwrap();
        Prometheus { process, address }
    }

    /// The series that a query finds now; none while nobody answers.
    async fn ask(&self, query: &str) -> Vec<Value> {
        let url = format!("http://{}", self.address);
        let tool = tokio::process::Command::new("promtool")
            .args(["query", "instant", "--format=json", &url, query])
            .output();
        let output = tool.await.unwrap();
        let refused = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !refused.contains("bad_data") && !refused.contains("execution"),
            "{query}: {refused}"
        );
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// What the rules are at present.
    async fn rules(&self) -> Vec<Value> {
        let mut connection = TcpStream::connect(&self.address).await.unwrap();
        let request = "GET /api/v1/rules HTTP/1.0\r\n\r\n";
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let answer: Value = serde_json::from_str(body).unwrap();
        answer["data"]["groups"][0]["rules"].as_array().unwrap().clone()
    }

    /// Asks until the answer has so many series.
    async fn await_series(&self, query: &str, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let found = self.ask(query).await;
            if found.len() >= count {
                return;
            }
            assert!(Instant::now() < deadline, "{query}: {found:?}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

/// What dashboards show only when something is wrong or rare.
const QUIET: &[&str] = &["failures_total", "outcome!=", "code!="];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prometheus_takes_it_and_answers() {
    if !has_prometheus() {
        return;
    }
    let lab = Lab::start(3, 2, 0).await;
    lab.await_voters(3).await;
    lab.image("tiny").await;
    let directory = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(&lab, directory.path());
    prometheus.await_series(r#"up{job="novacron"} == 1"#, 3).await;
    // What happens after the first look has a rate.
    work(&lab).await;
    // The leader's word of both followers, by their names.
    prometheus.await_series("novacron_raft_follower_lag_entries", 2).await;
    let migrated = "sum(migration_duration_seconds_count) > 0";
    prometheus.await_series(migrated, 1).await;
    for query in dashboards() {
        let quiet = QUIET.iter().any(|part| query.contains(part));
        if quiet {
            // It is understood.
            prometheus.ask(&query).await;
        } else {
            prometheus.await_series(&query, 1).await;
        }
    }
    // One look that came late makes a rule pending; slow and full disks are the machine's own.
    const OF_THE_MACHINE: [&str; 2] = ["NovaCronSlowDisk", "NovaCronDiskFilling"];
    let is_well = |rule: &Value| {
        let is_ours = OF_THE_MACHINE.iter().all(|name| rule["name"] != *name);
        rule["health"] == "ok" && (rule["state"] == "inactive" || !is_ours)
    };
    let begun = Instant::now();
    loop {
        let rules = prometheus.rules().await;
        assert!(rules.len() > 10);
        let Some(rule) = rules.iter().find(|rule| !is_well(rule)) else { break };
        assert!(begun.elapsed() < Duration::from_secs(90), "{rule}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    lab.cluster.stop().await;
}
