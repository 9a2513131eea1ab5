//! What is broken on purpose is noticed by the word of the QEMUs, not by luck.

use std::time::{Duration, Instant};

use novacron_lab::{
    Broken, Cluster, Fencing,
    rpc::{Blow, Message, Procedure, Side, Strike},
};

use crate::{
    failover::{act, await_elsewhere, await_hosts},
    harness::await_phase,
    traveller::{PATIENCE, Traveller, migrate, operation_of, possible, real_cluster},
};

/// Whether two are seen, in this time, to have executed a guest at one time.
async fn is_doubled(cluster: &Cluster, guest: &mut Traveller, patience: Duration) -> bool {
    let begun = Instant::now();
    while cluster.witness(&guest.id).unwrap().overlaps().is_empty() {
        if begun.elapsed() > patience {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        guest.consoles.look(cluster, &guest.id);
    }
    true
}

/// A guest that comes goes on unasked: before the log says that it may, and beside the one that it was
/// when the source never hears that it came.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_goes_on_unasked_is_noticed() {
    if !possible("a guest that goes on unasked") {
        return;
    }
    let cluster = real_cluster(Fencing::None, Broken::NoPause).await;
    let client = cluster.client().unwrap();

    let guest = Traveller::create(&client, "hasty", "", vec![]).await;
    let target = (guest.host(&client).await + 1) % 3;
    let operation = migrate(&client, "hasty", &format!("h{}", target + 1), 0).await;
    let begun = Instant::now();
    let noticed = loop {
        let seen = operation_of(&client, &operation).await.unwrap();
        if let Some(noticed) = guest.ran_unasked(&cluster, &seen, target) {
            break noticed;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing was noticed: {seen:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    println!("{noticed}");

    let mut guest = Traveller::create(&client, "double", "", vec![]).await;
    assert!(guest.goes_on(&cluster, 5).await);
    let target = (guest.host(&client).await + 1) % 3;
    let message = Message { procedure: Procedure::Finish, side: Side::Reply };
    let proxy = cluster.intercept(target, Strike { blow: Blow::Drop, message }).unwrap();
    migrate(&client, "double", &format!("h{}", target + 1), 0).await;
    assert!(is_doubled(&cluster, &mut guest, PATIENCE).await, "nothing was noticed");
    assert!(proxy.struck().unwrap().is_some());
    println!("{:#?}", guest.complaints(&cluster));
}

/// A call that a lost owner made arrives when the guest runs elsewhere, and nobody looks at its fence. While
/// the driver stands still libvirt closes its connection, and whoever is first at the driver that goes on finds
/// that out: when it is the late call, it does no harm. So it takes luck, and is tried only if asked for:
/// `LATE_CALLS=N` attempts.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_call_that_nobody_refuses_is_noticed() {
    let attempts: usize =
        std::env::var("LATE_CALLS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    if attempts == 0 || !possible("a late call that nobody refuses") {
        return println!("SKIPPED a late call that nobody refuses: set LATE_CALLS to a number");
    }
    let cluster = real_cluster(Fencing::Guards, Broken::IgnoresFence).await;
    for attempt in 1..=attempts {
        let mut guest = call_late(&cluster, &format!("web{attempt}")).await;
        if is_doubled(&cluster, &mut guest, Duration::from_secs(15)).await {
            println!("attempt {attempt}: {:#?}", guest.complaints(&cluster));
            return;
        }
    }
    panic!("nothing was noticed in {attempts} attempts");
}

/// Has a driver start a guest that runs elsewhere by then.
async fn call_late(cluster: &Cluster, name: &str) -> Traveller {
    let client = cluster.client().unwrap();
    await_hosts(&client, "guarded", |host| host.status == "ready" && host.fencing == "guard").await;
    let mut guest = Traveller::create_rebuilt(&client, name).await;
    assert!(guest.goes_on(cluster, 5).await);
    let home = guest.host(&client).await;
    act(&client, name, "stop").await;
    await_phase(&client, name, "stopped", PATIENCE).await;
    cluster.pause_driver(home).unwrap();
    act(&client, name, "start").await;
    // The call is on its way by then.
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.pause(home).unwrap();
    let others = cluster.client_without(home).unwrap();
    await_elsewhere(&others, name, &format!("h{}", home + 1), Instant::now()).await;
    // The host holds a lease again, so its guard ends nothing; the late call was made under the old one.
    cluster.resume(home).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.resume_driver(home).unwrap();
    guest
}
