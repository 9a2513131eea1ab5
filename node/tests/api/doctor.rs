//! The doctor finds what is wrong with a machine, names it, and says what to do.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

use cli::{Finding, Verdict};
use domain::name::Name;
use novacron::{
    config::Config,
    dev::Access,
    doctor::examine,
    founding::{Setup, found},
};

use crate::harness::{Lab, client};

/// A machine that is to be a node, and what was done to it.
struct Machine {
    directory: tempfile::TempDir,
    config: String,
    /// A port that another program has.
    taken: Option<TcpListener>,
}

/// An address that nobody listens on, and that was not handed out before. It is below the ports that
/// the kernel hands out: one of those could soon be somebody's.
pub fn free() -> String {
    const PORTS: Range<u16> = 10_240..32_768;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, PORTS.start + step)) {
            return listener.local_addr().unwrap().to_string();
        }
    }
}

impl Machine {
    fn new() -> Machine {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "[cluster]\nname = \"c\"\n[node]\nname = \"n1\"\ndata_directory = \"{}\"\n\
             peer_address = \"{}\"\napi_address = \"{}\"\n",
            directory.path().join("data").display(),
            free(),
            free(),
        );
        Machine { directory, config, taken: None }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("cluster.toml")
    }

    fn append(&mut self, text: &str) {
        self.config.push_str(text);
    }

    fn libvirt(&mut self, more: &str) {
        self.append(&format!("[[host]]\nname = \"h1\"\ndriver = \"libvirt\"\n{more}\n"));
    }

    /// It is a node already.
    async fn begin(&self) {
        std::fs::write(self.file(), &self.config).unwrap();
        let config = Config::read(&self.file()).unwrap();
        let data = self.data();
        let setup = Setup {
            directory: &data,
            name: Name::new("n1").unwrap(),
            peer_address: config.node.peer_address.get_ref(),
            api_address: config.node.api_address.get_ref(),
        };
        found(&setup, Name::new("c").unwrap(), &[]).await.unwrap();
    }

    async fn examine(&self) -> Vec<Finding> {
        std::fs::write(self.file(), &self.config).unwrap();
        examine(&self.file(), Err("no cluster is chosen".to_owned())).await
    }
}

fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    findings.iter().find(|it| it.check == check).unwrap_or_else(|| panic!("{check}: {findings:?}"))
}

/// What of the machine that tests run on may be worse than good.
const OF_THE_MACHINE: &[&str] = &["disk.kind", "disk.room", "disk.sync"];

#[tokio::test(flavor = "multi_thread")]
async fn a_good_machine_has_nothing_bad() {
    let machine = Machine::new();
    let check = |findings: Vec<Finding>, node: Verdict| {
        for finding in &findings {
            let expected = match finding.check.as_str() {
                "cluster" => Verdict::Skipped,
                "node" => node,
                check if OF_THE_MACHINE.contains(&check) => continue,
                _ => Verdict::Good,
            };
            assert_eq!(finding.verdict, expected, "{finding:?}");
        }
    };
    check(machine.examine().await, Verdict::Skipped);
    assert!(!machine.data().exists(), "it has changed something");
    machine.begin().await;
    let left = |at: &Path| std::fs::read_dir(at).unwrap().count();
    let before = left(&machine.data());
    check(machine.examine().await, Verdict::Good);
    assert_eq!(left(&machine.data()), before, "it has left something");
}

