//! Real guests move between real hypervisors, and never miss a tick.

use std::{
    fmt,
    fs::File,
    io::{Read, Seek},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use client::{
    Client,
    v1::{self, operations_client::OperationsClient, vms_client::VmsClient},
};
use novacron_lab::{Cluster, Hosts, is_possible};

use crate::harness::{await_phase, cluster, create, get, guest, spec};

const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for a migration; the answer is the operation. A bandwidth, MiB/s, makes it last.
async fn migrate(client: &Client, vm: &str, host: &str, bandwidth: u32) -> String {
    let request = v1::MigrateVmRequest {
        mutation: client.mutation().await.unwrap(),
        vm: vm.to_owned(),
        host: host.to_owned(),
        bandwidth_mib_per_second: bandwidth,
        ..Default::default()
    };
    let call = client
        .call(request, async |channel, request| VmsClient::new(channel).migrate_vm(request).await);
    let outcome = call.await.unwrap();
    client.note(outcome.revision);
    outcome.operation
}

/// What guests write to their consoles, from the hosts' own files. A file that was opened once stays
/// readable when its host has removed it.
#[derive(Default)]
struct Consoles(Vec<(PathBuf, File)>);

impl Consoles {
    /// Opens the files of a VM that are there and not open yet.
    fn look(&mut self, cluster: &Cluster, vm: &str) {
        for host in ["h1", "h2", "h3"] {
            let path = cluster.console_file(host, vm);
            let Ok(file) = File::open(&path) else { continue };
            let inode = |file: &File| file.metadata().map(|seen| seen.ino()).ok();
            if !self.0.iter().any(|(_, known)| inode(known) == inode(&file)) {
                self.0.push((path, file));
            }
        }
    }

    /// The ticks of each file, in runs that begin with a boot. Only a guest that came from elsewhere
    /// begins without one.
    fn runs(&mut self) -> Vec<Run> {
        let mut runs = Vec::new();
        for (path, file) in &mut self.0 {
            let mut text = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut text).unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            for (n, part) in text.split("GUEST-UP").enumerate() {
                let numbers = part.lines().filter_map(|line| line.trim().strip_prefix("tick "));
                let ticks: Vec<u32> = numbers.filter_map(|text| text.parse().ok()).collect();
                if !ticks.is_empty() {
                    runs.push(Run { path: path.clone(), came: n == 0, ticks });
                }
            }
        }
        runs
    }

    /// Nobody ever ticked twice: each run counts on without a gap, and one that came from elsewhere
    /// goes on exactly where another one ended.
    fn assert_one_guest(&mut self) -> usize {
        let runs = self.runs();
        let mut moves = 0;
        for run in &runs {
            let contiguous = run.ticks.windows(2).all(|pair| pair[1] == pair[0] + 1);
            assert!(contiguous, "{run:?}");
            if run.came {
                let follows = |other: &&Run| other.ticks.last().map(|last| last + 1) == run.first();
                assert!(
                    runs.iter().any(|other| follows(&other)),
                    "{run:?} follows none of {runs:#?}"
                );
                moves += 1;
            }
        }
        moves
    }

    fn ticks(&mut self) -> usize {
        self.runs().iter().map(|run| run.ticks.len()).sum()
    }
}

struct Run {
    path: PathBuf,
    came: bool,
    ticks: Vec<u32>,
}

impl Run {
    fn first(&self) -> Option<u32> {
        self.ticks.first().copied()
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.ticks.first(), self.ticks.last());
        write!(f, "{} came={} {first:?}..{last:?}", self.path.display(), self.came)
    }
}

fn possible() -> bool {
    let Err(why) = is_possible() else { return true };
    assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "{why}");
    println!("SKIPPED migrations of real guests: {why}");
    false
}

/// A cluster on real hypervisors with the tiny guest's image.
async fn real_cluster() -> Cluster {
    let (kernel, initrd) = guest();
    let cluster = cluster(Hosts::Real).await;
    let (kernel, initrd) = (kernel.to_str().unwrap(), initrd.to_str().unwrap());
    cluster
        .novacron(0, &["image", "create", "tiny", "--kernel", kernel, "--initrd", initrd])
        .unwrap();
    cluster.await_voters(3).await.unwrap();
    cluster
}

async fn create_ticking(client: &Client, name: &str, disks: Vec<v1::Disk>) -> String {
    let cmdline = "g.tick=0.1 g.noshell=1".to_owned();
    create(client, name, v1::VmSpec { cmdline, disks, ..spec("tiny") }).await.unwrap();
    await_phase(client, name, "running", PATIENCE).await;
    get(client, name).await.unwrap().id
}

