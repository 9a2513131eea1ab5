//! Whatever dies while a guest moves, one guest is left.

use std::time::{Duration, Instant};

use client::{Client, v1};
use novacron_lab::{Broken, Cluster, Fencing};

use crate::{
    harness::get,
    strike::{Case, Damage, Fault},
    tally::{Loss, Tally},
    traveller::{PATIENCE, Traveller, migrate, operation_of, possible, real_cluster},
};

/// Trials on one cluster with the same guests.
const SEGMENT: usize = 40;
/// Slow enough that a copy can be struck, MiB/s.
const BANDWIDTH: u32 = 24;
/// What the busy guest writes over and over, MiB.
const DIRTY: &str = "g.dirty=16";

struct Trials {
    cluster: Cluster,
    client: Client,
    tally: Tally,
}

/// What went wrong, with what is to be seen of it.
type Failed = (Loss, String);

impl Trials {
    /// One fault at one moment of one migration. The answer says how it ended.
    async fn run(&mut self, guest: &mut Traveller, case: Case) -> Result<String, Failed> {
        if !guest.goes_on(&self.cluster, 3).await {
            return Err((Loss::Lost, "it does not tick before".to_owned()));
        }
        let (moves_before, boots_before) = (moves(guest)?, guest.consoles.boots());
        let source = guest.host(&self.client).await;
        let target = (source + 1 + fastrand::usize(0..2)) % 3;
        let way = (source, target);
        let asks_first = case.moment.is_some();
        let mut damage = Damage::default();
        if !asks_first {
            damage = self.strike(case.fault, guest, way, "").await;
        }
        let operation =
            migrate(&self.client, &guest.name, &format!("h{}", target + 1), BANDWIDTH).await;
        if let Some((step, later)) = case.moment {
            self.await_step(guest, &operation, step).await?;
            tokio::time::sleep(Duration::from_millis(later)).await;
            let seen = operation_of(&self.client, &operation).await;
            let step = seen.filter(|seen| !seen.done).map(|seen| seen.step);
            damage = self.strike(case.fault, guest, way, &operation).await;
            self.tally.note_hit(case.fault, step.as_deref(), damage.hit);
        }
        let ended = self.await_end(guest, case.fault, damage, &operation).await?;
        self.tally.note_end(&ended.status);
        self.await_one_body(guest, &operation).await?;
        if !guest.goes_on(&self.cluster, 3).await {
            return Err((Loss::Lost, self.picture(guest, &operation).await));
        }
        let complaints = guest.complaints(&self.cluster);
        if !complaints.is_empty() {
            let picture = self.picture(guest, &operation).await;
            return Err((Loss::Doubled, format!("{complaints:#?}\n{picture}")));
        }
        if let Some(why) = guest.ran_unasked(&self.cluster, &ended, target) {
            return Err((Loss::Doubled, why));
        }
        let (moves, boots) = (moves(guest)? - moves_before, guest.consoles.boots() - boots_before);
        Ok(format!("{}, moves {moves}, boots {boots}: {}", ended.status, ended.message))
    }

    async fn strike(
        &mut self,
        fault: Fault,
        guest: &Traveller,
        way: (usize, usize),
        operation: &str,
    ) -> Damage {
        fault.strike(&mut self.cluster, &self.client, &guest.id, way, operation).await
    }