/// What is done to a machine; which check finds it; and what its finding and its remedy say.
type Plant = (fn(&mut Machine), &'static str, Verdict, &'static str, &'static str);

const PLANTS: &[Plant] = &[
    (|it| it.append("[nodes]\n"), "config", Verdict::Bad, "nodes", "config check"),
    (
        |it| {
            let address = it.config.split("api_address = \"").nth(1).unwrap();
            let address = address.split('"').next().unwrap();
            it.taken = Some(TcpListener::bind(address).unwrap());
        },
        "port.api",
        Verdict::Bad,
        "is taken by another program",
        "ss -ltnp",
    ),
    (
        |it| {
            it.config = it
                .config
                .replace("\napi_address", "\npeer_listen = \"192.0.2.1:7401\"\napi_address")
        },
        "port.peer",
        Verdict::Bad,
        "no address of this machine",
        "ip address",
    ),
    (
        |it| std::fs::write(it.data(), "").unwrap(),
        "data",
        Verdict::Bad,
        "is in the way",
        "node.data_directory",
    ),
    (
        |it| {
            let keys = it.data().join("identity");
            std::fs::create_dir_all(&keys).unwrap();
            std::fs::set_permissions(&keys, PermissionsExt::from_mode(0o755)).unwrap();
        },
        "data",
        Verdict::Bad,
        "others may look into",
        "chmod 700",
    ),
    (
        |it| {
            let data = it.data().display().to_string();
            it.config = it.config.replace(&data, "/dev/shm/novacron-doctor/data");
        },
        "disk.kind",
        Verdict::Bad,
        "lies in memory",
        "node.data_directory",
    ),
    (
        |it| it.libvirt("program = \"/nowhere/driver\""),
        "host.h1.driver",
        Verdict::Bad,
        "/nowhere/driver is no program",
        "host.program",
    ),
    (
        |it| it.libvirt("guard = \"/nowhere/guard.sock\""),
        "host.h1.guard",
        Verdict::Bad,
        "/nowhere/guard.sock",
        "systemctl start novacron-guard@h1",
    ),
    (|it| it.libvirt(""), "host.h1.guard", Verdict::Warning, "there is none", "novacron-guard"),
    (
        |it| it.libvirt("pools = { fast = \"/nowhere\" }"),
        "host.h1.pool.fast",
        Verdict::Bad,
        "/nowhere",
        "novacron node make-pool",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_found_and_has_a_remedy() {
    for (plant, check, verdict, found, remedy) in PLANTS {
        let mut machine = Machine::new();
        plant(&mut machine);
        let findings = machine.examine().await;
        let finding = of(&findings, check);
        assert_eq!(finding.verdict, *verdict, "{finding:?}");
        assert!(finding.found.contains(found), "{found:?}: {finding:?}");
        assert!(finding.remedy.contains(remedy), "{remedy:?}: {finding:?}");
        for finding in findings.iter().filter(|it| it.verdict >= Verdict::Warning) {
            assert!(!finding.remedy.is_empty(), "{finding:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_identity_is_found() {
    let machine = Machine::new();
    machine.begin().await;
    std::fs::write(machine.data().join("identity/node.crt"), "no certificate").unwrap();
    let findings = machine.examine().await;
    assert_eq!(of(&findings, "node").verdict, Verdict::Bad, "{findings:?}");
}

/// It sees the cluster too, when it is told which.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_looked_at() {
    let lab = Lab::start(3, 2, 0).await;
    lab.await_voters(3).await;
    let machine = Machine::new();
    std::fs::write(machine.file(), &machine.config).unwrap();
    let leader = lab.leader().await;
    for node in 0..3 {
        let endpoints = vec![lab.cluster.access.endpoints[node].clone()];
        let client = client(&Access { endpoints, ..lab.cluster.access.clone() });
        let findings = examine(&machine.file(), Ok(client)).await;
        let votes = match node == leader {
            true => (Verdict::Good, "1 more voters may be lost"),
            false => (Verdict::Skipped, "answered"),
        };
        for (check, (verdict, found)) in [
            ("cluster.votes", votes),
            ("cluster.hosts", (Verdict::Good, "2 of 2 hosts are ready")),
            ("clock", (Verdict::Good, " s from the node that answered")),
        ] {
            let finding = of(&findings, check);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.found.contains(found), "{finding:?}");
        }
    }
    lab.cluster.stop().await;
}
