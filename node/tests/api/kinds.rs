//! Every kind of operation, struck at every call of a driver in every way: at its end the cluster and the
//! hosts are as if it had been done, or as if it had never begun.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use client::{Client, Error, v1};
use domain::{instance::Body, operation::Kind};
use drivers::simulator::Call;
use futures_util::{StreamExt, stream};
use v1::vms_client::VmsClient;

use crate::{
    failover::failover_of,
    harness::{Lab, create, done, get, spec},
    migration::{cancel, migrate, schedule, set},
    scripted::{Fault, Script, until},
};

/// How a trial's VM is at an end.
type Picture = (&'static str, usize);

/// What is tried: the kind, how its VM is before, and afterwards when it was done.
struct Case {
    kind: Kind,
    before: Picture,
    after: Picture,
    /// Whether the VM's disks lie in a pool.
    pool: bool,
}

const fn case(kind: Kind, before: Picture, after: Picture) -> Case {
    Case { kind, before, after, pool: false }
}

const HOSTS: [&str; 3] = ["host-0001", "host-0002", "host-0003"];
const GONE: Picture = ("gone", 0);
const RUNNING: Picture = ("running", 1);
const STOPPED: Picture = ("stopped", 1);
const PAUSED: Picture = ("paused", 1);

/// The kinds whose work is done by drivers' calls for a VM. A failover needs a lost host and is begun by
/// it; drains are made of migrations, and probes have no calls of this kind.
const CASES: &[Case] = &[
    case(Kind::Create, GONE, RUNNING),
    case(Kind::Start, STOPPED, RUNNING),
    case(Kind::Stop, RUNNING, STOPPED),
    case(Kind::Kill, RUNNING, STOPPED),
    case(Kind::Reboot, RUNNING, RUNNING),
    case(Kind::Pause, RUNNING, PAUSED),
    case(Kind::Resume, PAUSED, RUNNING),
    case(Kind::Delete, RUNNING, GONE),
    case(Kind::Migrate, RUNNING, RUNNING),
    case(Kind::Migrate, STOPPED, STOPPED),
    case(Kind::Migrate, PAUSED, PAUSED),
    Case { pool: true, ..case(Kind::Delete, RUNNING, GONE) },
];

impl Case {
    /// Its kind, and what it is done to where that is not an ordinary VM.
    fn name(&self) -> &'static str {
        match (self.kind, self.before, self.pool) {
            (Kind::Migrate, STOPPED, _) => "migrate-stopped",
            (Kind::Migrate, PAUSED, _) => "migrate-paused",
            (Kind::Delete, _, true) => "delete-pooled",
            (kind, ..) => kind.as_str(),
        }
    }

    fn spec(&self) -> v1::VmSpec {
        let pool = if self.pool { "shared" } else { "" };
        v1::VmSpec { pool: pool.to_owned(), ..spec() }
    }
}

struct Stage {
    lab: Lab,
    client: Client,
    script: Arc<Script>,
    undone: Mutex<BTreeSet<&'static str>>,
    hits: Mutex<BTreeMap<(&'static str, String, String), u32>>,
}

/// One operation on a VM of its own.
struct Trial<'a> {
    case: &'a Case,
    vm: String,
    at: usize,
    fault: Fault,
    operation: String,
}

pub async fn act(client: &Client, kind: Kind, vm: &str, to: &str) -> Result<v1::Outcome, Error> {
    let mutation = client.mutation().await?;
    let (vm, project) = (vm.to_owned(), String::new());
    let action = v1::VmActionRequest {
        mutation: mutation.clone(),
        project: project.clone(),
        vm: vm.clone(),
    };
    let stop = v1::StopVmRequest { mutation, project, vm: vm.clone(), force: kind == Kind::Kill };
    macro_rules! call {
        ($method:ident, $request:expr) => {
            client
                .call($request, async |channel, request| {
                    VmsClient::new(channel).$method(request).await
                })
                .await
        };
    }
    let outcome = match kind {
        Kind::Create => return create(client, &vm, spec()).await,
        Kind::Migrate => return migrate(client, &vm, to, 0).await,
        Kind::Start => call!(start_vm, action),
        Kind::Stop | Kind::Kill => call!(stop_vm, stop),
        Kind::Reboot => call!(reboot_vm, action),
        Kind::Pause => call!(pause_vm, action),
        Kind::Resume => call!(resume_vm, action),
        Kind::Delete => {
            let mutation = client.mutation().await?;
            call!(delete_vm, v1::DeleteVmRequest { mutation, vm: vm.clone(), ..Default::default() })
        }
        Kind::Failover | Kind::Drain | Kind::Restore | Kind::Probe => {
            panic!("{kind:?} is not asked for of a VM")
        }
    };
    client.note(outcome.as_ref().map(|outcome| outcome.revision).unwrap_or_default());
    outcome
}

