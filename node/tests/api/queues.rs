//! A thousand operations of all classes, while actors die and leaders go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use client::{Client, Error, v1};
use domain::{
    Revision, State,
    event::Change,
    id::OperationId,
    limit,
    operation::{Class, Kind, Operation, Status},
    table::Row,
};
use tokio::sync::Mutex;
use v1::operations_client::OperationsClient;

use crate::{
    harness::{Lab, create, done, spec},
    kinds::act,
    migration::set,
    stage::all,
};

async fn probe(client: &Client, class: &str) -> Result<v1::Outcome, Error> {
    let request = v1::ProbeHostsRequest {
        mutation: client.mutation().await?,
        hosts: Vec::new(),
        class: class.to_owned(),
    };
    let call = client.call(request, async |channel, request| {
        OperationsClient::new(channel).probe_hosts(request).await
    });
    call.await
}

/// Asks until the VM is free, as a person would; the answer is the operation.
async fn ask(client: &Client, kind: Kind, vm: &str) -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let begun = Instant::now();
    loop {
        match act(client, kind, vm, "").await {
            Ok(outcome) => return Some(outcome.operation),
            Err(error) if error.reason() == "VM_BUSY" && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // A guest that is on its way down and up does not reboot, and so on.
            Err(error) if error.reason() == "VM_STATE" => return None,
            Err(error) => panic!("{kind:?} of {vm}: {error}"),
        }
    }
}

/// Where an operation is in the queue of its class.
fn turn(operation: &Operation) -> (u64, Revision, OperationId) {
    let handicap = u64::from(limit::PRIORITY_MAX - operation.priority);
    (operation.accepted_ms + handicap * limit::PRIORITY_POINT_MS, operation.accepted, operation.id)
}

/// Goes through the whole history: whoever got a worker was before everybody who went on waiting. The answer
/// is how many got one after waiting, and the longest wait by lease time, milliseconds.
fn judge(state: &State, class: Class) -> (usize, u64) {
    let mut waiting: BTreeMap<OperationId, (Arc<Operation>, u64)> = BTreeMap::new();
    let (mut count, mut longest_ms) = (0, 0);
    for event in state.events.iter() {
        let mut admitted = Vec::new();
        for change in &event.changes {
            let Change::Operation(Row::Put(row)) = change else { continue };
            if row.class != class {
                continue;
            }
            let before = waiting.remove(&row.id);
            if row.status == Status::Queued && row.ready {
                let since = before.map_or(event.at_ms, |(_, since)| since);
                waiting.insert(row.id, (row.clone(), since));
            } else if row.status == Status::Running
                && let Some((_, since)) = before
            {
                longest_ms = longest_ms.max(event.at_ms - since);
                admitted.push(row.clone());
            }
        }
        count += admitted.len();
        // Cutting power waits for nobody.
        admitted.retain(|row| !row.kind.definition().is_urgent);
        let last = admitted.iter().map(|row| turn(row)).max();
        let next = waiting.values().map(|(row, _)| turn(row)).min();
        if let (Some(last), Some(next)) = (last, next) {
            assert!(last < next, "{class:?}: {last:?} before {next:?} at {}", event.revision);
        }
    }
    (count, longest_ms)
}

/// `OPERATIONS=…` for more than in a hurry.
#[tokio::test(flavor = "multi_thread")]
async fn every_operation_ends_although_workers_and_leaders_die() {
    let many: usize = std::env::var("OPERATIONS").map_or(1_000, |text| text.parse().unwrap());
    let lab = Lab::start(3, 9, 10).await;
    lab.await_voters(3).await;
    lab.image("tiny").await;
    let client = lab.client();
    // Few workers, so that there are queues.
    for class in Class::ALL {
        set(&client, class.workers().definition().name, 3).await;
        set(&client, class.workers_max().definition().name, 6).await;
    }
    let lab = Arc::new(Mutex::new(lab));
    let over = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn(kill_about(lab.clone(), over.clone()));

    let begun = Instant::now();
    // Each VM goes through six operations; each probe has a part for each of nine hosts.
    let (vms, probes) = (many / 9, many / 40);
    let lives = all((0..vms).collect(), async |n: usize| {
        let vm = format!("vm{n:04}");
        let outcome = create(&client, &vm, spec()).await.unwrap();
        let mut operations = vec![outcome.operation];
        let middle = [Kind::Stop, Kind::Kill, Kind::Reboot, Kind::Pause, Kind::Migrate];
        for step in 0..4 {
            let kind = middle[(n + step) % middle.len()];
            operations.extend(ask(&client, kind, &vm).await);
            if matches!(kind, Kind::Stop | Kind::Kill | Kind::Pause) {
                operations.extend(ask(&client, Kind::Start, &vm).await);
            }
        }
        operations.extend(ask(&client, Kind::Delete, &vm).await);
        operations
    });
    let probes = all((0..probes).collect(), async |n: usize| {
        let class = [Class::MonitoringAlerts, Class::CostAnalysis][n % 2];
        vec![probe(&client, class.as_str()).await.unwrap().operation]
    });
    let (lives, probes) = tokio::join!(lives, probes);
    let operations: Vec<String> = lives.into_iter().chain(probes).flatten().collect();
    let ended = all(operations, async |operation| {
        let outcome = v1::Outcome { operation, ..Default::default() };
        done(&client, &outcome).await
    });
    let mut ends: BTreeMap<(String, String), u32> = BTreeMap::new();
    for row in ended.await {
        *ends.entry((row.class, row.status)).or_default() += 1;
    }
    let took = begun.elapsed();
    over.store(true, Ordering::Relaxed);
    let (actors, leaders) = killer.await.unwrap();

    let lab = Arc::into_inner(lab).unwrap().into_inner();
    let view = lab.cluster.daemons[0].as_ref().unwrap().store.view();
    let state = &view.state;
    assert_eq!(state.open_operations(), 0);
    let all = state.operations.values().count();
    println!(
        "{all} operations in {took:.1?}; {actors} actors and {leaders} leaders died; {ends:?}"
    );
    for class in Class::ALL {
        // A migration gets its worker with its host: whose host is busy is passed over.
        let (count, longest_ms) = match class {
            Class::Migrations => continue,
            Class::VmOperations | Class::MonitoringAlerts | Class::CostAnalysis => {
                judge(state, class)
            }
        };
        println!("{}: {count} waited, the longest {longest_ms} ms", class.as_str());
        assert!(count > 0, "nobody waited in {class:?}");
    }
    let stuck =
        ends.iter().filter(|((_, status), _)| status == "stuck").map(|(_, n)| n).sum::<u32>();
    assert_eq!(stuck, 0, "{ends:?}");
    assert!(all >= many && actors > 0 && leaders > 0);
    lab.cluster.stop().await;
}

/// Kills an actor now and then, and the leader at times; the answer is how many of each.
async fn kill_about(lab: Arc<Mutex<Lab>>, over: Arc<AtomicBool>) -> (u32, u32) {
    let (mut actors, mut leaders) = (0, 0);
    let mut round = 0;
    while !over.load(Ordering::Relaxed) {
        round += 1;
        let mut lab = lab.lock().await;
        if round % 12 == 0 {
            let leader = lab.leader().await;
            lab.cluster.stop_node(leader).await;
            lab.cluster.start_node(leader).await.unwrap();
            leaders += 1;
        }
        let daemon = lab.cluster.daemons[round % 3].as_ref().unwrap();
        let names = daemon.staff().names().await;
        if let Some(name) = names.get(round % names.len().max(1)) {
            daemon.staff().kill(name).await;
            actors += 1;
        }
        drop(lab);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    (actors, leaders)
}
