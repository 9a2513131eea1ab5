//! Drains and restores, which are made of migrations: whatever becomes of a call that one of these makes,
//! a host that is drained is left, one that is restored is come back to, and what was called off has
//! moved each VM whole or not at all.

mod lost;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use client::v1;
use domain::operation::Kind;
use v1::operations_client::OperationsClient;

use crate::{
    harness::{create, done, get, spec},
    kinds::act,
    migration::{cancel, host, migrate, schedule},
    scripted::{Fault, until},
    stage::{FAULTS, NODES, PATIENCE, Picture, RUNNING, STOPPED, Stage, all, host_name},
    tally::Tally,
};

/// Enough for the largest round to have a host each.
const HOSTS: usize = 27;
/// The last of them, one on each node, are drained by nobody: VMs go there.
const REFUGES: std::ops::Range<usize> = 24..HOSTS;

const WHOLES: [Kind; 2] = [Kind::Drain, Kind::Restore];

/// A VM of a drained host: one runs, and one is stopped.
struct Part {
    suffix: &'static str,
    picture: Picture,
}

const PARTS: [Part; 2] =
    [Part { suffix: "runs", picture: RUNNING }, Part { suffix: "rests", picture: STOPPED }];

/// One drain or restore of a host of its own; the same call of each of its VMs is struck.
#[derive(Clone)]
struct Trial {
    kind: Kind,
    number: usize,
    at: usize,
    fault: Fault,
    /// What becomes of the call after that one, once it is called off.
    undo: Fault,
    way: String,
}

impl Trial {
    fn new(kind: Kind, at: usize, fault: Fault, way: &str) -> Trial {
        Trial { kind, number: 0, at, fault, undo: Fault::None, way: way.to_owned() }
    }

    fn host(&self) -> String {
        host_name(self.number)
    }

    fn vm(&self, part: &Part) -> String {
        format!("{}-{}", self.host(), part.suffix)
    }

    /// The name that its rows have.
    fn row(&self, part: &Part) -> &'static str {
        match (self.kind, part.picture) {
            (Kind::Drain, STOPPED) => "drain-stopped",
            (Kind::Restore, STOPPED) => "restore-stopped",
            (kind, _) => kind.as_str(),
        }
    }

    fn what(&self) -> String {
        format!("{} of {} at call {} {}", self.kind.as_str(), self.host(), self.at, self.way)
    }
}

/// Gives each trial a host of its own.
fn housed(trials: Vec<Trial>) -> Vec<Trial> {
    assert!(trials.len() <= REFUGES.start, "{} trials have no host each", trials.len());
    trials.into_iter().enumerate().map(|(number, trial)| Trial { number, ..trial }).collect()
}

fn refuges() -> Vec<String> {
    REFUGES.map(host_name).collect()
}