    /// Waits for the end of a migration, and mends what was struck after a while.
    async fn await_end(
        &mut self,
        guest: &mut Traveller,
        fault: Fault,
        damage: Damage,
        operation: &str,
    ) -> Result<v1::Operation, Failed> {
        let watching = Instant::now();
        let (mut damage, mut struck_at) = (Some(damage), None);
        loop {
            guest.consoles.look(&self.cluster, &guest.id);
            let here = (0..3).map(|node| self.cluster.guests_of(node, &guest.id).len());
            let here: usize = here.sum();
            if here > 2 {
                return Err((Loss::Doubled, format!("{here} processes of one guest")));
            }
            let seen = operation_of(&self.client, operation).await;
            let ended = seen.as_ref().is_some_and(|seen| seen.done);
            if let Some(Damage { proxy: Some(proxy), .. }) = &damage {
                let struck = proxy.struck().unwrap();
                if struck_at.is_none() && (struck.is_some() || ended) {
                    let step = seen.as_ref().filter(|seen| !seen.done).map(|seen| &*seen.step);
                    self.tally.note_hit(fault, step, struck.is_some());
                    struck_at = Some(Instant::now());
                }
            } else {
                struck_at.get_or_insert(watching);
            }
            if (struck_at.is_some_and(|at| at.elapsed() > fault.lasts()) || ended)
                && let Some(damage) = damage.take()
            {
                self.mend(damage).await;
            }
            if let Some(seen) = seen.filter(|seen| seen.done) {
                // It is as it is told once everything answers again.
                return match &*seen.status {
                    "done" | "rolled_back" => Ok(seen),
                    _ => Err((Loss::Stuck, self.picture(guest, operation).await)),
                };
            }
            if watching.elapsed() > PATIENCE {
                return Err((Loss::Stuck, self.picture(guest, operation).await));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn mend(&mut self, damage: Damage) {
        self.cluster.heal().unwrap();
        if let Some(node) = damage.node {
            self.cluster.run(node).unwrap();
            self.cluster.await_ready(node).await.unwrap();
        }
    }

    /// Waits for a step; it may pass too fast to be seen.
    async fn await_step(
        &self,
        guest: &Traveller,
        operation: &str,
        step: &str,
    ) -> Result<(), Failed> {
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if let Some(seen) = operation_of(&self.client, operation).await
                && (seen.done || seen.steps.iter().any(|begun| begun.name == step))
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let picture = self.picture(guest, operation).await;
        Err((Loss::Stuck, format!("the step {step} does not come\n{picture}")))
    }

    /// Waits until the guest runs and one process is left, where the state says, and one host's files.
    async fn await_one_body(&self, guest: &Traveller, operation: &str) -> Result<(), Failed> {
        let asked = Instant::now();
        loop {
            let vm = get(&self.client, &guest.name).await.unwrap();
            let host = vm.host.trim_start_matches('h').parse::<usize>().map_or(0, |n| n - 1);
            let count = |node| self.cluster.guests_of(node, &guest.id).len();
            let guests: Vec<usize> = (0..3).map(count).collect();
            let files = |node| usize::from(self.cluster.body_directory(node, &guest.id).exists());
            let bodies: Vec<usize> = (0..3).map(files).collect();
            let right = |seen: &[usize]| seen.iter().sum::<usize>() == 1 && seen[host] == 1;
            if vm.phase == "running" && right(&guests) && right(&bodies) {
                return Ok(());
            }
            if asked.elapsed() > PATIENCE {
                let what = format!("{vm:?}, {guests:?} guests, {bodies:?} bodies");
                let picture = self.picture(guest, operation).await;
                return Err((Loss::Lost, format!("{what}\n{picture}")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What is to be seen of a migration that went wrong.
    async fn picture(&self, guest: &Traveller, operation: &str) -> String {
        let mut text = format!("{:#?}\n", operation_of(&self.client, operation).await);
        text += &format!("{:#?}\n", self.cluster.witness(&guest.id));
        for node in 0..3 {
            let uri = self.cluster.libvirt_uri(node).unwrap();
            for question in [vec!["list", "--all"], vec!["domjobinfo", &guest.id]] {
                let mut virsh = self.cluster.on_host(node, "timeout");
                let said = virsh.args(["10", "virsh", "-c", &uri]).args(question).output().unwrap();
                text += &String::from_utf8_lossy(&[said.stdout, said.stderr].concat());
            }
            let log = self.cluster.log(node) + &self.cluster.driver_log(node);
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            text += &format!("n{}:\n{last}\n", node + 1);
        }
        text
    }
}

fn moves(guest: &mut Traveller) -> Result<usize, Failed> {
    guest.consoles.moves().map_err(|why| (Loss::Doubled, why))
}

/// Some trials on a cluster of their own, with a guest that idles and one that writes memory, by turns.
/// What went wrong ends them.
async fn run_segment(cases: &[Case], tally: Tally) -> Tally {
    let cluster = real_cluster(Fencing::None, Broken::Nothing).await;
    let client = cluster.client().unwrap();
    let disk = || vec![v1::Disk { size_mib: 32 }];
    let mut guests = [
        Traveller::create(&client, "idle", "", disk()).await,
        Traveller::create(&client, "busy", DIRTY, disk()).await,
    ];
    let mut trials = Trials { cluster, client, tally };
    for (turn, case) in cases.iter().enumerate() {
        let [one, other] = &mut guests;
        let (guest, bystander) = if turn % 2 == 0 { (one, other) } else { (other, one) };
        let asked = Instant::now();
        println!("{} guest: {case} …", guest.name);
        let mut ended = trials.run(guest, *case).await;
        bystander.consoles.look(&trials.cluster, &bystander.id);
        let complaints = bystander.complaints(&trials.cluster);
        if ended.is_ok() && !complaints.is_empty() {
            ended = Err((Loss::Doubled, format!("who did not move: {complaints:#?}")));
        }
        match ended {
            Ok(ended) => println!("  {ended} ({:.1?})", asked.elapsed()),
            Err((loss, what)) => {
                println!("  {loss:?}: {what}");
                trials.tally.note_loss(loss, format!("{case}: {what}"));
                break;
            }
        }
    }
    for node in 0..3 {
        let log = trials.cluster.log(node);
        assert!(!log.contains("panicked"), "{log}");
    }
    trials.tally
}

/// Every fault at every moment, or some of them: `MIGRATION_FAULTS=N`, in an order from `SEED`. `MIGRATION_ONLY=Link` takes
/// those alone that are called so.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_one_guest_is_left() {
    if !possible("faults in migrations of real guests") {
        return;
    }
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let seed = number("SEED", fastrand::u64(..));
    println!("SEED={seed}");
    fastrand::seed(seed);
    let only = std::env::var("MIGRATION_ONLY").unwrap_or_default();
    let all = Case::all().into_iter().filter(|case| case.to_string().contains(&only));
    let mut all: Vec<Case> = all.collect();
    let count = usize::try_from(number("MIGRATION_FAULTS", 8)).unwrap();
    let mut cases = Vec::new();
    // Each time in another order: so each case meets both guests.
    while cases.len() < count && !all.is_empty() {
        fastrand::shuffle(&mut all);
        cases.extend(&all);
    }
    cases.truncate(count);
    let mut tally = Tally::default();
    for segment in cases.chunks(SEGMENT) {
        tally = run_segment(segment, tally).await;
        println!("{tally}");
    }
    let losses = tally.losses();
    assert!(losses.is_empty(), "SEED={seed}: {losses:#?}");
}
