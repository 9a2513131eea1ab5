//! Migrations between simulated hosts: where they go, how they wait, how they are undone.

use std::time::Duration;

use client::{Client, Error, v1};
use domain::{limit, operation::Kind};
use v1::{
    hosts_client::HostsClient, operations_client::OperationsClient,
    settings_client::SettingsClient, vms_client::VmsClient,
};

use crate::{
    harness::{Lab, create, done, get, spec},
    kinds::act,
};

pub async fn migrate(
    client: &Client,
    vm: &str,
    host: &str,
    priority: u32,
) -> Result<v1::Outcome, Error> {
    let request = v1::MigrateVmRequest {
        mutation: client.mutation().await?,
        vm: vm.to_owned(),
        host: host.to_owned(),
        priority,
        ..Default::default()
    };
    let call = client
        .call(request, async |channel, request| VmsClient::new(channel).migrate_vm(request).await);
    let outcome = call.await?;
    client.note(outcome.revision);
    Ok(outcome)
}

pub async fn set(client: &Client, setting: &str, value: u64) {
    let request = v1::SetSettingRequest {
        mutation: client.mutation().await.unwrap(),
        setting: setting.to_owned(),
        value: Some(value),
    };
    let set = client.call(request, async |channel, request| {
        SettingsClient::new(channel).set_setting(request).await
    });
    client.note(set.await.unwrap().revision);
}

pub async fn cancel(client: &Client, operation: &str) -> Result<v1::Outcome, Error> {
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

#[tokio::test(flavor = "multi_thread")]
async fn guests_move_wait_and_are_called_back() {
    let lab = Lab::start(3, 3, 0).await;
    lab.await_voters(3).await;
    lab.image("tiny").await;
    let client = lab.client();
    for n in 0..4 {
        let outcome = create(&client, &format!("vm{n}"), spec()).await.unwrap();
        done(&client, &outcome).await;
    }

    // To the host that was named, and to any other.
    let from = get(&client, "vm0").await.unwrap();
    let to = ["host-0001", "host-0002"].into_iter().find(|host| *host != from.host).unwrap();
    let outcome = migrate(&client, "vm0", to, 0).await.unwrap();
    let ended = done(&client, &outcome).await;
    assert_eq!((ended.status.as_str(), ended.message.as_str()), ("done", ""));
    let steps: Vec<&str> = ended.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["reserve", "prepare", "copy", "validate", "retire"]);
    let moved = get(&client, "vm0").await.unwrap();
    assert_eq!((moved.host.as_str(), moved.phase.as_str()), (to, "running"));
    assert_ne!(moved.instance, from.instance);
    let outcome = migrate(&client, "vm0", "", 0).await.unwrap();
    assert_eq!(done(&client, &outcome).await.status, "done");
    assert_ne!(get(&client, "vm0").await.unwrap().host, to);

    // What cannot be.
    let here = get(&client, "vm0").await.unwrap().host;
    let refused = migrate(&client, "vm0", &here, 0).await.unwrap_err();
    assert_eq!(refused.reason(), "HOST_UNFIT", "{refused}");
    let refused = migrate(&client, "vm0", "nowhere", 0).await.unwrap_err();
    assert_eq!(refused.reason(), "NOT_FOUND", "{refused}");
    let refused = migrate(&client, "vm0", "", 101).await.unwrap_err();
    assert_eq!(refused.violations()[0].0, "priority", "{refused}");

    // Without a slot they wait; the higher priority goes first, then the older.
    set(&client, "migrations-workers", 0).await;
    let mut waiting = Vec::new();
    for (vm, priority) in [("vm0", 0), ("vm1", 5), ("vm2", 9), ("vm3", 5)] {
        waiting.push(migrate(&client, vm, "", priority).await.unwrap());
    }
    let refused = migrate(&client, "vm0", "", 0).await.unwrap_err();
    assert_eq!(refused.reason(), "VM_BUSY", "{refused}");
    set(&client, "migrations-queued-max", 4).await;
    let outcome = create(&client, "vm4", spec()).await.unwrap();
    done(&client, &outcome).await;
    let refused = migrate(&client, "vm4", "", 0).await.unwrap_err();
    assert_eq!(refused.reason(), "QUEUE_FULL", "{refused}");
    cancel(&client, &waiting[0].operation).await.unwrap();
    set(&client, "migrations-workers", 1).await;
    let mut ended = Vec::new();
    for outcome in &waiting {
        ended.push(done(&client, outcome).await);
    }
    assert_eq!((ended[0].status.as_str(), ended[0].message.as_str()), ("rolled_back", "cancelled"));
    let mut order: Vec<&v1::Operation> = ended[1..].iter().collect();
    order.sort_by_key(|operation| operation.steps[1].begun_at.clone());
    let order: Vec<&str> = order.iter().map(|operation| operation.vm.as_str()).collect();
    assert_eq!(order, ["vm2", "vm1", "vm3"]);

    // Where no host can take it, it says why, and can be called back.
    let big = v1::VmSpec { memory_mib: 700_000, ..spec() };
    let outcome = create(&client, "big", big.clone()).await.unwrap();
    done(&client, &outcome).await;
    for n in 0..2 {
        let outcome = create(&client, &format!("big{n}"), big.clone()).await.unwrap();
        done(&client, &outcome).await;
    }
    let outcome = migrate(&client, "big", "", 0).await.unwrap();
    let begun = std::time::Instant::now();
    loop {
        let request =
            v1::GetOperationRequest { operation: outcome.operation.clone(), ..Default::default() };
        let seen = client.call(request, async |channel, request| {
            OperationsClient::new(channel).get_operation(request).await
        });
        let seen = seen.await.unwrap();
        if seen.message.contains("without enough memory") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{seen:?}");
    }
    cancel(&client, &outcome.operation).await.unwrap();
    assert_eq!(done(&client, &outcome).await.status, "rolled_back");
    assert_eq!(get(&client, "big").await.unwrap().phase, "running");
    lab.cluster.stop().await;
}

