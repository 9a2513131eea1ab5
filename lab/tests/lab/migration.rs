//! Real guests move between real hypervisors, and never miss a tick.

use std::time::Instant;

use client::v1;
use novacron_lab::{Broken, Fencing};

use crate::{
    harness::get,
    traveller::{PATIENCE, Traveller, migrate, possible, real_cluster},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_moves_and_never_misses_a_tick() {
    if !possible("migrations of real guests") {
        return;
    }
    let cluster = real_cluster(Fencing::None, Broken::Nothing).await;
    let client = cluster.client().unwrap();
    for (name, disks) in [("plain", vec![]), ("disks", vec![v1::Disk { size_mib: 64 }])] {
        let mut guest = Traveller::create(&client, name, "", disks).await;
        for moves in 1..=2 {
            assert!(guest.goes_on(&cluster, 5).await);
            let before = get(&client, name).await.unwrap();
            let asked = Instant::now();
            let operation = migrate(&client, name, "", 0).await;
            let ended = client.wait(&operation, PATIENCE, |_| ()).await.unwrap();
            assert_eq!(ended.status, "done", "{}", ended.message);
            let took = asked.elapsed();
            let after = get(&client, name).await.unwrap();
            assert_ne!(after.host, before.host);
            assert!(guest.goes_on(&cluster, 5).await);
            assert_eq!(guest.complaints(&cluster), [""; 0]);
            assert_eq!(guest.consoles.moves(), Ok(moves));
            let witness = cluster.witness(&guest.id).unwrap();
            let there = witness.last().unwrap();
            assert_eq!(there.host, guest.host(&client).await);
            assert_eq!(guest.ran_unasked(&cluster, &ended, there.host), None);
            let gap = witness.gap_before_us(&there).unwrap();
            let ticks = cluster.ledger(&guest.id).unwrap().ticks();
            assert!(ticks > 5, "the guest writes nothing to its disk");
            println!(
                "{name}: {} -> {} in {took:.1?}, executed by nobody for {} ms, {ticks} ticks on disk",
                before.host,
                after.host,
                gap / 1_000
            );
        }
    }
}
