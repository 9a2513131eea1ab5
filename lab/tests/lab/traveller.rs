//! A guest that moves between real hypervisors, and all that is known of where it ran.

use std::time::{Duration, Instant};

use client::{
    Client,
    v1::{self, operations_client::OperationsClient, vms_client::VmsClient},
};
use novacron_lab::{Broken, Cluster, ClusterOptions, Fencing, Hosts, begun_us, is_possible};

use crate::{
    consoles::Consoles,
    harness::{await_phase, create, get, guest, options, spec, start},
};

pub const PATIENCE: Duration = Duration::from_secs(180);
/// How long one answer is waited for, of many.
const ASK: Duration = Duration::from_secs(10);

/// Whether the test called `what` can run here.
pub fn possible(what: &str) -> bool {
    let Err(why) = is_possible() else { return true };
    assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "{why}");
    println!("SKIPPED {what}: {why}");
    false
}

/// A cluster on real hypervisors with the tiny guest's image.
pub async fn real_cluster(fencing: Fencing, broken: Broken) -> Cluster {
    real_cluster_of(ClusterOptions { fencing, broken, ..options(Hosts::Real) }).await
}

/// The same, in every respect as is said.
pub async fn real_cluster_of(options: ClusterOptions) -> Cluster {
    let guest = guest();
    let cluster = start(options).await;
    guest.import(&cluster, "tiny").unwrap();
    cluster.await_voters(3).await.unwrap();
    cluster
}

/// Asks for a migration; the answer is the operation. A bandwidth, MiB/s, makes it last.
pub async fn migrate(client: &Client, vm: &str, host: &str, bandwidth: u32) -> String {
    let request = v1::MigrateVmRequest {
        mutation: client.mutation().await.unwrap(),
        vm: vm.to_owned(),
        host: host.to_owned(),
        bandwidth_mib_per_second: bandwidth,
        ..Default::default()
    };
    let call = client
        .call(request, async |channel, request| VmsClient::new(channel).migrate_vm(request).await);
    let outcome = call.await.unwrap();
    client.note(outcome.revision);
    outcome.operation
}

pub async fn operation_of(client: &Client, operation: &str) -> Option<v1::Operation> {
    let request = v1::GetOperationRequest { operation: operation.to_owned(), ..Default::default() };
    let seen = client.call(request, async |channel, request| {
        OperationsClient::new(channel).get_operation(request).await
    });
    // Who asks again and again must not wait for one answer.
    tokio::time::timeout(ASK, seen).await.ok()?.ok()
}

/// How many guests are tried: QEMU damages some on their way, more of them the longer they are copied. See
/// `Loss::Damaged`.
pub const ATTEMPTS: usize = 5;

/// A ticking guest.
pub struct Traveller {
    pub name: String,
    pub id: String,
    pub consoles: Consoles,
}

impl Traveller {
    /// A new one. `words` are what its kernel is told besides.
    pub async fn create(
        client: &Client,
        name: &str,
        words: &str,
        disks: Vec<v1::Disk>,
    ) -> Traveller {
        let cmdline = format!("g.tick=0.1 g.noshell=1 g.witness=1 {words}");
        Traveller::create_from(client, name, v1::VmSpec { cmdline, disks, ..spec("tiny") }).await
    }

    /// A new one that is started elsewhere when its host is lost, and is plugged into the host's network.
    pub async fn create_rebuilt(client: &Client, name: &str) -> Traveller {
        let (cmdline, failover) =
            ("g.tick=0.1 g.noshell=1 g.witness=1".to_owned(), "rebuild".to_owned());
        let nics = vec![v1::Nic { network: "nat".to_owned() }];
        let spec = v1::VmSpec { cmdline, failover, nics, ..spec("tiny") };
        Traveller::create_from(client, name, spec).await
    }

    pub async fn create_from(client: &Client, name: &str, spec: v1::VmSpec) -> Traveller {
        create(client, name, spec).await.unwrap();
        await_phase(client, name, "running", PATIENCE).await;
        let id = get(client, name).await.unwrap().id;
        Traveller { name: name.to_owned(), id, consoles: Consoles::default() }
    }

    /// The number of its host.
    pub async fn host(&self, client: &Client) -> usize {
        get(client, &self.name).await.unwrap().host[1..].parse::<usize>().unwrap() - 1
    }

    /// Waits until it has gone on for a while; false when it does not, and what is known of it is told.
    pub async fn goes_on(&mut self, cluster: &Cluster, count: usize) -> bool {
        let begun = Instant::now();
        self.consoles.look(cluster, &self.id);
        let before = self.consoles.ticks();
        while self.consoles.ticks() < before + count {
            let waited = begun.elapsed();
            // Nothing more comes from one that has crashed.
            if waited > PATIENCE || (waited > PATIENCE / 9 && self.consoles.crash().is_some()) {
                let said = self.consoles.crash();
                println!("it stands still; its kernel said {said:?}; it was executed as");
                println!("{:?}", cluster.witness(&self.id).map(|witness| witness.intervals));
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.consoles.look(cluster, &self.id);
        }
        true
    }

    /// The same for one that has just moved; false when QEMU damaged it on its way.
    pub async fn arrived_whole(&mut self, cluster: &Cluster) -> bool {
        let goes_on = self.goes_on(cluster, 5).await;
        if goes_on && self.consoles.crash().is_none() {
            return true;
        }
        match self.damage(cluster) {
            Ok(said) => println!("QEMU damaged it: {said}"),
            Err(why) => panic!("it does not go on where it came: {why}"),
        }
        // And nobody else: two that execute one guest would damage it too.
        assert_eq!(cluster.witness(&self.id).unwrap().overlaps(), []);
        false
    }

    /// What shows that it was not one guest all the time: by its consoles, by the word of the QEMUs that
    /// executed it, and by what it wrote to the disk that all hosts share.
    pub fn complaints(&mut self, cluster: &Cluster) -> Vec<String> {
        let witness = cluster.witness(&self.id).unwrap();
        let overlaps = witness.overlaps();
        let overlaps = overlaps.iter().map(|pair| format!("two executed at one time: {pair:?}"));
        let ledger = cluster.ledger(&self.id).and_then(|ledger| ledger.assert_one_body());
        let ledger = ledger.err().map(|error| format!("on its disk: {error:#}"));
        overlaps.chain(ledger).chain(self.consoles.moves().err()).collect()
    }

    /// What shows that a migration's target executed the guest before the log said that it may.
    pub fn ran_unasked(
        &self,
        cluster: &Cluster,
        migration: &v1::Operation,
        target: usize,
    ) -> Option<String> {
        let there = cluster.witness(&self.id).unwrap();
        let there = there.begun_since(target, begun_us(migration, "reserve").unwrap())?;
        let switched = begun_us(migration, "validate");
        let asked = switched.is_some_and(|at| at <= there.begun_us);
        (!asked).then(|| format!("{there:?}, and the switch was at {switched:?}"))
    }
}
