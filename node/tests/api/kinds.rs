//! Every kind of operation, struck at every call of a driver in every way: at its end the cluster and the
//! hosts are as if it had been done, or as if it had never begun.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use client::{Client, Error, v1};
use domain::operation::Kind;
use v1::vms_client::VmsClient;

use crate::{
    alerts, drains,
    failover::failover_of,
    harness::{create, done, spec},
    migration::{cancel, migrate},
    probes,
    scripted::{Fault, until},
    stage::{
        FAULTS, GONE, NODES, PATIENCE, PAUSED, Picture, RUNNING, STOPPED, Stage, all, host_name,
    },
    tally::Tally,
};

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

/// The kinds whose work is done by drivers' calls for a VM that somebody asked for. A failover is begun by
/// the loss of a host; drains and restores, and probes, have cases of their own.
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

/// The stage of these kinds, and those of them that were called off.
struct Kinds {
    stage: Stage,
    undone: Mutex<BTreeSet<&'static str>>,
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
        Kind::Failover | Kind::Drain | Kind::Restore | Kind::Probe | Kind::Notify => {
            panic!("nobody asks for a {kind:?} of a VM")
        }
    };
    client.note(outcome.as_ref().map(|outcome| outcome.revision).unwrap_or_default());
    outcome
}

impl Kinds {
    /// Makes a VM as the case wants it.
    async fn make(&self, case: &Case, vm: &str, spec: v1::VmSpec) {
        if case.before == GONE {
            return;
        }
        let outcome = create(&self.stage.client, vm, spec).await.unwrap();
        assert_eq!(done(&self.stage.client, &outcome).await.status, "done");
        let first = match case.before.0 {
            "stopped" => Kind::Kill,
            "paused" => Kind::Pause,
            _ => return,
        };
        let outcome = act(&self.stage.client, first, vm, "").await.unwrap();
        assert_eq!(done(&self.stage.client, &outcome).await.status, "done");
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
        self.stage.script.arm(&vm, at, fault);
        let operation = act(&self.stage.client, case.kind, &vm, to).await.unwrap().operation;
        if fault == Fault::Holds {
            until("the held call", async || self.stage.script.struck(&vm).is_some()).await;
        }
        Trial { case, vm, at, fault, operation }
    }

    async fn begin<'a>(&self, case: &'a Case, vm: String, at: usize, fault: Fault) -> Trial<'a> {
        self.make(case, &vm, case.spec()).await;
        self.ask(case, vm, at, fault).await
    }

    /// The end is one of the two that may be, in the cluster and on the hosts.
    async fn check(&self, trial: &Trial<'_>, how: &str) {
        let Trial { case, vm, operation, .. } = trial;
        let what = format!("{} at call {} {how}", case.name(), trial.at);
        let ended = self.stage.client.wait(operation, PATIENCE, |_| ()).await.unwrap();
        let expected = match ended.status.as_str() {
            "done" => case.after,
            "rolled_back" => {
                self.undone.lock().unwrap().insert(case.name());
                case.before
            }
            other => panic!("{what}: {other}: {}", ended.message),
        };
        self.stage.await_vm(vm, expected, |_| true, &format!("{what}, {}", ended.status)).await;
        if trial.fault != Fault::None
            && let Some(call) = self.stage.script.struck(vm)
        {
            self.stage.tally.note(case.name(), call, how);
        }
    }

    /// The calls that a kind makes when nothing goes wrong.
    async fn calls(&self, case: &Case) -> Vec<String> {
        let vm = format!("plain-{}", case.name());
        let trial = self.begin(case, vm, 0, Fault::None).await;
        self.check(&trial, "plain").await;
        self.stage.script.calls(&trial.vm)
    }

    /// Every fault struck every call, and what was called off was undone where it can be.
    fn assert_hit(&self, steps: &[(&Case, usize)]) {
        for fault in FAULTS {
            let way = format!("{fault:?}");
            for (case, _) in steps {
                let name = case.name();
                let calls = steps.iter().filter(|(other, _)| other.name() == name).count();
                assert_eq!(self.stage.tally.struck(name, &way).len(), calls, "{name} {way}");
            }
        }
        let undone = self.undone.lock().unwrap();
        for (case, _) in steps.iter().filter(|(case, _)| undoable(case.kind)) {
            assert!(undone.contains(case.name()), "{} was never called off", case.name());
        }
    }
}

