//! The libvirt driver does what every driver must.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::{
    Fence, Revision,
    id::{Digest, VmId},
    image::{File, Image, Part},
    name::Name,
    vm::{Failover, RunPolicy, VmSpec},
};
use drivers::{Driver, Order, conformance, protocol::RemoteDriver};
use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind};
use novacron_lab::{DriverHost, Guest};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness::{guest, programs},
    traveller::possible,
};

struct Libvirt {
    host: DriverHost,
    driver: RemoteDriver,
    image: Arc<Image>,
    files: BTreeMap<Digest, std::path::PathBuf>,
    next: AtomicU64,
}

fn id<K: TypedUuidKind>(n: u64) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(uuid::Uuid::from_u128(0x4000_8000 << 64 | u128::from(n)))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn file(part: Part, path: &Path) -> File {
    let content = std::fs::read(path).unwrap();
    File { part, sha256: Digest::sha256(&content), size_bytes: content.len() as u64 }
}

impl Libvirt {
    /// The driver of a host, once it answers.
    async fn of(host: DriverHost) -> Libvirt {
        let Guest { kernel, initrd, .. } = guest().clone();
        let files = vec![file(Part::Kernel, &kernel), file(Part::Initrd, &initrd)];
        let paths = [files[0].sha256, files[1].sha256].into_iter().zip([kernel, initrd]).collect();
        let image = Image {
            id: id(1),
            name: name("tiny"),
            files,
            origin: String::new(),
            holders: Default::default(),
            revision: Revision::ZERO,
        };
        let driver = RemoteDriver::new(&host.socket());
        while driver.inventory().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let next = AtomicU64::new(1);
        Libvirt { driver, host, image: Arc::new(image), files: paths, next }
    }
}

#[async_trait]
impl conformance::Fixture for Libvirt {
    fn driver(&self) -> &dyn Driver {
        &self.driver
    }

    fn order(&self, fence: Fence) -> Order {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Order {
            vm: id(n),
            fence,
            lease: Fence::ZERO,
            project: name("default"),
            name: name(&format!("vm{n}")),
            spec: Arc::new(VmSpec {
                vcpus: 1,
                memory_mib: 96,
                image: name("tiny"),
                root_disk_mib: 0,
                pool: None,
                disks: Vec::new(),
                nics: Vec::new(),
                cmdline: "g.noshell=1".to_owned(),
                user_data: String::new(),
                run_policy: RunPolicy::Manual,
                failover: Failover::Stay,
                failover_priority: 50,
                failover_after: Vec::new(),
                deletion_protection: false,
                host: None,
                labels: Default::default(),
                placement: Default::default(),
            }),
            generation: 1,
            reboots: 0,
            pool: None,
            disks_made: false,
            image: self.image.clone(),
            files: self.files.clone(),
        }
    }

    async fn crash(&self, vm: VmId) {
        let pid = self.host.guest(&vm.to_string()).expect("its QEMU runs");
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(120)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn libvirt_conforms() {
    if !possible("the libvirt driver's conformance") {
        return;
    }
    let libvirt = Libvirt::of(DriverHost::start(&programs()).unwrap()).await;
    // The stream of changes is opened in the background.
    tokio::time::sleep(Duration::from_secs(1)).await;
    conformance::run(&libvirt).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn libvirt_moves_guests() {
    if !possible("the libvirt driver's conformance in migrations") {
        return;
    }
    let [from, to] = DriverHost::start_pair(&programs()).unwrap();
    let (from, to) = (Libvirt::of(from).await, Libvirt::of(to).await);
    conformance::run_migration(&from, &to).await.unwrap();
}
