//! Hosts are lost in every way; VMs that may be made anew run elsewhere afterwards, those that are to stay
//! run on where they can, and no two bodies of one VM ever ran at one time.

use std::{
    path::PathBuf,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use client::{Client, v1};
use novacron_lab::{Broken, Cluster, ClusterOptions, Fencing, Hosts};
use v1::{hosts_client::HostsClient, vms_client::VmsClient};

use crate::{
    harness::{await_phase, create, get, options, spec},
    traveller::{possible, real_cluster, real_cluster_of},
    watchdog::has_watchdog,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// How a host is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Everything on it ends at once.
    Power,
    /// Its node is killed, and the guests run on.
    NodeKilled,
    /// Its node stands still, and the guests run on.
    NodePaused,
    /// Its node and its driver stand still, and the driver has a call to make.
    DriverPaused,
    /// Nobody reaches it, and everything on it runs on.
    Cut,
    /// Its node and its guard stand still: only an agent or a watchdog is left.
    GuardPaused,
    /// Its node stands still, and its guard too just before it would end guests.
    GuardPausedLate,
}

/// What guards alone cope with.
const WAYS: &[Way] = &[Way::Power, Way::NodeKilled, Way::NodePaused, Way::DriverPaused, Way::Cut];

/// When a guest's consoles grew: for each host, first and last.
struct Consoles {
    stop: Arc<AtomicBool>,
    watch: JoinHandle<Vec<Option<(Instant, Instant)>>>,
}

impl Consoles {
    fn watch(files: Vec<PathBuf>) -> Consoles {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let watch = std::thread::spawn(move || {
            let length = |file: &PathBuf| std::fs::metadata(file).map_or(0, |file| file.len());
            let mut lengths = vec![0; files.len()];
            let mut grew = vec![None; files.len()];
            while !stopped.load(Ordering::Relaxed) {
                for ((file, before), grew) in files.iter().zip(&mut lengths).zip(&mut grew) {
                    let now = length(file);
                    if now > *before {
                        let at = Instant::now();
                        let first = grew.map_or(at, |(first, _)| first);
                        *grew = Some((first, at));
                    }
                    *before = now;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            grew
        });
        Consoles { stop, watch }
    }

    fn end(self) -> Vec<Option<(Instant, Instant)>> {
        self.stop.store(true, Ordering::Relaxed);
        self.watch.join().unwrap()
    }
}

/// QEMU's own word, from a host's libvirt, of when guests began to execute there or went on.
struct Resumes {
    events: Child,
    said: PathBuf,
}

impl Resumes {
    fn watch(cluster: &Cluster, node: usize) -> Resumes {
        let said = std::env::temp_dir().join(format!("resumes-{}", fastrand::u64(..)));
        let events = cluster
            .on_host(node, "virsh")
            .args(["-c", &cluster.libvirt_uri(node).unwrap()])
            .args(["qemu-monitor-event", "--event", "RESUME", "--loop"])
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(&said).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Resumes { events, said }
    }

    /// How often a VM's guest did.
    fn end(mut self, vm: &str) -> usize {
        self.events.kill().unwrap();
        self.events.wait().unwrap();
        let said = std::fs::read_to_string(&self.said).unwrap();
        std::fs::remove_file(&self.said).unwrap();
        said.lines().filter(|line| line.contains(&format!("'{vm}-"))).count()
    }
}

fn number(host: &str) -> usize {
    host.trim_start_matches('h').parse::<usize>().unwrap() - 1
}

async fn hosts(client: &Client) -> Vec<v1::Host> {
    let call = client.call(v1::ListHostsRequest::default(), async |channel, request| {
        HostsClient::new(channel).list_hosts(request).await
    });
    call.await.unwrap().hosts
}

pub async fn await_hosts(client: &Client, what: &str, good: impl Fn(&v1::Host) -> bool) {
    let begun = Instant::now();
    loop {
        let hosts = hosts(client).await;
        if hosts.iter().all(&good) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "not {what}: {hosts:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn delete(client: &Client, name: &str) {
    let request = v1::DeleteVmRequest {
        mutation: client.mutation().await.unwrap(),
        vm: name.to_owned(),
        ..Default::default()
    };
    let call = client
        .call(request, async |channel, request| VmsClient::new(channel).delete_vm(request).await);
    let outcome = call.await.unwrap();
    client.wait(&outcome.operation, PATIENCE, |_| ()).await.unwrap();
}

pub async fn act(client: &Client, name: &str, verb: &str) {
    let mutation = client.mutation().await.unwrap();
    let (vm, project) = (name.to_owned(), String::new());
    let outcome = if verb == "start" {
        let request = v1::VmActionRequest { mutation, project, vm };
        let call = client.call(request, async |channel, request| {
            VmsClient::new(channel).start_vm(request).await
        });
        call.await
    } else {
        let request = v1::StopVmRequest { mutation, project, vm, force: true };
        let call = client
            .call(request, async |channel, request| VmsClient::new(channel).stop_vm(request).await);
        call.await
    };
    outcome.unwrap();
}

/// A VM that says every tenth of a second that it runs.
fn ticking(failover: &str) -> v1::VmSpec {
    let cmdline = "g.tick=0.1 g.noshell=1".to_owned();
    v1::VmSpec { cmdline, failover: failover.to_owned(), ..spec("tiny") }
}

/// What guards with watchdogs cope with, and what watchdogs have no business with.
const WAYS_WITH_WATCHDOGS: &[Way] = &[Way::GuardPaused, Way::GuardPausedLate, Way::Cut];

/// What agents cope with.
const WAYS_WITH_AGENTS: &[Way] = &[Way::Cut, Way::GuardPaused, Way::Power];

/// One host is lost and comes back; the answer is how long `web` was away. Where there are agents the host
/// is off afterwards, however it was lost; where there are watchdogs, only if its guard stood still.
async fn lose(cluster: &mut Cluster, way: Way, fencing: Fencing, round: usize) -> Duration {
    let client = cluster.client().unwrap();
    let agents = fencing == Fencing::GuardsAndAgents;
    let level = if fencing == Fencing::Watchdogs { "watchdog" } else { "guard" };
    await_hosts(&client, level, |host| host.status == "ready" && host.fencing == level).await;
    let web = get(&client, "web").await.unwrap();
    let victim = number(&web.host);
    let stays = format!("stays{round}");
    create(&client, &stays, v1::VmSpec { host: web.host.clone(), ..ticking("stay") })
        .await
        .unwrap();
    await_phase(&client, &stays, "running", PATIENCE).await;
    let stays_id = get(&client, &stays).await.unwrap().id;
    let stays_pids = cluster.guests_of(victim, &stays_id);
    assert_eq!(stays_pids.len(), 1);
    let files = (1..=3).map(|host| cluster.console_file(&format!("h{host}"), &web.id));
    let consoles = Consoles::watch(files.collect());
    tokio::time::sleep(Duration::from_secs(1)).await;

    let resumes = Resumes::watch(cluster, victim);
    let others = cluster.client_without(victim).unwrap();
    let resets = cluster.watchdog_resets(victim);
    let lost = Instant::now();
    match way {
        Way::Power => assert!(cluster.cut_host(victim).unwrap() >= 4),
        Way::NodeKilled => {
            cluster.kill(victim).unwrap();
        }
        Way::NodePaused => cluster.pause(victim).unwrap(),
        Way::DriverPaused => {
            act(&client, "web", "stop").await;
            await_phase(&client, "web", "stopped", PATIENCE).await;
            cluster.pause_driver(victim).unwrap();
            act(&client, "web", "start").await;
            // The call is on its way by then.
            tokio::time::sleep(Duration::from_secs(2)).await;
            cluster.pause(victim).unwrap();
        }
        Way::Cut => cluster.isolate(&[victim]).unwrap(),
        Way::GuardPaused => {
            cluster.pause(victim).unwrap();
            cluster.pause_guard(victim).unwrap();
        }
        Way::GuardPausedLate => {
            cluster.pause(victim).unwrap();
            // The guard's deadline is 16 s after a renewal that may be a second old.
            tokio::time::sleep(Duration::from_secs(14)).await;
            cluster.pause_guard(victim).unwrap();
        }
    }
    let away = await_elsewhere(&others, "web", &web.host, lost).await;
    if way == Way::Cut {
        assert!(cluster.dropped().unwrap() > 0, "nothing was dropped");
    }
    let elsewhere = get(&others, "web").await.unwrap();
    await_tick(cluster, &elsewhere.host, &web.id).await;
    let left = cluster.guests_of(victim, &web.id);
    assert!(left.is_empty(), "{left:?} runs on the lost host:\n{}", cluster.guard_log(victim));
    let guard_paused = matches!(way, Way::GuardPaused | Way::GuardPausedLate);
    let survives = way != Way::Power && !guard_paused && !agents;
    let known = hosts(&others).await.into_iter().find(|host| host.name == web.host).unwrap();
    let by = if agents { "agent" } else { "guard" };
    assert_eq!((&*known.status, &*known.ended), ("lost", by));
    let was_reset = fencing == Fencing::Watchdogs && guard_paused;
    assert_eq!(cluster.watchdog_resets(victim) - resets, usize::from(was_reset), "{way:?}");
    if survives {
        assert_eq!(cluster.guests_of(victim, &stays_id), stays_pids, "what stays was ended");
        assert_eq!(get(&others, &stays).await.unwrap().phase, "unknown");
    }

    match way {
        _ if agents => {
            cluster.heal().unwrap();
            cluster.boot_host(victim).unwrap();
        }
        Way::Power | Way::GuardPaused | Way::GuardPausedLate => cluster.boot_host(victim).unwrap(),
        Way::NodeKilled => cluster.run(victim).unwrap(),
        Way::NodePaused => cluster.resume(victim).unwrap(),
        Way::DriverPaused => {
            cluster.resume(victim).unwrap();
            // The host is driven again before the late call is made.
            tokio::time::sleep(Duration::from_secs(3)).await;
            cluster.resume_driver(victim).unwrap();
        }
        Way::Cut => cluster.heal().unwrap(),
    }
    await_hosts(&client, "ready", |host| host.status == "ready").await;
    await_phase(&client, &stays, "running", PATIENCE).await;
    if survives {
        assert_eq!(cluster.guests_of(victim, &stays_id), stays_pids, "what stays was started anew");
    }
    await_gone(cluster, victim, &web.id).await;
    let (grew, resumed) = (consoles.end(), resumes.end("web"));
    assert_eq!(resumed, 0, "{way:?}: its guest was started on the lost host too");
    let (_, last) = grew[victim].expect("it ticked");
    let (first, _) = grew[number(&elsewhere.host)].expect("it ticks");
    assert!(last < first, "{way:?}: two bodies ran at one time, for {:?}", last - first);
    let witness = cluster.witness(&web.id).unwrap();
    assert_eq!(witness.overlaps(), [], "{way:?}");
    println!(
        "{way:?}: last word after {:.1} s, runs elsewhere after {:.1} s, gap {:.1} s",
        (last - lost).as_secs_f64(),
        away.as_secs_f64(),
        (first - last).as_secs_f64(),
    );
    delete(&client, &stays).await;
    away
}

pub async fn await_elsewhere(client: &Client, vm: &str, host: &str, lost: Instant) -> Duration {
    loop {
        let vm = get(client, vm).await.unwrap();
        if vm.phase == "running" && vm.host != host {
            return lost.elapsed();
        }
        assert!(lost.elapsed() < PATIENCE, "not started elsewhere: {vm:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn await_tick(cluster: &Cluster, host: &str, vm: &str) {
    let (begun, file) = (Instant::now(), cluster.console_file(host, vm));
    while !std::fs::read_to_string(&file).unwrap_or_default().contains("tick ") {
        assert!(begun.elapsed() < PATIENCE, "the guest does not tick: {file:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What was left on the lost host is removed, and no late call brings it back.
async fn await_gone(cluster: &Cluster, node: usize, vm: &str) {
    let begun = Instant::now();
    while cluster.body_directory(node, vm).exists() {
        assert!(begun.elapsed() < PATIENCE, "what was left was not removed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(cluster.guests_of(node, vm).is_empty());
}

/// FAILOVER_ROUNDS=20 loses a host so often in each way, FAILOVER_WAYS=Cut,Power in these alone.
async fn lose_hosts(fencing: Fencing, ways: &[Way]) {
    if !possible("lost hosts with real guests") {
        return;
    }
    let rounds = std::env::var("FAILOVER_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let mut cluster = real_cluster(fencing, Broken::Nothing).await;
    let client = cluster.client().unwrap();
    create(&client, "web", ticking("rebuild")).await.unwrap();
    await_phase(&client, "web", "running", PATIENCE).await;
    let only = std::env::var("FAILOVER_WAYS").unwrap_or_default();
    let wanted =
        |way: &&Way| only.is_empty() || only.split(',').any(|name| name == format!("{way:?}"));
    for way in ways.iter().filter(wanted) {
        let mut took = Vec::new();
        for round in 0..rounds {
            took.push(lose(&mut cluster, *way, fencing, round).await);
        }
        took.sort();
        let at = |percent: usize| took[(took.len() * percent).div_ceil(100).max(1) - 1];
        println!("{way:?} × {rounds}, {fencing:?}: p50 {:.1?}, p95 {:.1?}", at(50), at(95));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_host_costs_no_guest_and_doubles_none() {
    lose_hosts(Fencing::Guards, WAYS).await;
}

/// A guard whose clock is slow counts to its deadline for longer than it should, and is done in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_clock_costs_no_guest_and_doubles_none() {
    if !possible("a lost host whose clock is slow") {
        return;
    }
    let slow =
        ClusterOptions { slow_clock: Some(2), fencing: Fencing::Guards, ..options(Hosts::Real) };
    let mut cluster = real_cluster_of(slow).await;
    let client = cluster.client().unwrap();
    let others = ["h1", "h2"];
    for host in others {
        cluster.novacron(0, &["host", "cordon", host]).unwrap();
    }
    create(&client, "web", ticking("rebuild")).await.unwrap();
    await_phase(&client, "web", "running", PATIENCE).await;
    for host in others {
        cluster.novacron(0, &["host", "uncordon", host]).unwrap();
    }
    assert_eq!(get(&client, "web").await.unwrap().host, "h3");
    lose(&mut cluster, Way::Cut, Fencing::Guards, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_faster_than_a_lease() {
    lose_hosts(Fencing::GuardsAndAgents, WAYS_WITH_AGENTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watchdog_covers_a_guard_that_stands_still() {
    if !has_watchdog() {
        return;
    }
    lose_hosts(Fencing::Watchdogs, WAYS_WITH_WATCHDOGS).await;
}
