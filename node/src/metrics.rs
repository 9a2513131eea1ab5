//! What a node measures, and what it says when it is asked.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actors::LocalHost;
use domain::{
    State,
    alert::{AlertState, Severity},
    host,
    operation::Class,
    vm::Phase,
};
use raft_store::Store;
use telemetry::{Counter, Described, Gauge, Histogram, Label, Level, Recorder, SECONDS, Sum};

const FACE: Label = Label {
    name: "face",
    values: "`grpc`, `rest`; `stream` for a change that came with others over `Changes/MakeChanges`",
};
const METHOD: Label = Label {
    name: "method",
    values: "the methods of docs/api.md as `Vms/CreateVm`, paths that are none, as `/metrics`; `other`",
};
const CLASS: Label = Label {
    name: "class",
    values: "`vm-operations`, `migrations`, `monitoring-alerts`, `cost-analysis`",
};
const HOST: Label = Label { name: "host", values: "the hosts' names" };
const RESOURCE: Label =
    Label { name: "resource", values: "`cpu_millicores`, `memory_bytes`, `disk_bytes`" };

pub(crate) static REQUESTS: Counter<3> = Counter::new(
    "novacron_api_requests_total",
    "Requests whose answer's head is known.",
    [
        FACE,
        METHOD,
        Label {
            name: "code",
            values: "gRPC's codes, as `OK` or `NOT_FOUND`; what REST answers is put into the same words",
        },
    ],
);
pub(crate) static REQUEST_SECONDS: Histogram<2> = Histogram::new(
    "novacron_api_request_duration_seconds",
    "How long it took until the answer's head was known.",
    [FACE, METHOD],
    SECONDS,
);
pub(crate) static REQUESTS_UNDER_WAY: Level<1> = Level::new(
    "novacron_api_requests_under_way",
    "Requests whose answer's head is not known yet.",
    [FACE],
);
pub(crate) static WATCHERS: Level<0> =
    Level::new("novacron_watchers", "Watches that are open.", []);
pub(crate) static WATCHED: Counter<0> =
    Counter::new("novacron_watch_events_total", "Events that were given to watches.", []);

static BUILD: Gauge<1> = Gauge::new(
    "novacron_build_info",
    "1; the version is a label.",
    [Label { name: "version", values: "this program's" }],
);
static STARTED: Gauge<0> =
    Gauge::new("novacron_process_start_time_seconds", "When the process began, since 1970.", []);
static CPU: Sum<0> = Sum::new(
    "novacron_process_cpu_seconds_total",
    "What the process has used of processors since it began, whole seconds.",
    [],
);
static RESIDENT: Gauge<0> =
    Gauge::new("novacron_process_resident_memory_bytes", "Memory of the process.", []);
static FILES: Gauge<0> =
    Gauge::new("novacron_process_open_files", "Files and connections that it has open.", []);
static DISK: Gauge<1> = Gauge::new(
    "novacron_disk_bytes",
    "The disk that the data directory is on, without what is kept for root.",
    [Label { name: "what", values: "`total`, `free`" }],
);
static KEPT: Gauge<1> = Gauge::new(
    "novacron_data_bytes",
    "What the parts of the data directory take.",
    [Label {
        name: "part",
        values: "`log`, `snapshot`, `state`, `images`, `drivers`: disks of VMs lie there, unless a host has a directory of its own",
    }],
);
static CERTIFICATE: Gauge<0> = Gauge::new(
    "novacron_certificate_expiry_timestamp_seconds",
    "When this node's certificate ends, since 1970. It is renewed long before.",
    [],
);
static LEASE_TIME: Gauge<0> = Gauge::new(
    "novacron_lease_time_seconds",
    "The cluster's lease time. It stands still while nobody leads.",
    [],
);
static VMS: Gauge<1> = Gauge::new(
    "novacron_vms",
    "VMs of the cluster.",
    [Label { name: "phase", values: "the phases of VMs, 13" }],
);
static HOSTS: Gauge<1> = Gauge::new(
    "novacron_hosts",
    "Hosts of the cluster.",
    [Label { name: "status", values: "`ready`, `lost`" }],
);
static HOST_UP: Gauge<3> = Gauge::new(
    "novacron_host_up",
    "1 when the host holds its lease, 0 when it is lost.",
    [
        HOST,
        Label { name: "driver", values: "the driver's kind" },
        Label { name: "schedule", values: "`open`, `cordoned`, `draining`, `drained`" },
    ],
);
static HOST_CAPACITY: Gauge<2> = Gauge::new(
    "novacron_host_allocatable",
    "What VMs may take of a host in all.",
    [HOST, RESOURCE],
);
static HOST_USED: Gauge<2> =
    Gauge::new("novacron_host_allocated", "What VMs take of a host.", [HOST, RESOURCE]);