/// Cordons, drains or uncordons a host.
pub async fn schedule(client: &Client, host: &str, verb: &str) -> v1::Outcome {
    let mutation = client.mutation().await.unwrap();
    let request = v1::ScheduleHostRequest { mutation, host: host.to_owned() };
    let call = client.call(request, async |channel, request| {
        let mut hosts = HostsClient::new(channel);
        match verb {
            "cordon" => hosts.cordon_host(request).await,
            "drain" => hosts.drain_host(request).await,
            "restore" => hosts.restore_host(request).await,
            _ => hosts.uncordon_host(request).await,
        }
    });
    let outcome = call.await.unwrap();
    client.note(outcome.revision);
    outcome
}

pub async fn host(client: &Client, name: &str) -> v1::Host {
    let request = v1::GetHostRequest { host: name.to_owned(), ..Default::default() };
    let seen = client
        .call(request, async |channel, request| HostsClient::new(channel).get_host(request).await);
    seen.await.unwrap()
}

async fn fates(client: &Client, name: &str) -> Vec<(String, String)> {
    let request = v1::PreviewDrainRequest { host: name.to_owned() };
    let seen = client.call(request, async |channel, request| {
        HostsClient::new(channel).preview_drain(request).await
    });
    seen.await.unwrap().vms.into_iter().map(|row| (row.vm, row.fate)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_host_is_left_by_all_that_can_leave() {
    let lab = Lab::start(3, 3, 0).await;
    lab.await_voters(3).await;
    lab.image("tiny").await;
    let client = lab.client();
    for n in 0..12 {
        let outcome = create(&client, &format!("vm{n}"), spec()).await.unwrap();
        done(&client, &outcome).await;
    }
    let name = "host-0001";
    let before = host(&client, name).await.vms;
    assert!(before >= 3, "only {before} VMs came to it");
    let mut residents = Vec::new();
    for n in 0..12 {
        let vm = get(&client, &format!("vm{n}")).await.unwrap();
        residents.extend((vm.host == name).then_some(vm.name));
    }
    let pinned = v1::VmSpec { host: name.to_owned(), ..spec() };
    let outcome = create(&client, "pinned", pinned).await.unwrap();
    done(&client, &outcome).await;
    let previewed = fates(&client, name).await;
    let leave = previewed.iter().filter(|(_, fate)| fate == "leaves").count();
    assert_eq!(leave, usize::try_from(before).unwrap(), "{previewed:?}");

    let drain = schedule(&client, name, "drain").await;
    let begun = std::time::Instant::now();
    while fates(&client, name).await != [("pinned".to_owned(), "stays".to_owned())] {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", fates(&client, name).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(host(&client, name).await.schedule, "draining");
    println!("{before} guests left in {:.1?}", begun.elapsed());
    for n in 0..12 {
        let vm = loop {
            let vm = get(&client, &format!("vm{n}")).await.unwrap();
            if vm.phase == "running" {
                break vm;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{vm:?}");
        };
        assert_ne!(vm.host, name);
    }

    // Nobody comes to it, not even who may go nowhere else.
    let refused = migrate(&client, "pinned", "", 0).await.unwrap_err();
    assert_eq!(refused.reason(), "VM_STATE", "{refused}");
    let delete = v1::DeleteVmRequest {
        mutation: client.mutation().await.unwrap(),
        vm: "pinned".to_owned(),
        ..Default::default()
    };
    let deleted = client
        .call(delete, async |channel, request| VmsClient::new(channel).delete_vm(request).await);
    done(&client, &deleted.await.unwrap()).await;
    assert_eq!(host(&client, name).await.schedule, "drained");
    assert_eq!(done(&client, &drain).await.status, "done");
    let outcome = create(&client, "late", spec()).await.unwrap();
    done(&client, &outcome).await;
    assert_ne!(get(&client, "late").await.unwrap().host, name);

    // Those come home that left, but for one that was moved by hand since.
    let moved = residents.pop().unwrap();
    let outcome = migrate(&client, &moved, "", 0).await.unwrap();
    assert_eq!(done(&client, &outcome).await.status, "done");
    let restored = std::time::Instant::now();
    let restore = schedule(&client, name, "restore").await;
    let ended = done(&client, &restore).await;
    assert_eq!((ended.kind.as_str(), ended.status.as_str()), ("restore", "done"), "{ended:?}");
    for n in 0..12 {
        let vm = get(&client, &format!("vm{n}")).await.unwrap();
        assert_eq!(vm.host == name, residents.contains(&vm.name), "{vm:?}");
    }
    let again = schedule(&client, name, "restore").await;
    assert_eq!(done(&client, &again).await.message, "no VM is to come back to it");

    // Who has just come leaves again, stopped or not: only who failed to leave waits before it tries again.
    let stopped = act(&client, Kind::Stop, &residents[0], "").await.unwrap();
    assert_eq!(done(&client, &stopped).await.status, "done");
    let pause = Duration::from_millis(limit::EVACUATION_PAUSE_MS);
    let drain = schedule(&client, name, "drain").await;
    // Who waited after it had come back would not have left by then.
    let within = pause.saturating_sub(restored.elapsed()).max(pause / 2);
    let drained = client.wait(&drain.operation, within, |_| ()).await.unwrap();
    assert_eq!(drained.status, "done");
    let left = get(&client, &residents[0]).await.unwrap();
    assert_eq!(left.phase, "stopped");
    assert_ne!(left.host, name);
    lab.cluster.stop().await;
}