impl Stage {
    async fn start() -> Stage {
        let script = Script::new();
        let over = script.clone();
        let lab = Lab::start_over(3, 3, Arc::new(move |host| over.wrap(host))).await;
        lab.await_voters(3).await;
        lab.image("tiny").await;
        let client = lab.client();
        for (setting, value) in [
            ("migrations-workers", 200),
            ("migrations-per-host", 100),
            ("host-lease-ttl-ms", 10_000),
            ("stop-grace-ms", 3_000),
        ] {
            set(&client, setting, value).await;
        }
        Stage { lab, client, script, undone: Mutex::default(), hits: Mutex::default() }
    }

    /// Makes a VM as the case wants it.
    async fn make(&self, case: &Case, vm: &str, spec: v1::VmSpec) {
        if case.before == GONE {
            return;
        }
        let outcome = create(&self.client, vm, spec).await.unwrap();
        assert_eq!(done(&self.client, &outcome).await.status, "done");
        let first = match case.before.0 {
            "stopped" => Kind::Kill,
            "paused" => Kind::Pause,
            _ => return,
        };
        let outcome = act(&self.client, first, vm, "").await.unwrap();
        assert_eq!(done(&self.client, &outcome).await.status, "done");
    }

    /// Asks for the operation, with its script armed.
    async fn ask<'a>(&self, case: &'a Case, vm: String, at: usize, fault: Fault) -> Trial<'a> {
        self.ask_to(case, vm, at, fault, "").await
    }

    async fn ask_to<'a>(
        &self,
        case: &'a Case,
        vm: String,
        at: usize,
        fault: Fault,
        to: &str,
    ) -> Trial<'a> {
        self.script.arm(&vm, at, fault);
        let operation = act(&self.client, case.kind, &vm, to).await.unwrap().operation;
        if fault == Fault::Holds {
            until("the held call", async || self.script.struck(&vm).is_some()).await;
        }
        Trial { case, vm, at, fault, operation }
    }

    async fn begin<'a>(&self, case: &'a Case, vm: String, at: usize, fault: Fault) -> Trial<'a> {
        self.make(case, &vm, case.spec()).await;
        self.ask(case, vm, at, fault).await
    }

    /// Lets VMs be made on some hosts only.
    async fn only(&self, open: impl Fn(&str) -> bool) {
        for host in HOSTS {
            let verb = if open(host) { "uncordon" } else { "cordon" };
            schedule(&self.client, host, verb).await;
        }
    }

    /// The end is one of the two that may be, in the cluster and on the hosts.
    async fn check(&self, trial: &Trial<'_>, how: &str) {
        let Trial { case, vm, operation, .. } = trial;
        let what = format!("{} at call {} {how}", case.name(), trial.at);
        let patience = Duration::from_secs(90);
        let ended = self.client.wait(operation, patience, |_| ()).await.unwrap();
        let expected = match ended.status.as_str() {
            "done" => case.after,
            "rolled_back" => {
                self.undone.lock().unwrap().insert(case.name());
                case.before
            }
            other => panic!("{what}: {other}: {}", ended.message),
        };
        let mut seen = (String::new(), BTreeMap::new());
        let begun = Instant::now();
        loop {
            let row = get(&self.client, vm).await;
            let phase = row.as_ref().map_or("gone", |row| row.phase.as_str()).to_owned();
            let bodies = self.script.bodies(vm).await;
            let right = bodies.values().all(|body| match expected.0 {
                "running" => *body == Body::Running,
                "paused" => matches!(body, Body::Paused | Body::Arrived),
                _ => matches!(body, Body::Ready | Body::Stopped(_)),
            });
            let host = row.map(|row| row.host).unwrap_or_default();
            let there = bodies.keys().all(|at| *at == host);
            if phase == expected.0 && bodies.len() == expected.1 && right && there {
                break;
            }
            seen = (format!("{phase} on {host}"), bodies);
            assert!(begun.elapsed() < patience, "{what}: {} but {seen:?}", ended.status);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(seen);
        if trial.fault != Fault::None
            && let Some(call) = self.script.struck(vm)
        {
            let row = (case.name(), format!("{call:?}").to_lowercase(), how.to_owned());
            *self.hits.lock().unwrap().entry(row).or_default() += 1;
        }
    }

    /// The calls that a kind makes when nothing goes wrong.
    async fn calls(&self, case: &Case) -> Vec<Call> {
        let vm = format!("plain-{}", case.name());
        let trial = self.begin(case, vm, 0, Fault::None).await;
        self.check(&trial, "plain").await;
        self.script.calls(&trial.vm)
    }

    /// Every fault struck every call, and what was called off was undone where it can be.
    fn assert_hit(&self, steps: &[(&Case, usize)]) {
        let hits = self.hits.lock().unwrap();
        for fault in FAULTS {
            let way = format!("{fault:?}");
            for (case, _) in steps {
                let name = case.name();
                let calls = steps.iter().filter(|(other, _)| other.name() == name).count();
                let struck = hits.keys().filter(|(of, _, how)| *of == name && *how == way).count();
                assert_eq!(struck, calls, "{name} {way}");
            }
        }
        let undone = self.undone.lock().unwrap();
        for (case, _) in steps.iter().filter(|(case, _)| undoable(case.kind)) {
            assert!(undone.contains(case.name()), "{} was never called off", case.name());
        }
    }

    fn table(&self) -> String {
        let hits = self.hits.lock().unwrap();
        let ways: BTreeSet<&String> = hits.keys().map(|(_, _, way)| way).collect();
        let rows: BTreeSet<(&str, &String)> =
            hits.keys().map(|(kind, call, _)| (*kind, call)).collect();
        let mut text = format!("{:15} {:10}", "KIND", "CALL");
        for way in &ways {
            text += &format!(" {way:>22}");
        }
        for (kind, call) in rows {
            text += &format!("\n{kind:15} {call:10}");
            for way in &ways {
                let count = hits.get(&(kind, call.clone(), (*way).clone())).copied();
                text += &format!(" {:>22}", count.map_or("-".to_owned(), |n| n.to_string()));
            }
        }
        text
    }
}