static CLOCK_SKEW: Gauge<1> = Gauge::new(
    "novacron_node_clock_skew_seconds",
    "By how much a node's clock is ahead of the leader's, in steps of a quarter of a second. It is reported every half minute.",
    [Label { name: "name", values: "the nodes' names" }],
);
static CANARY_FAILURES: Gauge<1> = Gauge::new(
    "novacron_canary_failures",
    "Canaries of a host that have failed, one after the other.",
    [HOST],
);
static ALERTS: Gauge<2> = Gauge::new(
    "novacron_alerts",
    "Alerts of the cluster's own rules.",
    [
        Label { name: "state", values: "`pending`, `firing`" },
        Label { name: "severity", values: "`info`, `warning`, `critical`" },
    ],
);
static HELD: Gauge<1> = Gauge::new(
    "novacron_host_guard_remaining_seconds",
    "For how long the guests of a host that this node drives may still execute if its lease is not renewed.",
    [HOST],
);
static QUEUED: Gauge<1> =
    Gauge::new("novacron_operations_queued", "Operations that wait for a worker.", [CLASS]);
static QUEUE_AGE: Gauge<1> = Gauge::new(
    "novacron_operations_queue_age_seconds",
    "How long the one that is next has waited, of lease time.",
    [CLASS],
);
static WORKERS: Gauge<1> =
    Gauge::new("novacron_workers", "How many operations may be worked on at one time.", [CLASS]);
static BUSY: Gauge<1> =
    Gauge::new("novacron_workers_busy", "Operations that are worked on.", [CLASS]);
static OPEN: Gauge<0> =
    Gauge::new("novacron_operations_open", "Operations that have not ended.", []);
static STUCK: Gauge<0> =
    Gauge::new("novacron_operations_stuck", "Operations that are kept and need a person.", []);
static LOCKS: Gauge<0> = Gauge::new("novacron_locks_held", "Locks that are held.", []);
static IMAGES: Gauge<0> = Gauge::new("novacron_images", "Images of the cluster.", []);

/// What this crate measures.
static OWN: &[Described] = &[
    REQUESTS.described(),
    REQUEST_SECONDS.described(),
    REQUESTS_UNDER_WAY.described(),
    WATCHERS.described(),
    WATCHED.described(),
    BUILD.described(),
    STARTED.described(),
    CPU.described(),
    RESIDENT.described(),
    FILES.described(),
    DISK.described(),
    KEPT.described(),
    CERTIFICATE.described(),
    LEASE_TIME.described(),
    VMS.described(),
    HOSTS.described(),
    HOST_UP.described(),
    HOST_CAPACITY.described(),
    HOST_USED.described(),
    HELD.described(),
    QUEUED.described(),
    QUEUE_AGE.described(),
    WORKERS.described(),
    BUSY.described(),
    OPEN.described(),
    STUCK.described(),
    LOCKS.described(),
    IMAGES.described(),
    CLOCK_SKEW.described(),
    ALERTS.described(),
    CANARY_FAILURES.described(),
];

/// Everything that a node measures.
#[must_use]
pub fn inventory() -> &'static [&'static [Described]] {
    static ALL: std::sync::OnceLock<[&[Described]; 5]> = std::sync::OnceLock::new();
    ALL.get_or_init(|| {
        [
            OWN,
            raft_store::metrics::INVENTORY,
            actors::metrics::INVENTORY,
            drivers::metrics::INVENTORY,
            telemetry::INVENTORY,
        ]
    })
}

/// What a node tells of itself is read from here.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) hosts: Vec<Arc<LocalHost>>,
    pub(crate) files: Arc<crate::files::Files>,
    pub(crate) directory: std::path::PathBuf,
}

/// Starts to count. Before anything else of a node: what is looked up earlier counts nowhere.
pub(crate) fn start() -> Option<Recorder> {
    Recorder::start(inventory())
}

