//! What is broken on purpose is noticed by the word of the QEMUs, not by luck.

use std::time::{Duration, Instant, SystemTime};

use client::Client;
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

/// A call that a lost owner made arrives when the guest runs elsewhere, and nobody looks at its fence or lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_call_that_nobody_refuses_is_noticed() {
    if !possible("a late call that nobody refuses") {
        return;
    }
    let cluster = real_cluster(Fencing::Guards, Broken::IgnoresFence).await;
    let mut late = call_late(&cluster).await;
    let doubled = is_doubled(&cluster, &mut late.guest, PATIENCE).await;
    assert!(doubled, "nothing was noticed: {:?}", cluster.witness(&late.guest.id).unwrap());
    println!("{:#?}", late.guest.complaints(&cluster));
}

/// The same, and nothing is broken: the late call gets as far as a QEMU that stands still, is asked for its
/// lease, and is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_call_is_refused() {
    if !possible("a late call that is refused") {
        return;
    }
    let cluster = real_cluster(Fencing::Guards, Broken::Nothing).await;
    let mut late = call_late(&cluster).await;
    let begun = Instant::now();
    let is_late =
        |(host, started_us): &(usize, u64)| *host == late.home && *started_us >= late.went_on_us;
    while !cluster.witness(&late.guest.id).unwrap().processes.iter().any(is_late) {
        assert!(begun.elapsed() < PATIENCE, "the late call made no QEMU");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(late.guest.goes_on(&cluster, 20).await, "it does not go on where it is");
    let witness = cluster.witness(&late.guest.id).unwrap();
    assert_eq!(witness.begun_since(late.home, late.went_on_us), None, "it was started at home too");
    assert_eq!(witness.overlaps(), []);
}

/// A call that was made before its guest ran elsewhere, and is carried out after.
struct Late {
    guest: Traveller,
    /// The number of the host that it was made on.
    home: usize,
    /// When it went on.
    went_on_us: u64,
}

/// Has a driver start a guest that runs elsewhere by then. The call hangs in libvirt from before its QEMU is
/// made, which a guard would end, until after its host holds a lease again, so that no guard ends anything. The
/// driver goes on with it whoever made it is gone.
async fn call_late(cluster: &Cluster) -> Late {
    const NAME: &str = "web";
    let client = cluster.client().unwrap();
    await_guarded(&client).await;
    let mut guest = Traveller::create_rebuilt(&client, NAME).await;
    assert!(guest.goes_on(cluster, 5).await);
    let home = guest.host(&client).await;
    act(&client, NAME, "stop").await;
    await_phase(&client, NAME, "stopped", PATIENCE).await;

    // The start needs the network again.
    cluster.virsh(home, &["net-destroy", "novacron-nat"]).unwrap();
    cluster.hold_networks(home).unwrap();
    act(&client, NAME, "start").await;
    cluster.await_held_network(home).await.unwrap();
    cluster.pause(home).unwrap();
    let others = cluster.client_without(home).unwrap();
    await_elsewhere(&others, NAME, &format!("h{}", home + 1), Instant::now()).await;
    cluster.resume(home).unwrap();
    await_guarded(&client).await;
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    cluster.release_networks(home).unwrap();
    Late { guest, home, went_on_us: u64::try_from(since_1970.as_micros()).unwrap() }
}

async fn await_guarded(client: &Client) {
    await_hosts(client, "guarded", |host| host.status == "ready" && host.fencing == "guard").await;
}
