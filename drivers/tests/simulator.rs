//! The simulator passes the suite that real drivers pass, is deterministic, and fails on demand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::{
    Fence, Revision,
    id::{BootId, VmId},
    image::Image,
    instance::{Body, Ended},
    name::Name,
    vm::{Failover, RunPolicy, VmSpec},
};
use guard::{Warrant, deadline, since_boot};
use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind};
use novacron_drivers::{
    Driver, ErrorKind, Guard as _, Measured, Order, conformance,
    protocol::{self, RemoteDriver},
    simulator::{Call, Execution, Options, Places, Simulator, lose_power, records},
};
use tokio::net::TcpListener;
use uuid::Uuid;

fn id<K: TypedUuidKind>(n: u64) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(Uuid::from_u128(u128::from(n)))
}

fn order(n: u64, fence: Fence) -> Order {
    let name = |text: &str| Name::new(text).unwrap();
    Order {
        vm: id(n),
        fence,
        lease: Fence::ZERO,
        project: name("default"),
        name: name(&format!("vm{n}")),
        spec: Arc::new(VmSpec {
            vcpus: 1,
            memory_mib: 64,
            image: name("none"),
            root_disk_mib: 0,
            pool: None,
            disks: Vec::new(),
            nics: Vec::new(),
            cmdline: String::new(),
            user_data: String::new(),
            run_policy: RunPolicy::Manual,
            failover: Failover::Stay,
            failover_priority: 50,
            failover_after: Vec::new(),
            deletion_protection: false,
            host: None,
            labels: Default::default(),
            placement: Default::default(),
        }),
        generation: 7,
        reboots: 0,
        pool: None,
        disks_made: false,
        image: Arc::new(Image {
            id: id(1),
            name: name("none"),
            files: Vec::new(),
            origin: String::new(),
            holders: Default::default(),
            revision: Revision::ZERO,
        }),
        files: Default::default(),
    }
}

struct Simulated {
    driver: Simulator,
    next: AtomicU64,
}

#[async_trait]
impl conformance::Fixture for Simulated {
    fn driver(&self) -> &dyn Driver {
        &self.driver
    }
    fn order(&self, fence: Fence) -> Order {
        order(self.next.fetch_add(1, Ordering::Relaxed), fence)
    }
    async fn crash(&self, vm: VmId) {
        self.driver.befall(vm, Body::Stopped(Ended::Crashed));
    }
    fn patience(&self) -> Duration {
        Duration::from_secs(5)
    }
}

fn simulator(options: Options) -> Simulator {
    let boot: BootId = id(1);
    Simulator::new(options, boot)
}

#[tokio::test]
async fn conforms() {
    let driver = simulator(Options::default());
    conformance::run(&Simulated { driver, next: AtomicU64::new(1) }).await.unwrap();
}

#[tokio::test]
async fn moves_guests() {
    let fixture = || {
        let driver = simulator(Options::default());
        Simulated { driver, next: AtomicU64::new(1) }
    };
    conformance::run_migration(&fixture(), &fixture()).await.unwrap();
}

/// A host that keeps its bodies, and receives guests at an address of its own.
async fn apart(directory: &Path) -> Simulator {
    let places = Places { volatile: directory.join("v"), durable: directory.join("d") };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Some(listener.local_addr().unwrap().to_string());
    let driver = Simulator::open(Options { address, ..Options::default() }, id(1), places).unwrap();
    tokio::spawn(driver.receive_guests(listener));
    driver
}

/// What a host executed, as far as it was ended, and the fences it saw.
fn seen(directory: &Path, order: &Order) -> (Vec<(bool, Option<u64>)>, Vec<u64>) {
    let record = records(&directory.join("v")).unwrap().remove(&order.vm).unwrap();
    let over = |it: &Execution| (it.ended_ns.is_some(), it.fence);
    (record.executions.iter().map(over).collect(), record.fences)
}

/// Bodies outlive the process of their driver; guests end with the power, fences outlive that too.
#[tokio::test]
async fn keeps_its_bodies() {
    let directory = tempfile::tempdir().unwrap();
    let order = order(1, Fence::from_u64(5));
    let driver = apart(directory.path()).await;
    driver.prepare(&order).await.unwrap();
    driver.start(&order).await.unwrap();
    assert_eq!(seen(directory.path(), &order), (vec![(false, Some(5))], vec![5]));
    drop(driver);

    let driver = apart(directory.path()).await;
    assert_eq!(driver.observe(order.vm).await.unwrap().body, Body::Running);
    driver.kill(order.vm, Fence::from_u64(6)).await.unwrap();
    driver.start(&Order { fence: Fence::from_u64(6), ..order.clone() }).await.unwrap();
    drop(driver);
    lose_power(&directory.path().join("v")).unwrap();

    let driver = apart(directory.path()).await;
    let found = driver.observe(order.vm).await.unwrap();
    assert_eq!(found.body, Body::Stopped(Ended::Crashed));
    assert_eq!(driver.start(&order).await.unwrap_err().kind, ErrorKind::Fenced);
    let ended = vec![(true, Some(5)), (true, Some(6))];
    assert_eq!(seen(directory.path(), &order), (ended, vec![5, 6]));
}