fn undoable(kind: Kind) -> bool {
    kind.definition().is_undoable || kind == Kind::Migrate
}

/// All at one time: each has a VM of its own.
pub async fn all<T, F: Future>(items: Vec<T>, make: impl Fn(T) -> F) -> Vec<F::Output> {
    stream::iter(items).map(make).buffered(64).collect().await
}

const FAULTS: [Fault; 4] = [Fault::Fails, Fault::AnswerLost, Fault::Twice, Fault::Panics];

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_ends_done_or_as_if_it_had_never_begun() {
    let mut stage = Stage::start().await;
    let mut steps = Vec::new();
    for case in CASES {
        let calls = stage.calls(case).await;
        assert!(!calls.is_empty(), "{:?} has nothing done", case.kind);
        println!("{}: {calls:?}", case.name());
        steps.extend((0..calls.len()).map(|at| (case, at)));
    }

    // Each call struck in each way.
    let trials: Vec<_> =
        steps.iter().flat_map(|(case, at)| FAULTS.map(|fault| (*case, *at, fault))).collect();
    let stage_now = &stage;
    all(trials, async |(case, at, fault)| {
        let vm = format!("{}-{at}-{fault:?}", case.name()).to_lowercase();
        let trial = stage_now.begin(case, vm, at, fault).await;
        stage_now.check(&trial, &format!("{fault:?}")).await;
    })
    .await;

    // Called off at each call, and what undoes it struck too.
    stage.script.hold();
    let trials: Vec<_> = steps
        .iter()
        .filter(|(case, _)| undoable(case.kind))
        .flat_map(|(case, at)| {
            [Fault::None, Fault::Fails, Fault::AnswerLost, Fault::Twice, Fault::Panics]
                .map(|undo| (*case, *at, undo))
        })
        .collect();
    let trials = all(trials, async |(case, at, undo)| {
        let vm = format!("{}-{at}-off-{undo:?}", case.name()).to_lowercase();
        let trial = stage_now.begin(case, vm, at, Fault::Holds).await;
        // Past the switch of a migration it is too late.
        let _ = cancel(&stage_now.client, &trial.operation).await;
        stage_now.script.add(&trial.vm, undo);
        (trial, undo)
    })
    .await;
    stage.script.release();
    all(trials, async |(trial, undo)| {
        stage_now.check(&trial, &format!("called off, {undo:?}")).await;
    })
    .await;

    // The leader is lost between any two calls.
    stage.script.hold();
    let trials = all(steps.clone(), async |(case, at)| {
        let vm = format!("{}-{at}-leader", case.name());
        stage_now.begin(case, vm, at, Fault::Holds).await
    })
    .await;
    let leader = stage.lab.leader().await;
    stage.lab.cluster.stop_node(leader).await;
    stage.script.release();
    stage.lab.cluster.start_node(leader).await.unwrap();
    let stage_now = &stage;
    all(trials, async |trial| stage_now.check(&trial, "leader lost").await).await;

    // The host is lost at each call, with all that ran on it: for a moment, and for longer than its lease.
    for (lost, lapses) in [("host-0003", false), ("host-0002", true)] {
        lose(&mut stage, &steps, lost, lapses).await;
    }
    println!("{}", stage.table());
    stage.assert_hit(&steps);
    stage.lab.cluster.stop().await;
}