/// Waits until the guest has gone on for a while.
async fn await_ticks(cluster: &Cluster, consoles: &mut Consoles, vm: &str, count: usize) {
    let begun = Instant::now();
    consoles.look(cluster, vm);
    let before = consoles.ticks();
    while consoles.ticks() < before + count {
        assert!(begun.elapsed() < PATIENCE, "the guest does not tick");
        tokio::time::sleep(Duration::from_millis(50)).await;
        consoles.look(cluster, vm);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_moves_and_never_misses_a_tick() {
    if !possible() {
        return;
    }
    let cluster = real_cluster().await;
    let client = cluster.client().unwrap();
    for (name, disks) in [("plain", vec![]), ("disks", vec![v1::Disk { size_mib: 64 }])] {
        let vm = create_ticking(&client, name, disks).await;
        let mut consoles = Consoles::default();
        for moves in 1..=2 {
            await_ticks(&cluster, &mut consoles, &vm, 5).await;
            let before = get(&client, name).await.unwrap();
            let begun = Instant::now();
            let operation = migrate(&client, name, "", 0).await;
            let ended = client.wait(&operation, PATIENCE, |_| ()).await.unwrap();
            assert_eq!(ended.status, "done", "{}", ended.message);
            let took = begun.elapsed();
            let after = get(&client, name).await.unwrap();
            assert_ne!(after.host, before.host);
            await_ticks(&cluster, &mut consoles, &vm, 5).await;
            assert_eq!(consoles.assert_one_guest(), moves);
            let steps: Vec<_> = ended.steps.iter().map(|step| &step.begun_at[17..23]).collect();
            println!("{name}: {} -> {} in {took:.1?}, steps {steps:?}", before.host, after.host);
        }
    }
}

/// What dies, or is cut, while a guest moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    SourceNode,
    TargetNode,
    Leader,
    SourceDriver,
    TargetDriver,
    SourceLibvirtd,
    TargetLibvirtd,
    SourceGuest,
    TargetGuest,
    Link,
    Cancel,
}

const FAULTS: [Fault; 11] = [
    Fault::SourceNode,
    Fault::TargetNode,
    Fault::Leader,
    Fault::SourceDriver,
    Fault::TargetDriver,
    Fault::SourceLibvirtd,
    Fault::TargetLibvirtd,
    Fault::SourceGuest,
    Fault::TargetGuest,
    Fault::Link,
    Fault::Cancel,
];

/// Where it strikes: when the step begins, and in the copy also somewhat later.
const MOMENTS: [(&str, u64); 6] =
    [("prepare", 0), ("copy", 0), ("copy", 1_500), ("copy", 3_600), ("validate", 0), ("retire", 0)];

struct Trial {
    cluster: Cluster,
    client: Client,
    vm: String,
    consoles: Consoles,
}

const NAME: &str = "traveller";

impl Trial {
    /// One fault at one moment of one migration. The answer says how it ended.
    async fn run(&mut self, fault: Fault, moment: (&str, u64)) -> String {
        let boots_before = self.boots();
        await_ticks(&self.cluster, &mut self.consoles, &self.vm, 3).await;
        let moves_before = self.consoles.assert_one_guest();
        let source = self.host().await;
        let target = (source + 1 + fastrand::usize(0..2)) % 3;
        let operation = migrate(&self.client, NAME, &format!("h{}", target + 1), 24).await;
        let reached = self.await_step(&operation, moment.0).await;
        tokio::time::sleep(Duration::from_millis(moment.1)).await;
        let struck = self.strike(fault, source, target, &operation).await;
        let watching = Instant::now();
        let mended = Duration::from_secs(if fault == Fault::Link { 12 } else { 1 });
        let mut mend = Some(struck);
        let ended = loop {
            self.consoles.look(&self.cluster, &self.vm);
            self.assert_at_most_one().await;
            if watching.elapsed() > mended
                && let Some(struck) = mend.take()
            {
                self.mend(struck).await;
            }
            if mend.is_none()
                && let Some(ended) = self.ended(&operation).await
            {
                break ended;
            }
            if watching.elapsed() > PATIENCE {
                panic!(
                    "{fault:?} at {moment:?}: it does not end\n{}",
                    self.picture(&operation).await
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        await_phase(&self.client, NAME, "running", PATIENCE).await;
        self.await_one_body().await;
        await_ticks(&self.cluster, &mut self.consoles, &self.vm, 3).await;
        let moves = self.consoles.assert_one_guest() - moves_before;
        let boots = self.boots() - boots_before;
        let hit = if reached { "" } else { " (the step had passed)" };
        format!("{}{hit}, moves {moves}, boots {boots}: {}", ended.status, ended.message)
    }

    /// What is to be seen of a migration that hangs.
    async fn picture(&self, operation: &str) -> String {
        let mut text = format!("{:#?}\n", operation_of(&self.client, operation).await);
        for node in 0..3 {
            let uri = self.cluster.libvirt_uri(node).unwrap();
            for question in [vec!["list", "--all"], vec!["domjobinfo", &self.vm]] {
                let mut virsh = self.cluster.on_host(node, "virsh");
                let said = virsh.args(["-c", &uri]).args(question).output().unwrap();
                text += &String::from_utf8_lossy(&[said.stdout, said.stderr].concat());
            }
            let log = self.cluster.log(node) + &self.cluster.driver_log(node);
            let last: Vec<&str> = log.lines().rev().take(30).collect();
            text += &format!(
                "n{}:\n{}\n",
                node + 1,
                last.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        text
    }

    fn boots(&mut self) -> usize {
        self.consoles.runs().iter().filter(|run| !run.came).count()
    }

    async fn host(&self) -> usize {
        let host = get(&self.client, NAME).await.unwrap().host;
        host[1..].parse::<usize>().unwrap() - 1
    }

    /// Waits for a step; false when it passed too fast to be seen.
    async fn await_step(&self, operation: &str, step: &str) -> bool {
        let begun = Instant::now();
        loop {
            let seen = operation_of(&self.client, operation).await;
            if let Some(seen) = seen {
                if seen.step == step {
                    return true;
                }
                if seen.done || seen.steps.iter().any(|begun| begun.name == step) {
                    return false;
                }
            }
            if begun.elapsed() > PATIENCE {
                panic!("the step {step} does not come\n{}", self.picture(operation).await);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn ended(&self, operation: &str) -> Option<v1::Operation> {
        operation_of(&self.client, operation).await.filter(|seen| seen.done)
    }

    /// The answer is the node that must be started again.
    async fn strike(
        &mut self,
        fault: Fault,
        source: usize,
        target: usize,
        operation: &str,
    ) -> Option<usize> {
        let leader = self.cluster.leader().await.unwrap().unwrap_or(source);
        let node = match fault {
            Fault::SourceNode => source,
            Fault::TargetNode => target,
            Fault::Leader => leader,
            Fault::SourceDriver => return self.cluster.kill_driver(source).map(|()| None).unwrap(),
            Fault::TargetDriver => return self.cluster.kill_driver(target).map(|()| None).unwrap(),
            Fault::SourceLibvirtd => {
                return self.cluster.kill_libvirtd(source).map(|()| None).unwrap();
            }
            Fault::TargetLibvirtd => {
                return self.cluster.kill_libvirtd(target).map(|()| None).unwrap();
            }
            // There may be none there at the moment.
            Fault::SourceGuest => {
                let _ = self.cluster.kill_guest(source, &self.vm);
                return None;
            }
            Fault::TargetGuest => {
                let _ = self.cluster.kill_guest(target, &self.vm);
                return None;
            }
            Fault::Link => {
                self.cluster.cut(&[(source, target), (target, source)]).unwrap();
                return None;
            }
            Fault::Cancel => {
                let _ = cancel(&self.client, operation).await;
                return None;
            }
        };
        self.cluster.kill(node).unwrap();
        Some(node)
    }

    async fn mend(&mut self, node: Option<usize>) {
        self.cluster.heal().unwrap();
        if let Some(node) = node {
            self.cluster.run(node).unwrap();
            self.cluster.await_ready(node).await.unwrap();
        }
    }

    /// Two processes are normal while a guest moves; two that execute never are.
    async fn assert_at_most_one(&self) {
        let here: usize = (0..3).map(|node| self.cluster.guests_of(node, &self.vm).len()).sum();
        assert!(here <= 2, "{here} processes of one guest");
    }

    /// Waits until one process is left, where the state says, and one host's files.
    async fn await_one_body(&self) {
        let begun = Instant::now();
        loop {
            let host = self.host().await;
            let count = |node| self.cluster.guests_of(node, &self.vm).len();
            let guests: Vec<usize> = (0..3).map(count).collect();
            let files = |node: usize| {
                let console = self.cluster.console_file(&format!("h{}", node + 1), &self.vm);
                usize::from(console.parent().unwrap().exists())
            };
            let bodies: Vec<usize> = (0..3).map(files).collect();
            let right = |seen: &[usize]| seen.iter().sum::<usize>() == 1 && seen[host] == 1;
            if right(&guests) && right(&bodies) {
                return;
            }
            let patience = begun.elapsed() < PATIENCE;
            assert!(patience, "on h{}, and {guests:?} guests, {bodies:?} bodies", host + 1);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn operation_of(client: &Client, operation: &str) -> Option<v1::Operation> {
    let request = v1::GetOperationRequest { operation: operation.to_owned(), ..Default::default() };
    let seen = client.call(request, async |channel, request| {
        OperationsClient::new(channel).get_operation(request).await
    });
    seen.await.ok()
}

async fn cancel(client: &Client, operation: &str) -> Result<v1::Outcome, client::Error> {
    let request = v1::CancelOperationRequest {
        mutation: client.mutation().await?,
        operation: operation.to_owned(),
    };
    client
        .call(request, async |channel, request| {
            OperationsClient::new(channel).cancel_operation(request).await
        })
        .await
}

/// Every fault at every moment, or some of them: `MIGRATION_FAULTS=N`, in an order from `SEED`.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_one_guest_is_left() {
    if !possible() {
        return;
    }
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let seed = number("SEED", fastrand::u64(..));
    fastrand::seed(seed);
    let mut cases: Vec<_> =
        FAULTS.iter().flat_map(|fault| MOMENTS.map(|moment| (*fault, moment))).collect();
    fastrand::shuffle(&mut cases);
    let count = usize::try_from(number("MIGRATION_FAULTS", 8)).unwrap();
    let cluster = real_cluster().await;
    let client = cluster.client().unwrap();
    let vm = create_ticking(&client, NAME, vec![v1::Disk { size_mib: 32 }]).await;
    let consoles = Consoles::default();
    let mut trial = Trial { cluster, client, vm, consoles };
    println!("SEED={seed}");
    for (fault, moment) in cases.into_iter().cycle().take(count) {
        let begun = Instant::now();
        println!("{fault:?} at {}+{} ms …", moment.0, moment.1);
        let ended = trial.run(fault, moment).await;
        println!("  {ended} ({:.1?})", begun.elapsed());
    }
    for node in 0..3 {
        let log = trial.cluster.log(node);
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Milliseconds of a day, from an RFC 3339 time.
fn clock_ms(time: &str) -> i64 {
    let part = |range: std::ops::Range<usize>| time[range].parse::<i64>().unwrap();
    ((part(11..13) * 60 + part(14..16)) * 60 + part(17..19)) * 1_000 + part(20..23)
}

/// How long our copy takes beside plain `virsh migrate`, of the same guest by turns: figures, and no
/// verdict. `COMPARE=N` rounds.
#[tokio::test(flavor = "multi_thread")]
async fn beside_plain_virsh() {
    let rounds: usize = std::env::var("COMPARE").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    if rounds == 0 || !possible() {
        return println!("SKIPPED figures beside virsh: set COMPARE to a number of rounds");
    }
    let cluster = real_cluster().await;
    let client = cluster.client().unwrap();
    let vm = create_ticking(&client, "ours", vec![]).await;
    let mut consoles = Consoles::default();
    await_ticks(&cluster, &mut consoles, &vm, 5).await;
    let host: usize = get(&client, "ours").await.unwrap().host[1..].parse().unwrap();
    let (mut here, mut there) = (host - 1, host % 3);
    let virsh = |node: usize, arguments: &[&str]| {
        let uri = cluster.libvirt_uri(node).unwrap();
        let said = cluster.on_host(node, "virsh").args(["-q", "-c", &uri]).args(arguments).output();
        let said = said.unwrap();
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    };
    // The same guest once more, that nobody of ours knows.
    let definition = virsh(here, &["dumpxml", "--migratable", &vm]);
    let name = definition.split("<name>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let foreign = "foreign";
    let definition = definition
        .replace(&format!("bodies/{vm}/"), "foreign-")
        .replace(&vm, &uuid::Uuid::new_v4().to_string())
        .replace(&format!("<name>{name}"), &format!("<name>{foreign}"));
    let file = cluster.access_file().with_file_name("foreign.xml");
    std::fs::write(&file, definition).unwrap();
    virsh(here, &["create", file.to_str().unwrap()]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let target = format!("h{}", there + 1);
        let operation = migrate(&client, "ours", &target, 0).await;
        let ended = client.wait(&operation, PATIENCE, |_| ()).await.unwrap();
        let begun = |step: &str| {
            let step = ended.steps.iter().find(|begun| begun.name == step).unwrap();
            clock_ms(&step.begun_at)
        };
        ours.push(begun("validate") - begun("copy"));
        let address = format!("10.77.0.{}", there + 1);
        let daemon = cluster.migration_uri(there).unwrap();
        let data = format!("tcp://{address}");
        let started = Instant::now();
        virsh(
            here,
            &["migrate", "--live", "--p2p", "--tls", foreign, &daemon, "--migrateuri", &data],
        );
        plain.push(i64::try_from(started.elapsed().as_millis()).unwrap());
        (here, there) = (there, here);
    }
    virsh(here, &["destroy", foreign]);
    ours.sort_unstable();
    plain.sort_unstable();
    let median = |all: &[i64]| all[all.len() / 2];
    println!(
        "copy to switch {} ms beside {} ms of virsh migrate, its process included; medians of \
         {rounds}: {:.2}x\n{ours:?}\n{plain:?}",
        median(&ours),
        median(&plain),
        median(&ours) as f64 / median(&plain) as f64
    );
}
