//! Probes: whatever becomes of the question to a host's driver, each ends with an answer or says that there
//! is none, and what was called off stays so, whatever comes late.

use std::sync::Arc;

use client::{Client, v1};
use v1::operations_client::OperationsClient;

use crate::{
    failover::await_host,
    migration::{cancel, host},
    scripted::{Fault, until},
    stage::{FAULTS, NODES, PATIENCE, Stage, all, host_name},
    tally::Tally,
};

/// Questions after which a driver counts as one that does not answer.
const TRIES: usize = 3;
/// One for each trial of the largest round, and the first.
const HOSTS: usize = 18;
/// It is asked with each of the others, and always answers.
const WELL: usize = 0;

/// A probe of two hosts; of the one, the question numbered `at` is struck, and those before it failed.
struct Trial {
    host: String,
    at: usize,
    fault: Fault,
    operation: String,
}

fn trials(first: usize, faults: &[Fault]) -> Vec<(usize, usize, Fault)> {
    let rows = (0..TRIES).flat_map(|at| faults.iter().map(move |fault| (at, *fault)));
    rows.enumerate().map(|(n, (at, fault))| (first + n, at, fault)).collect()
}

async fn probe(client: &Client, hosts: Vec<String>) -> v1::Outcome {
    let mutation = client.mutation().await.unwrap();
    let request = v1::ProbeHostsRequest { mutation, hosts, class: "monitoring-alerts".to_owned() };
    let call = client.call(request, async |channel, request| {
        OperationsClient::new(channel).probe_hosts(request).await
    });
    let outcome = call.await.unwrap();
    client.note(outcome.revision);
    outcome
}

async fn retry(client: &Client, operation: &str) -> v1::Outcome {
    let mutation = client.mutation().await.unwrap();
    let request = v1::RetryOperationRequest { mutation, operation: operation.to_owned() };
    let call = client.call(request, async |channel, request| {
        OperationsClient::new(channel).retry_operation(request).await
    });
    call.await.unwrap()
}

/// The part of a probe that is of this host.
async fn part_of(client: &Client, operation: &str, host: &str) -> v1::Operation {
    let filter = format!("parent={operation} AND host={host}");
    let page = Some(v1::Page { filter, ..Default::default() });
    let request = v1::ListOperationsRequest { page, ..Default::default() };
    let call = client.call(request, async |channel, request| {
        OperationsClient::new(channel).list_operations(request).await
    });
    let mut parts = call.await.unwrap().operations;
    assert_eq!(parts.len(), 1, "of {operation} on {host}");
    parts.remove(0)
}

pub async fn strike(tally: &Arc<Tally>) {
    let mut stage = Stage::start(HOSTS, tally).await;
    for number in 0..HOSTS {
        await_host(&stage.client, &host_name(number), |host| host.fencing == "guard").await;
    }
    // Each question struck in each way, or never answered.
    stage.script.hold();
    let mut faults = FAULTS.to_vec();
    faults.push(Fault::Holds);
    all(trials(1, &faults), async |(number, at, fault)| {
        let trial = ask(&stage, number, at, fault).await;
        check(&stage, &trial).await;
    })
    .await;
    stage.script.release();

    // Called off while it is asked. The answer comes late, and nobody asks again.
    stage.script.hold();
    let asked = all(trials(1, &[Fault::Holds]), async |(number, at, fault)| {
        let trial = ask(&stage, number, at, fault).await;
        await_struck(&stage, &trial).await;
        cancel(&stage.client, &trial.operation).await.unwrap();
        trial
    })
    .await;
    stage.script.release();
    all(asked, async |trial| check_off(&stage, &trial).await).await;

    // The leader is lost while hosts of others are asked; the host, for a moment and for longer than its
    // lease.
    let leader = stage.lab.leader().await;
    lose(&mut stage, leader, (leader + 1) % NODES, "leader lost").await;
    lose(&mut stage, (leader + 1) % NODES, (leader + 1) % NODES, "host lost (on)").await;
    lose(&mut stage, (leader + 2) % NODES, (leader + 2) % NODES, "host lost, lapsed (on)").await;
    stage.lab.cluster.stop().await;
}

async fn ask(stage: &Stage, number: usize, at: usize, fault: Fault) -> Trial {
    let host = host_name(number);
    stage.script.arm_after(&host, at, fault, Fault::Fails);
    let hosts = vec![host.clone(), host_name(WELL)];
    let operation = probe(&stage.client, hosts).await.operation;
    Trial { host, at, fault, operation }
}