struct Drains {
    stage: Stage,
    /// How many VMs stayed, and how many had moved, when the whole was called off.
    off: Mutex<BTreeMap<(&'static str, bool), u32>>,
}

pub async fn strike(tally: &Arc<Tally>) {
    let stage = Stage::start(HOSTS, tally).await;
    let mut drains = Drains { stage, off: Mutex::default() };
    let calls = drains.calls().await;

    // Each call struck in each way.
    for kind in WHOLES {
        let trials = (0..calls)
            .flat_map(|at| FAULTS.map(|fault| Trial::new(kind, at, fault, &format!("{fault:?}"))));
        let trials = housed(trials.collect());
        drains.make(&trials).await;
        drains.drain(trials.iter().filter(|_| kind == Kind::Restore)).await;
        all(trials.iter().collect(), async |trial| {
            let before = drains.ask(trial).await;
            drains.check(trial, &before).await;
        })
        .await;
        drains.clear(&trials).await;
    }

    let steps: Vec<(Kind, usize)> =
        WHOLES.into_iter().flat_map(|kind| (0..calls).map(move |at| (kind, at))).collect();
    // Called off at each call. What has begun to leave a drained host goes on; what is to come back is undone,
    // and that is struck too.
    let trials = steps.iter().flat_map(|(kind, at)| {
        const UNDOS: [Fault; 5] =
            [Fault::None, Fault::Fails, Fault::AnswerLost, Fault::Twice, Fault::Panics];
        let undos = if *kind == Kind::Restore { &UNDOS[..] } else { &UNDOS[..1] };
        undos.iter().map(|undo| {
            let way = format!("called off, {undo:?}");
            Trial { undo: *undo, ..Trial::new(*kind, *at, Fault::Holds, &way) }
        })
    });
    let trials = housed(trials.collect());
    drains.make(&trials).await;
    drains.drain(trials.iter().filter(|trial| trial.kind == Kind::Restore)).await;
    drains.stage.script.hold();
    let asked = all(trials.iter().collect(), async |trial| {
        let before = drains.ask(trial).await;
        drains.call_off(trial, &before.operation).await;
        (trial, before)
    })
    .await;
    drains.stage.script.release();
    all(asked, async |(trial, before)| drains.check(trial, &before).await).await;
    drains.clear(&trials).await;
    drains.assert_called_off();

    // A host is lost with all that ran on it, for a moment and with the leader, and for longer than its
    // lease.
    let leader = drains.stage.lab.leader().await;
    drains.lose(&steps, leader, false).await;
    drains.lose(&steps, (leader + 1) % NODES, true).await;
    for (kind, part) in WHOLES.into_iter().flat_map(|kind| PARTS.iter().map(move |p| (kind, p))) {
        let row = Trial::new(kind, 0, Fault::None, "").row(part);
        for way in FAULTS
            .iter()
            .map(|fault| format!("{fault:?}"))
            .chain(["leader lost", "host lost (from)", "host lost (to)"].map(str::to_owned))
        {
            assert_eq!(drains.stage.tally.struck(row, &way).len(), calls, "{row} {way}");
        }
    }
    drains.stage.lab.cluster.stop().await;
}

/// What was asked, and where each VM was then.
struct Before {
    operation: String,
    places: Vec<String>,
}

impl Drains {
    /// How many calls a part makes when nothing goes wrong.
    async fn calls(&self) -> usize {
        let mut counts = Vec::new();
        for kind in WHOLES {
            let trials = housed(vec![Trial::new(kind, 0, Fault::None, "plain")]);
            self.make(&trials).await;
            self.drain(trials.iter().filter(|_| kind == Kind::Restore)).await;
            let before = self.ask(&trials[0]).await;
            self.check(&trials[0], &before).await;
            for part in &PARTS {
                let calls = self.stage.script.calls(&trials[0].vm(part));
                println!("{}: {calls:?}", trials[0].row(part));
                counts.push(calls.len());
            }
            self.clear(&trials).await;
        }
        assert!(counts[0] > 0 && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
        counts[0]
    }

    /// Makes the VMs of each trial on its host. After that VMs go to refuges only.
    async fn make(&self, trials: &[Trial]) {
        let client = &self.stage.client;
        let hosts: Vec<String> = (0..HOSTS).map(host_name).collect();
        self.stage.open(&hosts, |_| true).await;
        let parts = trials.iter().flat_map(|trial| PARTS.iter().map(move |part| (trial, part)));
        all(parts.collect(), async |(trial, part)| {
            let vm = trial.vm(part);
            let outcome = create(client, &vm, spec()).await.unwrap();
            assert_eq!(done(client, &outcome).await.status, "done");
            if part.picture == STOPPED {
                let outcome = act(client, Kind::Kill, &vm, "").await.unwrap();
                assert_eq!(done(client, &outcome).await.status, "done");
            }
            if get(client, &vm).await.unwrap().host != trial.host() {
                let outcome = migrate(client, &vm, &trial.host(), 0).await.unwrap();
                assert_eq!(done(client, &outcome).await.status, "done");
            }
        })
        .await;
        self.stage.open(&hosts, |host| refuges().iter().any(|refuge| refuge == host)).await;
    }

    /// What is to be restored was drained before.
    async fn drain(&self, trials: impl Iterator<Item = &Trial>) {
        all(trials.collect(), async |trial| {
            let outcome = schedule(&self.stage.client, &trial.host(), "drain").await;
            assert_eq!(done(&self.stage.client, &outcome).await.status, "done");
        })
        .await;
    }

    /// Asks for it, with its script armed.
    async fn ask(&self, trial: &Trial) -> Before {
        let (client, script) = (&self.stage.client, &self.stage.script);
        let mut places = Vec::new();
        for part in &PARTS {
            places.push(get(client, &trial.vm(part)).await.unwrap().host);
            script.arm(&trial.vm(part), trial.at, trial.fault);
        }
        let verb = if trial.kind == Kind::Drain { "drain" } else { "restore" };
        let operation = schedule(client, &trial.host(), verb).await.operation;
        if trial.fault == Fault::Holds {
            for part in &PARTS {
                until("the held call", async || script.struck(&trial.vm(part)).is_some()).await;
            }
        }
        Before { operation, places }
    }

    async fn call_off(&self, trial: &Trial, operation: &str) {
        if trial.kind == Kind::Drain {
            schedule(&self.stage.client, &trial.host(), "uncordon").await;
        } else {
            cancel(&self.stage.client, operation).await.unwrap();
        }
        for part in &PARTS {
            self.stage.script.add(&trial.vm(part), trial.undo);
        }
    }

    /// The parts of an operation that are of this VM.
    async fn parts_of(&self, operation: &str, vm: &str) -> Vec<v1::Operation> {
        let filter = format!("vm={vm} AND parent={operation}");
        let page = Some(v1::Page { filter, ..Default::default() });
        let request = v1::ListOperationsRequest { page, ..Default::default() };
        let call = self.stage.client.call(request, async |channel, request| {
            OperationsClient::new(channel).list_operations(request).await
        });
        call.await.unwrap().operations
    }

    /// Whether one of an operation's migrations has moved the VM, once all have ended.
    async fn has_moved(&self, operation: &str, vm: &str) -> bool {
        let mut parts = Vec::new();
        until("the end of its parts", async || {
            parts = self.parts_of(operation, vm).await;
            parts.iter().all(|part| part.done)
        })
        .await;
        parts.iter().any(|part| part.status == "done")
    }

    /// The end is one of those that may be, in the cluster and on the hosts.
    async fn check(&self, trial: &Trial, before: &Before) {
        let (home, what) = (trial.host(), trial.what());
        let ended = self.stage.client.wait(&before.operation, PATIENCE, |_| ()).await.unwrap();
        let what = format!("{what}, {}", ended.status);
        let off = trial.way.starts_with("called off");
        match (trial.kind, ended.status.as_str()) {
            (_, "done") => {}
            (_, "rolled_back") if off => {}
            // A VM of it stayed where it was. Asked again it comes.
            (Kind::Restore, "stuck") => {
                assert!(ended.message.contains("did not get done"), "{what}: {}", ended.message);
                self.restore_again(trial, before).await;
            }
            _ => panic!("{what}: {}", ended.message),
        }
        if ended.status == "done" && trial.kind == Kind::Drain {
            assert_eq!(host(&self.stage.client, &home).await.schedule, "drained", "{what}");
        }
        for (part, place) in PARTS.iter().zip(&before.places) {
            let vm = trial.vm(part);
            let moved =
                ended.status != "rolled_back" || self.has_moved(&before.operation, &vm).await;
            let may_be_on = |host: &str| match (moved, trial.kind) {
                (false, _) => host == place,
                (true, Kind::Drain) => host != home,
                (true, _) => host == home,
            };
            self.stage.await_vm(&vm, part.picture, may_be_on, &what).await;
            if ended.status == "rolled_back" {
                *self.off.lock().unwrap().entry((trial.kind.as_str(), moved)).or_default() += 1;
            }
            if let Some(call) = self.stage.script.struck(&vm).filter(|_| trial.fault != Fault::None)
            {
                self.stage.tally.note(trial.row(part), call, &trial.way);
            }
        }
    }

    /// Those that stayed had their migrations undone, and come when they are asked again.
    async fn restore_again(&self, trial: &Trial, before: &Before) {
        let client = &self.stage.client;
        let mut stayed = 0;
        for (part, place) in PARTS.iter().zip(&before.places) {
            let vm = trial.vm(part);
            if !self.has_moved(&before.operation, &vm).await {
                stayed += 1;
                self.stage.await_vm(&vm, part.picture, |host| host == place, &trial.what()).await;
            }
        }
        assert!(stayed > 0, "{}: stuck, but all have come", trial.what());
        // One of which something is still being removed elsewhere is passed over, and comes the next time.
        until("the VMs at home", async || {
            let again = schedule(client, &trial.host(), "restore").await;
            let ended = client.wait(&again.operation, PATIENCE, |_| ()).await.unwrap();
            assert_eq!(ended.status, "done", "{} again: {}", trial.what(), ended.message);
            let mut hosts = Vec::new();
            for part in &PARTS {
                hosts.push(get(client, &trial.vm(part)).await.unwrap().host);
            }
            hosts.iter().all(|host| *host == trial.host())
        })
        .await;
    }

    /// Takes the VMs of trials away: what follows has hosts of its own again.
    async fn clear(&self, trials: &[Trial]) {
        let client = &self.stage.client;
        let vms = trials.iter().flat_map(|trial| PARTS.iter().map(|part| trial.vm(part)));
        all(vms.collect(), async |vm| {
            let outcome = act(client, Kind::Delete, &vm, "").await.unwrap();
            assert_eq!(done(client, &outcome).await.status, "done");
        })
        .await;
    }

    /// Each kind was called off in time for some VM, and too late for another.
    fn assert_called_off(&self) {
        let off = self.off.lock().unwrap();
        println!("called off, by whether the VM had moved: {off:?}");
        assert!(off.contains_key(&("restore", false)), "{off:?}");
        for kind in WHOLES {
            assert!(off.contains_key(&(kind.as_str(), true)), "{off:?}");
        }
    }
}