/// A host whose guard holds for a moment, and executes a guest; and when the guard's deadline passes.
async fn guarded(directory: &Path) -> (Simulator, Order, Duration) {
    let mut order = order(1, Fence::from_u64(5));
    Arc::make_mut(&mut order.spec).failover = Failover::Rebuild;
    order.lease = Fence::from_u64(4);
    let driver = apart(directory).await;
    let ttl = Duration::from_secs(6);
    let warrant = Warrant { lease: 4, asked: since_boot(), ttl };
    driver.hold(warrant).await.unwrap();
    driver.prepare(&order).await.unwrap();
    driver.start(&order).await.unwrap();
    (driver, order, deadline(warrant.asked, ttl))
}

/// When the one guest was not executed any more.
fn ended_ns(directory: &Path, order: &Order) -> u128 {
    let record = records(&directory.join("v")).unwrap().remove(&order.vm).unwrap();
    u128::from(record.executions[0].ended_ns.unwrap())
}

/// A host whose guard's deadline passes has executed its guests until then, whether or not it looks.
#[tokio::test]
async fn is_guarded_while_its_driver_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (driver, order, until) = guarded(directory.path()).await;
    drop(driver);
    tokio::time::sleep(until.saturating_sub(since_boot()) + Duration::from_millis(50)).await;
    assert_eq!(ended_ns(directory.path(), &order), until.as_nanos());
    let driver = apart(directory.path()).await;
    let found = driver.observe(order.vm).await.unwrap();
    assert_eq!(found.body, Body::Stopped(Ended::Crashed));
    assert_eq!(ended_ns(directory.path(), &order), until.as_nanos());
}

/// It is the same when the power fails before anybody has looked.
#[tokio::test]
async fn is_guarded_before_its_power_fails() {
    let directory = tempfile::tempdir().unwrap();
    let (driver, order, until) = guarded(directory.path()).await;
    drop(driver);
    tokio::time::sleep(until.saturating_sub(since_boot()) + Duration::from_millis(50)).await;
    lose_power(&directory.path().join("v")).unwrap();
    assert_eq!(ended_ns(directory.path(), &order), until.as_nanos());
}

/// The same suite between two that know of each other only an address.
#[tokio::test]
async fn moves_guests_between_processes() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let fixture = async |directory: &tempfile::TempDir| Simulated {
        driver: apart(directory.path()).await,
        next: AtomicU64::new(1),
    };
    let (from, to) = (fixture(&directories[0]).await, fixture(&directories[1]).await);
    conformance::run_migration(&from, &to).await.unwrap();
}

/// The same suite through a socket: both sides of the driver protocol.
#[tokio::test]
async fn conforms_from_afar() {
    struct Remote {
        near: Arc<Simulator>,
        far: Measured,
        next: AtomicU64,
    }
    #[async_trait]
    impl conformance::Fixture for Remote {
        fn driver(&self) -> &dyn Driver {
            &self.far
        }
        fn order(&self, fence: Fence) -> Order {
            order(self.next.fetch_add(1, Ordering::Relaxed), fence)
        }
        async fn crash(&self, vm: VmId) {
            self.near.befall(vm, Body::Stopped(Ended::Crashed));
        }
        fn patience(&self) -> Duration {
            Duration::from_secs(5)
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("driver.sock");
    let near = Arc::new(simulator(Options::default()));
    let (served, at) = (near.clone(), socket.clone());
    let serving = tokio::spawn(async move { protocol::serve(served, &at).await });
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Counting changes nothing.
    let far = Measured::new("simulator", Arc::new(RemoteDriver::new(&socket)));
    assert_eq!(far.inventory().await.unwrap(), near.inventory().await.unwrap());
    // The stream of changes is opened in the background.
    tokio::time::sleep(Duration::from_millis(700)).await;
    conformance::run(&Remote { near, far, next: AtomicU64::new(1) }).await.unwrap();
    serving.abort();
}

/// Every kind of failure can be had for every call; only an ambiguous one has had its effect.
#[tokio::test]
async fn fails_on_demand() {
    for kind in ErrorKind::ALL {
        let driver =
            simulator(Options { latency_ms_min: 0, latency_ms_max: 0, ..Options::default() });
        let order = order(1, Fence::new(1, 1));
        driver.faults().plan(Call::Prepare, kind);
        assert_eq!(driver.prepare(&order).await.unwrap_err().kind, kind);
        let expected = if kind == ErrorKind::Ambiguous { Body::Ready } else { Body::Absent };
        assert_eq!(driver.observe(order.vm).await.unwrap().body, expected, "{kind:?}");
        driver.prepare(&order).await.unwrap();
        assert_eq!(driver.faults().left(), 0);
    }
}

/// One seed, one history; another seed, another.
#[tokio::test(start_paused = true)]
async fn is_deterministic() {
    async fn history(seed: u64) -> Vec<(Result<(), ErrorKind>, Duration)> {
        let options = Options { seed, failures_per_mille: 300, ..Options::default() };
        let driver = simulator(options);
        let start = tokio::time::Instant::now();
        let mut history = Vec::new();
        for n in 0..200 {
            let result = driver.prepare(&order(n, Fence::new(1, 1))).await;
            history.push((result.map_err(|error| error.kind), start.elapsed()));
        }
        history
    }
    assert_eq!(history(1).await, history(1).await);
    assert_ne!(history(1).await, history(2).await);
}