/// A host is lost while calls are held. VMs that may be made anew are, when its lease has lapsed, and what
/// is done then is struck too.
async fn lose(stage: &mut Stage, steps: &[(&'static Case, usize)], lost: &str, lapses: bool) {
    stage.lab.await_voters(3).await;
    let stage_now = &*stage;
    // To that host, and from it.
    let ways =
        |case: &Case| if case.kind == Kind::Migrate { vec!["from", "to"] } else { vec!["on"] };
    let rows: Vec<_> = steps
        .iter()
        .flat_map(|(case, at)| ways(case).into_iter().map(move |way| (*case, *at, way)))
        .map(|(case, at, way)| (case, at, way, format!("{}-{at}-{way}-{lost}", case.name())))
        .collect();
    let made_on = async |there: bool| {
        stage_now.only(|host| (host == lost) == there).await;
        let here = rows.iter().filter(|(_, _, way, _)| (*way != "to") == there).collect();
        all(here, async |(case, _, _, vm)| stage_now.make(case, vm, case.spec()).await).await;
    };
    made_on(false).await;
    made_on(true).await;
    let rebuilt = v1::VmSpec { failover: "rebuild".to_owned(), ..spec() };
    let failovers: Vec<_> = (0..2)
        .flat_map(|at| FAULTS.map(|fault| (at, fault)))
        .map(|(at, fault)| (at, fault, format!("failover-{at}-{fault:?}").to_lowercase()))
        .filter(|_| lapses)
        .collect();
    let running = &CASES[1];
    all(failovers.iter().collect(), async |(_, _, vm): &(usize, Fault, String)| {
        let outcome = create(&stage_now.client, vm, rebuilt.clone()).await.unwrap();
        assert_eq!(done(&stage_now.client, &outcome).await.status, "done");
    })
    .await;
    stage_now.script.hold();
    // What is created is created there.
    let (creates, others): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(case, ..)| case.kind == Kind::Create);
    let ask = async |(case, at, way, vm): (&'static Case, usize, &str, String)| {
        let to = if way == "to" { lost } else { "" };
        let trial = stage_now.ask_to(case, vm, at, Fault::Holds, to).await;
        (trial, format!("host lost ({way})"))
    };
    let mut trials = all(creates, ask).await;
    stage_now.only(|_| true).await;
    trials.extend(all(others, ask).await);
    for (at, fault, vm) in &failovers {
        stage_now.script.arm(vm, *at, *fault);
    }

    let number = usize::from(lost.as_bytes()[8] - b'1');
    stage.lab.cluster.stop_node(number).await;
    stage.script.forget(lost);
    stage.script.release();
    let stage_now = &*stage;
    let again = all(failovers, async |(at, fault, vm)| {
        let mut operation = None;
        until("a failover", async || {
            operation = failover_of(&stage_now.client, &vm).await.map(|row| row.id);
            operation.is_some()
        })
        .await;
        let operation = operation.unwrap();
        let case = &Case { kind: Kind::Failover, ..*running };
        stage_now.check(&Trial { case, vm, at, fault, operation }, &format!("{fault:?}")).await;
    });
    again.await;
    stage.lab.cluster.start_node(number).await.unwrap();
    let stage_now = &*stage;
    all(trials, async |(trial, how)| stage_now.check(&trial, &how).await).await;
}