fn undoable(kind: Kind) -> bool {
    kind.definition().is_undoable || kind == Kind::Migrate
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_ends_done_or_as_if_it_had_never_begun() {
    let tally = Arc::new(Tally::default());
    tokio::join!(
        of_vms(&tally),
        drains::strike(&tally),
        probes::strike(&tally),
        alerts::strike(&tally)
    );
    println!("{}", tally.table());
    let kinds = tally.kinds();
    for kind in Kind::ALL {
        assert!(kinds.contains(kind.as_str()), "{kind:?} was never struck");
    }
}

async fn of_vms(tally: &Arc<Tally>) {
    let stage = Stage::start(NODES, tally).await;
    let mut kinds = Kinds { stage, undone: Mutex::default() };
    let mut steps = Vec::new();
    for case in CASES {
        let calls = kinds.calls(case).await;
        assert!(!calls.is_empty(), "{:?} has nothing done", case.kind);
        println!("{}: {calls:?}", case.name());
        steps.extend((0..calls.len()).map(|at| (case, at)));
    }

    // Each call struck in each way.
    let trials: Vec<_> =
        steps.iter().flat_map(|(case, at)| FAULTS.map(|fault| (*case, *at, fault))).collect();
    let now = &kinds;
    all(trials, async |(case, at, fault)| {
        let vm = format!("{}-{at}-{fault:?}", case.name()).to_lowercase();
        let trial = now.begin(case, vm, at, fault).await;
        now.check(&trial, &format!("{fault:?}")).await;
    })
    .await;

    // Called off at each call, and what undoes it struck too.
    kinds.stage.script.hold();
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
        let trial = now.begin(case, vm, at, Fault::Holds).await;
        // Past the switch of a migration it is too late.
        let _ = cancel(&now.stage.client, &trial.operation).await;
        now.stage.script.add(&trial.vm, undo);
        (trial, undo)
    })
    .await;
    kinds.stage.script.release();
    all(trials, async |(trial, undo)| {
        now.check(&trial, &format!("called off, {undo:?}")).await;
    })
    .await;

    // The leader is lost between any two calls.
    kinds.stage.script.hold();
    let trials = all(steps.clone(), async |(case, at)| {
        let vm = format!("{}-{at}-leader", case.name());
        now.begin(case, vm, at, Fault::Holds).await
    })
    .await;
    let leader = kinds.stage.lab.leader().await;
    kinds.stage.lab.cluster.stop_node(leader).await;
    kinds.stage.script.release();
    kinds.stage.lab.cluster.start_node(leader).await.unwrap();
    let now = &kinds;
    all(trials, async |trial| now.check(&trial, "leader lost").await).await;

    // The host is lost at each call, with all that ran on it: for a moment, and for longer than its lease.
    for (lost, lapses) in [("host-0003", false), ("host-0002", true)] {
        lose(&mut kinds, &steps, lost, lapses).await;
    }
    kinds.assert_hit(&steps);
    kinds.stage.lab.cluster.stop().await;
}

/// A host is lost while calls are held. VMs that may be made anew are, when its lease has lapsed, and what
/// is done then is struck too.
async fn lose(kinds: &mut Kinds, steps: &[(&'static Case, usize)], lost: &str, lapses: bool) {
    kinds.stage.lab.await_voters(NODES).await;
    let now = &*kinds;
    let hosts: Vec<String> = (0..NODES).map(host_name).collect();
    // To that host, and from it.
    let ways =
        |case: &Case| if case.kind == Kind::Migrate { vec!["from", "to"] } else { vec!["on"] };
    let rows: Vec<_> = steps
        .iter()
        .flat_map(|(case, at)| ways(case).into_iter().map(move |way| (*case, *at, way)))
        .map(|(case, at, way)| (case, at, way, format!("{}-{at}-{way}-{lost}", case.name())))
        .collect();
    let made_on = async |there: bool| {
        now.stage.open(&hosts, |host| (host == lost) == there).await;
        let here = rows.iter().filter(|(_, _, way, _)| (*way != "to") == there).collect();
        all(here, async |(case, _, _, vm)| now.make(case, vm, case.spec()).await).await;
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
        let outcome = create(&now.stage.client, vm, rebuilt.clone()).await.unwrap();
        assert_eq!(done(&now.stage.client, &outcome).await.status, "done");
    })
    .await;
    now.stage.script.hold();
    // What is created is created there.
    let (creates, others): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(case, ..)| case.kind == Kind::Create);
    let ask = async |(case, at, way, vm): (&'static Case, usize, &str, String)| {
        let to = if way == "to" { lost } else { "" };
        let trial = now.ask_to(case, vm, at, Fault::Holds, to).await;
        (trial, format!("host lost ({way})"))
    };
    let mut trials = all(creates, ask).await;
    now.stage.open(&hosts, |_| true).await;
    trials.extend(all(others, ask).await);
    for (at, fault, vm) in &failovers {
        now.stage.script.arm(vm, *at, *fault);
    }

    let number = usize::from(lost.as_bytes()[8] - b'1');
    kinds.stage.lab.cluster.stop_node(number).await;
    kinds.stage.script.forget(lost);
    kinds.stage.script.release();
    let now = &*kinds;
    let again = all(failovers, async |(at, fault, vm)| {
        let mut operation = None;
        until("a failover", async || {
            operation = failover_of(&now.stage.client, &vm).await.map(|row| row.id);
            operation.is_some()
        })
        .await;
        let operation = operation.unwrap();
        let case = &Case { kind: Kind::Failover, ..*running };
        now.check(&Trial { case, vm, at, fault, operation }, &format!("{fault:?}")).await;
    });
    again.await;
    kinds.stage.lab.cluster.start_node(number).await.unwrap();
    let now = &*kinds;
    all(trials, async |(trial, how)| now.check(&trial, &how).await).await;
}
