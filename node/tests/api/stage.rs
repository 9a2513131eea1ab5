//! Where operations are tried: a cluster of simulated hosts whose drivers do what a script says.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use client::Client;
use domain::instance::Body;
use futures_util::{StreamExt, stream};

use crate::{
    harness::{Lab, get},
    migration::{schedule, set},
    scripted::{Fault, Script},
    tally::Tally,
};

/// How a VM is at an end: its phase, and how many bodies it has.
pub type Picture = (&'static str, usize);

pub const GONE: Picture = ("gone", 0);
pub const RUNNING: Picture = ("running", 1);
pub const STOPPED: Picture = ("stopped", 1);
pub const PAUSED: Picture = ("paused", 1);

pub const FAULTS: [Fault; 4] = [Fault::Fails, Fault::AnswerLost, Fault::Twice, Fault::Panics];
/// Nodes of a stage; a host is driven by the one of its number.
pub const NODES: usize = 3;
pub const PATIENCE: Duration = Duration::from_secs(90);

pub struct Stage {
    pub lab: Lab,
    pub client: Client,
    pub script: Arc<Script>,
    pub tally: Arc<Tally>,
}

pub fn host_name(number: usize) -> String {
    format!("host-{:04}", number + 1)
}

impl Stage {
    pub async fn start(hosts: usize, tally: &Arc<Tally>) -> Stage {
        let script = Script::new();
        let over = script.clone();
        let lab = Lab::start_over(NODES, hosts, Arc::new(move |host| over.wrap(host))).await;
        lab.await_voters(NODES).await;
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
        Stage { lab, client, script, tally: tally.clone() }
    }

    /// Lets bodies come to some of these hosts only.
    pub async fn open(&self, hosts: &[String], is_open: impl Fn(&str) -> bool) {
        let verbs = hosts.iter().map(|host| (host, is_open(host))).collect();
        all(verbs, async |(host, is_open)| {
            let verb = if is_open { "uncordon" } else { "cordon" };
            schedule(&self.client, host, verb).await
        })
        .await;
    }

    /// Waits until a VM is as it is to be, in the cluster and on the hosts, and where it may be.
    pub async fn await_vm(
        &self,
        vm: &str,
        expected: Picture,
        may_be_on: impl Fn(&str) -> bool,
        what: &str,
    ) {
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
            let there = bodies.keys().all(|at| *at == host && may_be_on(at));
            if phase == expected.0 && bodies.len() == expected.1 && right && there {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {vm} is {phase} on {host}, {bodies:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// All at one time.
pub async fn all<T, F: Future>(items: Vec<T>, make: impl Fn(T) -> F) -> Vec<F::Output> {
    stream::iter(items).map(make).buffered(64).collect().await
}
