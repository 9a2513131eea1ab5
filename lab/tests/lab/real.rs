//! Real VMs under libvirt and QEMU.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use client::{Client, v1, v1::vms_client::VmsClient};
use novacron_lab::{Cluster, Hosts, is_possible};

use crate::harness::{
    await_phase, cluster, cluster_of, console, create, get, guest, programs, spec,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until a guest's own output has a text; the answer is how long it took.
async fn await_console(client: &Client, name: &str, text: &str, count: usize) -> Duration {
    let begun = Instant::now();
    loop {
        let seen = console(client, name).await;
        if seen.matches(text).count() >= count {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "{name} never said {text:?} {count} times:\n{seen}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a VM tells a problem with this word.
async fn await_message(client: &Client, name: &str, word: &str) {
    let begun = Instant::now();
    loop {
        let vm = get(client, name).await.unwrap();
        if vm.message.contains(word) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{name} is {} and says {:?}", vm.phase, vm.message);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

macro_rules! act {
    ($client:expr, $method:ident, $message:expr) => {{
        let client: &Client = $client;
        let outcome = client
            .call($message, async |channel, request| VmsClient::new(channel).$method(request).await)
            .await
            .unwrap();
        client.note(outcome.revision);
        client.wait(&outcome.operation, PATIENCE, |_| ()).await.unwrap()
    }};
}

async fn action(client: &Client, vm: &str) -> v1::VmActionRequest {
    let mutation = client.mutation().await.unwrap();
    v1::VmActionRequest { mutation, project: String::new(), vm: vm.to_owned() }
}

/// The whole life of a real guest, and every way in which it or its keepers may die.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_guest_lives_and_dies() {
    if let Err(why) = is_possible() {
        assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "{why}");
        println!("SKIPPED real VMs: {why}");
        return;
    }
    let guest = guest();
    let mut cluster = cluster(Hosts::Real).await;
    let client = cluster.client().unwrap();
    guest.import(&cluster, "tiny").unwrap();

    // It boots through the API, and says so itself, with its own id.
    let begun = Instant::now();
    let spec_of = |cmdline: &str| v1::VmSpec { cmdline: cmdline.to_owned(), ..spec("tiny") };
    // What looks like markup is none.
    const NOTE: &str = "g.note=</cmdline>&amp;'";
    let cmdline = format!("g.tick=1 g.noshell=1 {NOTE}");
    let outcome = create(&client, "web", spec_of(&cmdline)).await.unwrap();
    let ended = client.wait(&outcome.operation, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(ended.status, "done", "{}", ended.message);
    let running = begun.elapsed();
    let vm = get(&client, "web").await.unwrap();
    await_console(&client, "web", &format!("GUEST-UP id={}", vm.id), 1).await;
    println!("create -> running {running:.1?}, -> guest up {:.1?}", begun.elapsed());
    let said = console(&client, "web").await;
    let told = said.lines().find(|line| line.contains("Kernel command line"));
    assert!(told.is_some_and(|line| line.trim_end().ends_with(NOTE)), "{said}");
    let home: usize = vm.host.trim_start_matches('h').parse::<usize>().unwrap() - 1;
    let pid = cluster.guests(home);
    assert_eq!(pid.len(), 1);

    // Node and driver are killed: the guest does not notice, and is taken up again as it is.
    cluster.kill(home).unwrap();
    cluster.kill_driver(home).unwrap();
    assert_eq!(cluster.guests(home), pid);
    cluster.run(home).unwrap();
    cluster.await_ready(home).await.unwrap();
    await_phase(&client, "web", "running", PATIENCE).await;
    assert_eq!(cluster.guests(home), pid, "the guest was started again");
    let ticks = console(&client, "web").await.matches("tick ").count();
    await_console(&client, "web", "tick ", ticks + 2).await;
    let said = console(&client, "web").await;
    assert_eq!(said.matches("GUEST-UP").count(), 1, "{said}");

    // Pause: the guest stands still.
    act!(&client, pause_vm, action(&client, "web").await);
    let before = console(&client, "web").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(console(&client, "web").await, before, "a paused guest went on");
    act!(&client, resume_vm, action(&client, "web").await);
    await_console(&client, "web", "tick ", before.matches("tick ").count() + 1).await;

    // Reboot within the same process; a graceful stop, which the guest answers; start.
    act!(&client, reboot_vm, action(&client, "web").await);
    await_console(&client, "web", "GUEST-UP", 2).await;
    assert_eq!(cluster.guests(home), pid);
    let stop = async |force| v1::StopVmRequest {
        mutation: client.mutation().await.unwrap(),
        project: String::new(),
        vm: "web".to_owned(),
        force,
    };
    let stopped = act!(&client, stop_vm, stop(false).await);
    assert_eq!(stopped.message, "the guest shut itself down");
    assert!(cluster.guests(home).is_empty());
    act!(&client, start_vm, action(&client, "web").await);
    await_console(&client, "web", "GUEST-UP", 3).await;

    // Its hypervisor process is killed: a crash, after which its policy starts it again.
    let pid = cluster.guests(home)[0];
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let crashed = Instant::now();
    await_console(&client, "web", "GUEST-UP", 4).await;
    println!("QEMU killed -> guest up again {:.1?}", crashed.elapsed());
    assert_eq!(get(&client, "web").await.unwrap().restarts, 1);

    // A guest that panics is started again; one whose policy is manual is not, and one that powers
    // itself off rests.
    let panic = |policy: &str| v1::VmSpec {
        run_policy: policy.to_owned(),
        ..spec_of("g.crash=2 g.noshell=1")
    };
    create(&client, "panics", panic("on_failure")).await.unwrap();
    create(&client, "panics-once", panic("manual")).await.unwrap();
    create(&client, "leaves", spec_of("g.exit=1 g.noshell=1")).await.unwrap();
    await_console(&client, "panics", "GUEST-UP", 2).await;
    await_phase(&client, "panics-once", "stopped", PATIENCE).await;
    await_phase(&client, "leaves", "stopped", PATIENCE).await;
    assert_eq!(console(&client, "panics-once").await.matches("GUEST-UP").count(), 1);

    // A start that fails says why, in libvirt's words, and is no guest that ended.
    let nics = vec![v1::Nic { network: "bridge:nowhere".to_owned() }];
    let unplugged = v1::VmSpec { nics, run_policy: "manual".to_owned(), ..spec_of("") };
    create(&client, "unplugged", unplugged).await.unwrap();
    await_message(&client, "unplugged", "nowhere").await;

    // Deleted is gone: no process, no definition, no files.
    for name in ["web", "panics", "panics-once", "leaves", "unplugged"] {
        let delete = v1::DeleteVmRequest {
            mutation: client.mutation().await.unwrap(),
            vm: name.to_owned(),
            ..Default::default()
        };
        act!(&client, delete_vm, delete);
    }
    for node in 0..3 {
        assert!(cluster.guests(node).is_empty(), "node {node} still runs a guest");
        assert_eq!(cluster.bodies(node), 0, "node {node} still has a body's files");
    }
}

/// A guest that boots from its disk, with a seed, a second disk and two networks; a domain that is
/// not ours; and a person who types.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_disks_networks_and_a_seed() {
    if let Err(why) = is_possible() {
        assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "{why}");
        println!("SKIPPED a guest with disks and networks: {why}");
        return;
    }
    let disk = &guest().disk;
    let cluster = cluster_of(1, Hosts::Real).await;
    let client = cluster.client().unwrap();
    let run = |arguments: &[&str]| cluster.novacron(0, arguments).unwrap();
    run(&["image", "create", "disk", "--raw", disk.to_str().unwrap()]);
    let bridge = ["link", "add", "lan0", "up", "type", "bridge"];
    assert!(cluster.on_host(0, "ip").args(bridge).status().unwrap().success());

    // Somebody else's domain.
    let theirs = std::env::temp_dir().join(format!("theirs-{}.xml", std::process::id()));
    let xml = "<domain type='qemu'><name>theirs</name><memory unit='MiB'>16</memory>\
               <os><type>hvm</type></os></domain>";
    std::fs::write(&theirs, xml).unwrap();
    let virsh = |arguments: &[&str]| cluster.virsh(0, arguments).unwrap();
    virsh(&["define", theirs.to_str().unwrap()]);
    virsh(&["start", "theirs"]);
    std::fs::remove_file(&theirs).unwrap();

    let nic = |network: &str| v1::Nic { network: network.to_owned() };
    let whole = v1::VmSpec {
        nics: vec![nic("nat"), nic("bridge:lan0")],
        disks: vec![v1::Disk { size_mib: 64 }],
        root_disk_mib: 100,
        user_data: "#cloud-config\nhostname: web\n".to_owned(),
        memory_mib: 128,
        ..spec("disk")
    };
    let begun = Instant::now();
    create(&client, "web", whole).await.unwrap();
    await_console(&client, "web", "GUEST-UP", 1).await;
    println!("create -> guest up from its disk {:.1?}", begun.elapsed());
    await_console(&client, "web", "guest-ip 192.168.222.", 1).await;
    let said = console(&client, "web").await;
    let id = virsh(&["list", "--uuid"]);
    let id = id.lines().find(|id| said.contains(&format!("instance-id: {id}")));
    assert!(id.is_some(), "no seed of this body: {said}");
    assert!(said.contains("meta-data user-data"), "{said}");
    assert!(said.contains("blk=vda,vdb,vdc, net=eth0,eth1,lo,"), "{said}");
    let members = cluster.on_host(0, "ip").args(["-o", "link", "show", "master", "lan0"]).output();
    assert_eq!(members.unwrap().stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
    // The overlay is as large as was asked, not as large as the image.
    let size = virsh(&["domblkinfo", id.unwrap(), "vda"]);
    assert!(size.contains(&(100 << 20).to_string()), "{size}");

    let usage: serde_json::Value =
        serde_json::from_str(&run(&["vm", "usage", "web", "-o", "json"])).unwrap();
    for count in ["cpuNs", "memoryMib", "diskReadBytes", "networkReceivedBytes"] {
        let count_of = |text: &str| text.parse::<u64>().unwrap();
        assert!(usage[count].as_str().map(count_of) > Some(0), "{count}: {usage}");
    }
    assert_eq!(run(&["host", "foreign", "h1", "-o", "name"]).trim(), "theirs");

    // What is typed reaches the guest, and its answer comes back.
    let begun = Instant::now();
    loop {
        let typed = type_at(&cluster, "web", "echo typed-$((40 + 2))\n");
        if typed.contains("typed-42") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{typed}");
    }

    run(&["vm", "delete", "web"]);
    assert_eq!(virsh(&["list", "--name"]).trim(), "theirs", "not ours, and touched");

    // A lab ends with everything it has started, a running guest too.
    let root = cluster.access_file().parent().unwrap().to_owned();
    assert!(processes_of(&root) > 0);
    drop(cluster);
    let begun = Instant::now();
    while processes_of(&root) > 0 {
        assert!(begun.elapsed() < PATIENCE, "processes of {} are left", root.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!root.exists());
}

/// How many processes name a file of the lab.
fn processes_of(lab: &Path) -> usize {
    let name = lab.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(name)).count()
}

/// What `vm console` shows when this is typed.
fn type_at(cluster: &Cluster, vm: &str, keys: &str) -> String {
    let mut child = Command::new(programs().join("novacron"))
        .args(["vm", "console", vm])
        .env("NOVACRON_ACCESS", cluster.access_file())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(keys.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
