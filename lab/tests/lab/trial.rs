//! Whatever dies while a guest moves, one guest is left.

use std::time::{Duration, Instant};

use client::{Client, v1};
use novacron_lab::{Broken, Cluster, Fencing, Proxy};

use crate::{
    harness::get,
    strike::{At, Case, When},
    tally::{Loss, Tally},
    traveller::{PATIENCE, Traveller, migrate, operation_of, possible, real_cluster},
};

/// Trials on one cluster with the same guests.
const SEGMENT: usize = 40;
/// Slow enough that a copy can be struck, MiB/s.
const BANDWIDTH: u32 = 24;
/// What the busy guest writes over and over, MiB.
const DIRTY: &str = "g.dirty=16";

/// What QEMU is asked about a guest that stands still.
const EXECUTION: [&str; 4] = ["info status", "info registers", "info lapic", "info pic"];

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
            return Err(self.why_still(guest, "it does not tick before".to_owned()));
        }
        let (moves_before, boots_before) = (moves(guest)?, guest.consoles.boots());
        let source = guest.host(&self.client).await;
        let target = (source + 1 + fastrand::usize(0..2)) % 3;
        let at =
            At { source, target, leader: self.cluster.leader().await.unwrap().unwrap_or(source) };
        let proxy = case.message().map(|strike| self.cluster.intercept(target, strike).unwrap());
        let to = format!("h{}", target + 1);
        let operation = migrate(&self.client, &guest.name, &to, BANDWIDTH).await;
        let (seen, came) = match case.when {
            When::Step(step, later) => {
                let mut seen = self.await_step(guest, &operation, step).await?;
                // A strike as the step begins is one at once: some steps are short.
                if later > 0 {
                    tokio::time::sleep(Duration::from_millis(later)).await;
                    seen = operation_of(&self.client, &operation).await.unwrap_or(seen);
                }
                (seen, true)
            }
            When::Switch | When::Message => {
                let proxy = proxy.as_ref().expect("it strikes a message");
                self.await_message(guest, &operation, proxy).await?
            }
        };
        let fault = case.fault;
        let struck = fault.strike(&mut self.cluster, &self.client, &guest.id, at, &operation).await;
        let place = match case.when {
            When::Switch if came => Some("switch"),
            When::Switch | When::Message | When::Step(..) => {
                Some(&*seen.step).filter(|_| !seen.done)
            }
        };
        self.tally.note_hit(fault, place, struck.hit && came);
        let ended = self.await_end(guest, case, (struck.node, proxy), &operation).await?;
        self.tally.note_end(&ended.status);
        self.await_one_body(guest, &operation).await?;
        if !guest.goes_on(&self.cluster, 3).await {
            let picture = self.picture(guest, &operation).await;
            return Err(self.why_still(guest, picture));
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

    /// What has happened to a guest that does not go on.
    fn why_still(&self, guest: &mut Traveller, picture: String) -> Failed {
        match guest.damage(&self.cluster) {
            Ok(said) => (Loss::Damaged, said),
            Err(why) => (Loss::Lost, format!("{why}\n{picture}")),
        }
    }

    /// Waits for the end of a migration, and mends what was struck after a while: a node that was killed,
    /// links, and whoever stands between two daemons.
    async fn await_end(
        &mut self,
        guest: &mut Traveller,
        case: Case,
        damage: (Option<usize>, Option<Proxy>),
        operation: &str,
    ) -> Result<v1::Operation, Failed> {
        let (watching, mut damage) = (Instant::now(), Some(damage));
        loop {
            guest.consoles.look(&self.cluster, &guest.id);
            let here = (0..3).map(|node| self.cluster.guests_of(node, &guest.id).len());
            let here: usize = here.sum();
            if here > 2 {
                return Err((Loss::Doubled, format!("{here} processes of one guest")));
            }
            let seen = operation_of(&self.client, operation).await;
            let ended = seen.as_ref().is_some_and(|seen| seen.done);
            if (watching.elapsed() > case.lasts() || ended)
                && let Some((node, proxy)) = damage.take()
            {
                drop(proxy);
                self.cluster.heal().unwrap();
                if let Some(node) = node {
                    self.cluster.run(node).unwrap();
                    self.cluster.await_ready(node).await.unwrap();
                }
            }
            if let Some(seen) = seen.clone().filter(|seen| seen.done) {
                return match &*seen.status {
                    "done" | "rolled_back" => Ok(seen),
                    _ => Err((Loss::Stuck, self.picture(guest, operation).await)),
                };
            }
            if watching.elapsed() > PATIENCE {
                let seen = seen.map(|seen| seen.status);
                let picture = self.picture(guest, operation).await;
                return Err((Loss::Stuck, format!("it was {seen:?} for {PATIENCE:?}\n{picture}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a message was struck, or the migration has ended without; which of the two, and what
    /// was seen last.
    async fn await_message(
        &self,
        guest: &Traveller,
        operation: &str,
        proxy: &Proxy,
    ) -> Result<(v1::Operation, bool), Failed> {
        let asked = Instant::now();
        loop {
            let came = proxy.struck().unwrap().is_some();
            let seen = operation_of(&self.client, operation).await;
            if let Some(seen) = seen.filter(|seen| came || seen.done) {
                return Ok((seen, came));
            }
            if asked.elapsed() > PATIENCE {
                let picture = self.picture(guest, operation).await;
                let what = format!("no message came, and no end, for {PATIENCE:?}\n{picture}");
                return Err((Loss::Stuck, what));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for a step; it may pass too fast to be seen. The answer is what was seen last.
    async fn await_step(
        &self,
        guest: &Traveller,
        operation: &str,
        step: &str,
    ) -> Result<v1::Operation, Failed> {
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if let Some(seen) = operation_of(&self.client, operation).await
                && (seen.done || seen.steps.iter().any(|begun| begun.name == step))
            {
                return Ok(seen);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
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
            let ask = |question: &[&str]| {
                let mut virsh = self.cluster.on_host(node, "timeout");
                let said = virsh.args(["10", "virsh", "-c", &uri]).args(question).output().unwrap();
                String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
            };
            text += &(ask(&["list", "--all"]) + &ask(&["domjobinfo", &guest.id]));
            // Whether its processor works, and where: twice, since one look says nothing of that.
            for question in EXECUTION.repeat(2) {
                text += &ask(&["qemu-monitor-command", &guest.id, "--hmp", question]);
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
/// What went wrong ends them; the answer is how many there were.
async fn run_segment(cases: &[Case], tally: Tally) -> (usize, Tally) {
    let cluster = real_cluster(Fencing::None, Broken::Nothing).await;
    let client = cluster.client().unwrap();
    let disk = || vec![v1::Disk { size_mib: 32 }];
    let mut guests = [
        Traveller::create(&client, "idle", "", disk()).await,
        Traveller::create(&client, "busy", DIRTY, disk()).await,
    ];
    let mut trials = Trials { cluster, client, tally };
    let mut done = 0;
    for (turn, case) in cases.iter().enumerate() {
        let [one, other] = &mut guests;
        let (guest, bystander) = if turn % 2 == 0 { (one, other) } else { (other, one) };
        let asked = Instant::now();
        done += 1;
        println!("{} guest: {case} …", guest.name);
        let mut ended = trials.run(guest, *case).await;
        bystander.consoles.look(&trials.cluster, &bystander.id);
        let complaints = bystander.complaints(&trials.cluster);
        if ended.is_ok() && !complaints.is_empty() {
            ended = Err((Loss::Doubled, format!("who did not move: {complaints:#?}")));
        }
        match ended {
            Ok(ended) => println!("  {ended} ({:.1?})", asked.elapsed()),
            Err((mut loss, mut what)) => {
                if loss == Loss::Lost
                    && let Some(said) = guest.consoles.crash()
                {
                    (loss, what) = (Loss::Damaged, said);
                }
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
    (done, trials.tally)
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
    let count = usize::try_from(number("MIGRATION_FAULTS", 5)).unwrap();
    let mut cases = Vec::new();
    // Each time in another order: so each case meets both guests.
    while cases.len() < count && !all.is_empty() {
        fastrand::shuffle(&mut all);
        cases.extend(&all);
    }
    cases.truncate(count);
    let mut tally = Tally::default();
    let mut rest = &cases[..];
    while !rest.is_empty() {
        let done;
        (done, tally) = run_segment(&rest[..rest.len().min(SEGMENT)], tally).await;
        rest = &rest[done..];
        println!("{tally}");
    }
    let failures = tally.failures();
    assert!(failures.is_empty(), "SEED={seed}: {failures:#?}");
}
