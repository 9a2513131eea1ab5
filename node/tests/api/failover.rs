//! Hosts that are lost: what becomes of their VMs, and what people are told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use client::{Client, Error, v1};
use domain::id::HostId;
use newtype_uuid::GenericUuid;
use uuid::Uuid;
use v1::{
    clusters_client::ClustersClient, hosts_client::HostsClient,
    operations_client::OperationsClient, vms_client::VmsClient,
};

use crate::{
    harness::{Lab, create, done, get, spec},
    migration::{host, schedule},
};

const PATIENCE: Duration = Duration::from_secs(90);

pub async fn await_host(client: &Client, name: &str, good: impl Fn(&v1::Host) -> bool) -> v1::Host {
    let begun = Instant::now();
    loop {
        let host = host(client, name).await;
        if good(&host) {
            return host;
        }
        assert!(begun.elapsed() < PATIENCE, "{host:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn await_vm(client: &Client, name: &str, good: impl Fn(&v1::Vm) -> bool) -> v1::Vm {
    let begun = Instant::now();
    loop {
        let vm = get(client, name).await.unwrap();
        if good(&vm) {
            return vm;
        }
        assert!(begun.elapsed() < PATIENCE, "{vm:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn confirm_dead(client: &Client, name: &str) -> Result<v1::Outcome, Error> {
    let mutation = client.mutation().await?;
    let request = v1::ConfirmHostDeadRequest { mutation, host: name.to_owned() };
    let call = client.call(request, async |channel, request| {
        HostsClient::new(channel).confirm_host_dead(request).await
    });
    call.await
}

pub async fn failover_of(client: &Client, vm: &str) -> Option<v1::Operation> {
    let filter = format!("vm={vm} AND kind=failover");
    let page = Some(v1::Page { filter, ..Default::default() });
    let request = v1::ListOperationsRequest { page, ..Default::default() };
    let call = client.call(request, async |channel, request| {
        OperationsClient::new(channel).list_operations(request).await
    });
    call.await.unwrap().operations.pop()
}

#[tokio::test(flavor = "multi_thread")]
async fn vms_of_a_lost_host_do_as_their_specs_say() {
    let mut lab = Lab::start(3, 3, 0).await;
    lab.await_voters(3).await;
    lab.image("tiny").await;
    let client = lab.client();
    let lost = "host-0003";
    await_host(&client, lost, |host| host.fencing == "guard").await;
    for name in ["host-0001", "host-0002"] {
        schedule(&client, name, "cordon").await;
    }
    let rebuilt = v1::VmSpec { failover: "rebuild".to_owned(), ..spec() };
    for (name, spec) in [("web", &rebuilt), ("db", &spec()), ("off", &rebuilt)] {
        let outcome = create(&client, name, spec.clone()).await.unwrap();
        assert_eq!(done(&client, &outcome).await.status, "done");
        assert_eq!(get(&client, name).await.unwrap().host, lost);
    }
    let request = v1::StopVmRequest {
        mutation: client.mutation().await.unwrap(),
        vm: "off".to_owned(),
        force: true,
        ..Default::default()
    };
    let stopped = client
        .call(request, async |channel, request| VmsClient::new(channel).stop_vm(request).await);
    done(&client, &stopped.await.unwrap()).await;
    let refused = confirm_dead(&client, lost).await.unwrap_err();
    assert_eq!(refused.reason(), "HOST_UNFIT", "{refused}");

    // Its node goes, and nobody else can take a VM: what there is is kept.
    lab.cluster.stop_node(2).await;
    let host = await_host(&client, lost, |host| host.status == "lost").await;
    assert_eq!(host.ended, "guard");
    let web = await_vm(&client, "web", |vm| vm.message.contains("cordoned")).await;
    assert_eq!((&*web.phase, &*web.host), ("unknown", lost), "{web:?}");
    assert!(web.message.contains("its guard has ended the guest"), "{}", web.message);
    let db = get(&client, "db").await.unwrap();
    assert!(db.message.contains("its failover is stay"), "{}", db.message);
    assert!(db.message.contains("novacron host confirm-dead host-0003"), "{}", db.message);

    for name in ["host-0001", "host-0002"] {
        schedule(&client, name, "uncordon").await;
    }
    let web = await_vm(&client, "web", |vm| vm.phase == "running").await;
    assert_ne!(web.host, lost);
    let failover = failover_of(&client, "web").await.unwrap();
    assert_eq!(failover.status, "done");
    assert!(failover.message.contains("its disks are made anew"), "{}", failover.message);
    for (name, phase) in [("db", "unknown"), ("off", "unknown")] {
        let vm = get(&client, name).await.unwrap();
        assert_eq!((&*vm.phase, &*vm.host), (phase, lost));
    }
    // Somebody has seen that it is off. What is to stay waits all the same.
    confirm_dead(&client, lost).await.unwrap();
    assert_eq!(await_host(&client, lost, |_| true).await.ended, "person");
    let db = get(&client, "db").await.unwrap();
    assert!(db.message.contains("somebody has seen that it is off"), "{}", db.message);

    // It boots anew: what waited for it goes on there.
    lab.cluster.start_node(2).await.unwrap();
    let host = await_host(&client, lost, |host| host.status == "ready").await;
    assert_eq!(host.ended, "");
    await_vm(&client, "db", |vm| vm.phase == "running" && vm.host == lost).await;
    await_vm(&client, "off", |vm| vm.phase == "stopped" && vm.host == lost).await;
    lab.cluster.stop().await;
}

/// A host that the cluster does not give to a node is asked for again now and then: each refusal is an entry of the log, and
/// news to whoever waits for news.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_refused_is_not_asked_for_without_end() {
    const LOOK: Duration = Duration::from_secs(5);
    let another = Arc::new(AtomicBool::new(false));
    let is_another = another.clone();
    let mut lab = Lab::start_over(
        1,
        1,
        Arc::new(move |host| {
            if is_another.load(Ordering::Relaxed) {
                // The same name, and nothing of what the cluster knows by it.
                host.id = HostId::from_untyped_uuid(Uuid::now_v7());
            }
        }),
    )
    .await;
    let entries = async |lab: &Lab| {
        let call = lab.client();
        let call = call.call(v1::GetClusterRequest::default(), async |channel, request| {
            ClustersClient::new(channel).get_cluster(request).await
        });
        call.await.unwrap().revision
    };
    let known = host(&lab.client(), "host-0001").await.id;
    lab.cluster.stop_node(0).await;
    another.store(true, Ordering::Relaxed);
    lab.cluster.start_node(0).await.unwrap();
    let before = entries(&lab).await;
    tokio::time::sleep(LOOK).await;
    let count = entries(&lab).await - before;
    // The leader's own are one a second; those of before came a hundred times a second.
    assert!(count < 25, "{count} entries in {LOOK:?}");
    assert_eq!(host(&lab.client(), "host-0001").await.id, known, "it was given");
    lab.cluster.stop().await;
}
