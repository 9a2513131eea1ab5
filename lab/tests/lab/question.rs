//! Why a guest stands still, asked of those who can tell.

use std::time::{Duration, Instant};

use client::v1;
use novacron_lab::{Cluster, Hosts};
use serde_json::{Value, json};

use crate::{
    harness::{cluster_of, guest, spec},
    traveller::{Traveller, possible},
};

/// How long a kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

impl Traveller {
    /// What shows that it was QEMU that damaged this guest, which stands still: its kernel says so, or nothing is
    /// left that any other could have done. Those who could are asked one after the other: it has been in another
    /// QEMU, one executes it, nobody else ever did at the same time, its disks owe it nothing, and its kernel
    /// answers while its processes wait for what does not come.
    ///
    /// # Errors
    /// With the one that may be to blame instead.
    pub fn damage(&mut self, cluster: &Cluster) -> Result<String, String> {
        if let Some(said) = self.consoles.crash() {
            return Ok(said);
        }
        let hosts = 0..cluster.access.endpoints.len();
        let here: Vec<usize> =
            hosts.filter(|node| !cluster.guests_of(*node, &self.id).is_empty()).collect();
        let &[home] = &*here else { return Err(format!("its QEMUs are on hosts {here:?}")) };
        let processes = cluster.witness(&self.id).map_err(|why| format!("{why:#}"))?.processes;
        if processes.len() < 2 {
            return Err("it has always been in the same QEMU".to_owned());
        }
        let complaints = self.complaints(cluster);
        if !complaints.is_empty() {
            return Err(format!("{complaints:#?}"));
        }
        owes_nothing(cluster, home, &self.id)?;
        self.kernel_answers(cluster, home)
    }

    /// Waits until it has ticked in so many boots.
    async fn await_boots(&mut self, cluster: &Cluster, count: usize) {
        let begun = Instant::now();
        while self.consoles.boots() < count {
            assert!(begun.elapsed() < PATIENCE * 2, "{} does not come up", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.consoles.look(cluster, &self.id);
        }
    }

    /// Interrupts its processor in a way that a kernel does not ignore, and waits for what it says to that.
    fn kernel_answers(&mut self, cluster: &Cluster, home: usize) -> Result<String, String> {
        const ANSWER: &str = "NMI received";
        // It may have been asked before.
        self.consoles.look(cluster, &self.id);
        let before = self.consoles.count(ANSWER);
        cluster
            .virsh(home, &["inject-nmi", &self.id])
            .map_err(|why| format!("it cannot be interrupted: {why:#}"))?;
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            self.consoles.look(cluster, &self.id);
            if self.consoles.count(ANSWER) > before {
                return Ok("its kernel answers, its processes wait for what was lost".to_owned());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("its kernel does not answer: nobody executes it".to_owned())
    }
}

/// What a guest's QEMU says to a command.
fn ask_qemu(
    cluster: &Cluster,
    home: usize,
    vm: &str,
    command: &str,
    arguments: Value,
) -> Result<Value, String> {
    let command = json!({"execute": command, "arguments": arguments}).to_string();
    let said = cluster.virsh(home, &["qemu-monitor-command", vm, &command]);
    let said = said.map_err(|why| format!("QEMU does not answer: {why:#}"))?;
    let mut said: Value = serde_json::from_str(&said).map_err(|why| format!("{why}: {said}"))?;
    if said["error"].is_null() { Ok(said["return"].take()) } else { Err(said.to_string()) }
}

/// Where a guest's QEMU has its disks.
fn disks(cluster: &Cluster, home: usize, vm: &str) -> Result<Vec<String>, String> {
    let devices = ask_qemu(cluster, home, vm, "x-query-virtio", json!({}))?;
    let devices = devices.as_array().into_iter().flatten();
    let disks = devices.filter(|device| device["name"] == "virtio-blk");
    Ok(disks.filter_map(|disk| disk["path"].as_str().map(str::to_owned)).collect())
}

/// Whether QEMU has answered all that a guest has asked its disks for.
fn owes_nothing(cluster: &Cluster, home: usize, vm: &str) -> Result<(), String> {
    for path in disks(cluster, home, vm)? {
        let queue = json!({"path": path, "queue": 0});
        let seen = ask_qemu(cluster, home, vm, "x-query-virtio-queue-status", queue)?;
        if seen["inuse"] != 0 {
            return Err(format!("a disk does not answer: {seen}"));
        }
    }
    Ok(())
}

/// Guests that stand still for reasons of which only one is QEMU's.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_stands_still_is_asked_why() {
    if !possible("why a guest stands still") {
        return;
    }
    let cluster = cluster_of(1, Hosts::Real).await;
    let client = cluster.client().unwrap();
    guest().import(&cluster, "tiny").unwrap();
    let asleep = "g.tick=3600 g.noshell=1 g.witness=1".to_owned();
    let asleep = v1::VmSpec { cmdline: asleep, ..spec("tiny") };
    let mut asleep = Traveller::create_from(&client, "asleep", asleep).await;
    let mut awake = Traveller::create(&client, "awake", "", Vec::new()).await;
    for guest in [&mut asleep, &mut awake] {
        guest.await_boots(&cluster, 1).await;
        let why = guest.damage(&cluster).unwrap_err();
        assert!(why.contains("the same QEMU"), "{why}");
        cluster.novacron(0, &["vm", "stop", &guest.name, "--force"]).unwrap();
        cluster.novacron(0, &["vm", "start", &guest.name]).unwrap();
        guest.await_boots(&cluster, 2).await;
    }
    let id = awake.id.clone();

    // What it wrote with its first tick is on its disk by now, and it asks for nothing more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let said = asleep.damage(&cluster).unwrap();
    assert!(said.contains("its kernel answers"), "{said}");

    cluster.novacron(0, &["vm", "pause", "awake"]).unwrap();
    let why = awake.damage(&cluster).unwrap_err();
    assert!(why.contains("its kernel does not answer"), "{why}");
    cluster.novacron(0, &["vm", "resume", "awake"]).unwrap();
    assert!(awake.goes_on(&cluster, 1).await);

    // A byte a second.
    let (mut limits, ledger) = (serde_json::Map::new(), disks(&cluster, 0, &id).unwrap().remove(0));
    for limit in ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"] {
        limits.insert(limit.to_owned(), u8::from(limit == "bps").into());
    }
    limits.insert("id".to_owned(), ledger.into());
    ask_qemu(&cluster, 0, &id, "block_set_io_throttle", limits.into()).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let why = awake.damage(&cluster).unwrap_err();
    assert!(why.contains("a disk does not answer"), "{why}");
}