async fn await_struck(stage: &Stage, trial: &Trial) {
    until("the question", async || stage.script.struck(&trial.host).is_some()).await;
}

fn note(stage: &Stage, trial: &Trial, way: &str) {
    let call = stage.script.struck(&trial.host).expect("it was asked so often");
    stage.tally.note("probe", format!("{call}-{}", trial.at + 1), way);
}

/// It has its answer, or says that there is none; then it has one when it is asked again.
async fn check(stage: &Stage, trial: &Trial) {
    let Trial { host, at, fault, operation } = trial;
    let what = format!("probe of {host} at question {at} {fault:?}");
    let whole = stage.client.wait(operation, PATIENCE, |_| ()).await.unwrap();
    let part = part_of(&stage.client, operation, host).await;
    let is_failure = matches!(fault, Fault::Fails | Fault::AnswerLost | Fault::Holds);
    let failures = at + usize::from(is_failure);
    assert_eq!(part.failures as usize, failures, "{what}: {part:?}");
    if failures == TRIES {
        assert_eq!((&*part.status, &*whole.status), ("stuck", "stuck"), "{what}: {part:?}");
        let why = match fault {
            Fault::Holds => "no answer in",
            Fault::AnswerLost => "lost",
            Fault::None | Fault::Fails | Fault::Twice | Fault::Panics => "fails",
        };
        assert!(part.message.contains(why), "{what}: {}", part.message);
        retry(&stage.client, &part.id).await;
        let again = stage.client.wait(&part.id, PATIENCE, |_| ()).await.unwrap();
        assert_eq!(again.status, "done", "{what}: {again:?}");
    } else {
        assert_eq!((&*part.status, &*whole.status), ("done", "done"), "{what}: {part:?}");
        assert!(part.message.starts_with("answered in"), "{what}: {}", part.message);
    }
    let well = part_of(&stage.client, operation, &host_name(WELL)).await;
    assert_eq!((&*well.status, well.failures), ("done", 0), "{what}: {well:?}");
    // One that panics has not answered, and is asked again. A host that takes its lease up anew asks too.
    let more = usize::from(is_failure || *fault == Fault::Panics);
    assert!(stage.script.calls(host).len() > at + more, "{what}");
    note(stage, trial, &format!("{fault:?}"));
}

/// It was called off, stays so although the answer came, and the host answers the next.
async fn check_off(stage: &Stage, trial: &Trial) {
    let Trial { host, at, operation, .. } = trial;
    let next = probe(&stage.client, vec![host.clone()]).await.operation;
    let next = stage.client.wait(&next, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(next.status, "done", "{host}: {next:?}");
    let whole = stage.client.wait(operation, PATIENCE, |_| ()).await.unwrap();
    let part = part_of(&stage.client, operation, host).await;
    for row in [&whole, &part] {
        assert_eq!((&*row.status, &*row.message), ("rolled_back", "cancelled"), "{row:?}");
    }
    assert!(stage.script.calls(host).len() > at + 1, "{host}: only the first was asked");
    note(stage, trial, "called off, None");
}

/// A node is lost while hosts of one are asked.
async fn lose(stage: &mut Stage, lost: usize, asked_of: usize, way: &str) {
    stage.lab.await_voters(NODES).await;
    stage.script.hold();
    let numbers: Vec<usize> =
        (1..HOSTS).filter(|number| number % NODES == asked_of).take(TRIES).collect();
    let trials = all(numbers.into_iter().enumerate().collect(), async |(at, number)| {
        let trial = ask(stage, number, at, Fault::Holds).await;
        await_struck(stage, &trial).await;
        trial
    })
    .await;
    stage.lab.cluster.stop_node(lost).await;
    stage.script.release();
    if way.contains("lapsed") {
        let client = &stage.client;
        until("the loss", async || host(client, &trials[0].host).await.status == "lost").await;
    }
    stage.lab.cluster.start_node(lost).await.unwrap();
    let stage = &*stage;
    all(trials, async |trial| {
        let whole = stage.client.wait(&trial.operation, PATIENCE, |_| ()).await.unwrap();
        let part = part_of(&stage.client, &trial.operation, &trial.host).await;
        assert_eq!(whole.status, "done", "{way}: {part:?}");
        assert!(part.message.starts_with("answered in"), "{way}: {part:?}");
        assert_eq!(part.failures as usize, trial.at, "{way}: {part:?}");
        note(stage, &trial, way);
    })
    .await;
}