impl Node {
    /// An answer to a scrape, in Prometheus' text form. Reads files: not for a thread that others wait for.
    pub(crate) fn tell(&self) -> String {
        let Some(recorder) = start() else { return String::new() };
        recorder.read(|| {
            raft_store::metrics::sample(&self.store);
            cluster(&self.store.view().state);
            for host in &self.hosts {
                if let Some(left) = host.held_for() {
                    HELD.set([host.name.to_string()], left);
                }
            }
            disk(&self.directory);
            process();
            BUILD.set([env!("CARGO_PKG_VERSION")], 1_u32);
            if let Ok(expiry_s) = self.files.certificate_expiry_s() {
                CERTIFICATE.set::<&str>([], u64::try_from(expiry_s).unwrap_or_default());
            }
        })
    }
}

fn cluster(state: &State) {
    let seconds = Duration::from_millis;
    LEASE_TIME.set::<&str>([], seconds(state.now_ms));
    let mut phases =
        Phase::ALL.map(|phase| (phase, 0_usize)).into_iter().collect::<BTreeMap<_, _>>();
    for vm in state.vms.values() {
        *phases.entry(state.phase(vm)).or_default() += 1;
    }
    for (phase, count) in phases {
        VMS.set([phase.as_str()], count);
    }
    for status in [host::Status::Ready, host::Status::Lost] {
        let count = state.hosts.values().filter(|host| host.status == status).count();
        HOSTS.set([status.as_str()], count);
    }
    for host in state.hosts.values() {
        let name = host.name.as_str();
        let labels = [name, host.driver.as_str(), host.schedule.as_str()].map(str::to_owned);
        HOST_UP.set(labels, host.status == host::Status::Ready);
        for (gauge, amount) in
            [(&HOST_CAPACITY, host.allocatable()), (&HOST_USED, state.used_on(host.id))]
        {
            let set = |resource: &str, value: u64| {
                gauge.set([name.to_owned(), resource.to_owned()], value);
            };
            set("cpu_millicores", amount.cpu_millicores);
            set("memory_bytes", amount.memory_mib << 20);
            set("disk_bytes", amount.disk_mib << 20);
        }
    }
    for class in Class::ALL {
        let labels = [class.as_str()];
        let next = state.waiting(class).next();
        let age_ms = next.map_or(0, |next| state.now_ms.saturating_sub(next.accepted_ms));
        QUEUED.set(labels, state.waiting_count(class));
        QUEUE_AGE.set(labels, seconds(age_ms));
        WORKERS.set(labels, state.workers(class));
        BUSY.set(labels, state.busy(class));
    }
    OPEN.set::<&str>([], state.open_operations());
    STUCK.set::<&str>([], state.stuck_operations());
    for node in state.nodes.values() {
        if let Some(condition) = state.condition_of(node.id) {
            let ahead = Duration::from_millis(condition.clock_skew_ms.unsigned_abs()).as_secs_f64();
            let ahead = if condition.clock_skew_ms < 0 { -ahead } else { ahead };
            CLOCK_SKEW.set([node.name.to_string()], ahead);
        }
    }
    for at in [AlertState::Pending, AlertState::Firing] {
        for severity in Severity::ALL {
            let alerts = state.alerts.values();
            let alerts = alerts.filter(|alert| alert.state == at && alert.severity == severity);
            ALERTS.set([at.as_str(), severity.as_str()], alerts.count());
        }
    }
    for (host, canary) in &state.canaries {
        if let Some(host) = state.hosts.get(host) {
            CANARY_FAILURES.set([host.name.to_string()], u64::from(canary.failures));
        }
    }
    LOCKS.set::<&str>([], state.locks.len());
    IMAGES.set::<&str>([], state.images.len());
}

fn disk(directory: &Path) {
    if let Some(disk) = actors::Disk::of(directory) {
        DISK.set(["total"], disk.whole_bytes);
        DISK.set(["free"], disk.free_bytes);
    }
    for part in ["log", "snapshot", "state", "images", "drivers"] {
        KEPT.set([part], bytes_in(&directory.join(part)));
    }
}

/// What the files of a directory take on the disk.
fn bytes_in(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { bytes_in(&entry.path()) } else { metadata.blocks() * 512 })
    });
    bytes.sum()
}

fn process() {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let used = Duration::try_from(clock).unwrap_or_default();
    CPU.set::<&str>([], used.as_secs());
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    RESIDENT.set::<&str>([], pages.unwrap_or_default() * rustix::param::page_size() as u64);
    FILES.set::<&str>([], std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count));
    if let Some(began) = began() {
        STARTED.set::<&str>([], began);
    }
}

/// When this process began, since 1970.
fn began() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before it may have blanks.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let since_boot = Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second());
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ago = Duration::try_from(boot).ok()?.checked_sub(since_boot)?;
    SystemTime::now().duration_since(UNIX_EPOCH).ok()?.checked_sub(ago)
}
