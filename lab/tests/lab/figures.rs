//! How long a migration takes and for how long nobody executes its guest, ours beside plain `virsh migrate`:
//! figures, and no verdict.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use client::Client;
use novacron_lab::{Broken, Cluster, Fencing};

use crate::traveller::{PATIENCE, Traveller, begun, migrate, possible, real_cluster};

/// The same guest once more, that nobody of ours knows.
const FOREIGN: &str = "foreign";

/// What `virsh` says; the error is what it complains of.
pub fn try_virsh(cluster: &Cluster, node: usize, arguments: &[&str]) -> Result<String, String> {
    let uri = cluster.libvirt_uri(node).unwrap();
    let said = cluster.on_host(node, "virsh").args(["-q", "-c", &uri]).args(arguments).output();
    let said = said.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if said.status.success() { Ok(text(said.stdout)) } else { Err(text(said.stderr)) }
}

fn virsh(cluster: &Cluster, node: usize, arguments: &[&str]) -> String {
    try_virsh(cluster, node, arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

/// Milliseconds, of each migration.
#[derive(Default)]
struct Figures {
    /// From the copy's begin to the switch; of virsh, the whole process.
    switched: Vec<u64>,
    /// From the copy's begin, or virsh's, to the guest's going on.
    took: Vec<u64>,
    /// Nobody executed the guest.
    down: Vec<u64>,
    /// Between two ticks of its console.
    tick_gap: Vec<u64>,
}

impl Figures {
    fn print(&self, who: &str) {
        for (what, all) in [
            ("copy to switch, or virsh from begin to end,", &self.switched),
            ("until it goes on", &self.took),
            ("executed by nobody", &self.down),
            ("longest time without a tick", &self.tick_gap),
        ] {
            println!("{who}: {what} {} ms, median of {all:?}", median(all));
        }
    }
}

fn median(all: &[u64]) -> u64 {
    let mut all = all.to_owned();
    all.sort_unstable();
    all[all.len() / 2]
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

/// The longest time in which none of these files grows, while it is not told to stop.
struct Ticks {
    stop: std::sync::mpsc::Sender<()>,
    watch: std::thread::JoinHandle<Duration>,
}

impl Ticks {
    fn watch(files: Vec<PathBuf>) -> Ticks {
        let (stop, stopped) = std::sync::mpsc::channel();
        let size = move || -> u64 {
            files
                .iter()
                .filter_map(|file| std::fs::metadata(file).ok())
                .map(|file| file.len())
                .sum()
        };
        let watch = std::thread::spawn(move || {
            let (mut before, mut grew, mut longest) = (size(), Instant::now(), Duration::ZERO);
            while stopped.recv_timeout(Duration::from_millis(5)).is_err() {
                let now = size();
                // It shrinks when a host removes its own: then nothing was said.
                if now > before {
                    longest = longest.max(grew.elapsed());
                    grew = Instant::now();
                }
                before = now;
            }
            longest
        });
        Ticks { stop, watch }
    }

    fn end(self) -> u64 {
        self.stop.send(()).unwrap();
        u64::try_from(self.watch.join().unwrap().as_millis()).unwrap()
    }
}

/// How long nobody executed a guest before a host did, since then.
async fn down_ms(cluster: &Cluster, vm: &str, host: usize, since_us: u64) -> (u64, u64) {
    let asked = Instant::now();
    loop {
        let witness = cluster.witness(vm).unwrap();
        assert_eq!(witness.overlaps(), []);
        if let Some(there) = witness.begun_since(host, since_us) {
            return (there.begun_us, witness.gap_before_us(&there).unwrap() / 1_000);
        }
        assert!(asked.elapsed() < PATIENCE, "it does not go on: {witness:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Our guest moves.
async fn move_ours(
    cluster: &Cluster,
    client: &Client,
    guest: &Traveller,
    there: usize,
    figures: &mut Figures,
) {
    let since = now_us();
    let files = (1..=3).map(|host| cluster.console_file(&format!("h{host}"), &guest.id));
    let ticks = Ticks::watch(files.collect());
    let operation = migrate(client, &guest.name, &format!("h{}", there + 1), 0).await;
    let ended = client.wait(&operation, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(ended.status, "done", "{}", ended.message);
    let (went_on, down) = down_ms(cluster, &guest.id, there, since).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (copy, switch) = (begun(&ended, "copy").unwrap(), begun(&ended, "validate").unwrap());
    figures.switched.push((switch - copy) / 1_000);
    figures.took.push((went_on - copy) / 1_000);
    figures.down.push(down);
    figures.tick_gap.push(ticks.end());
}

/// The foreign guest moves.
async fn move_foreign(
    cluster: &Cluster,
    id: &str,
    console: &std::path::Path,
    (here, there): (usize, usize),
    figures: &mut Figures,
) {
    let since = now_us();
    let ticks = Ticks::watch(vec![console.to_owned()]);
    let daemon = cluster.migration_uri(there).unwrap();
    let data = format!("tcp://10.77.0.{}", there + 1);
    let words = ["migrate", "--live", "--p2p", "--tls", FOREIGN, &daemon, "--migrateuri", &data];
    virsh(cluster, here, &words);
    figures.switched.push((now_us() - since) / 1_000);
    let (went_on, down) = down_ms(cluster, id, there, since).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    figures.took.push((went_on - since) / 1_000);
    figures.down.push(down);
    figures.tick_gap.push(ticks.end());
}

/// Both guests move by turns, between the same two hosts. `COMPARE=N` rounds.
#[tokio::test(flavor = "multi_thread")]
async fn beside_plain_virsh() {
    let rounds: usize = std::env::var("COMPARE").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    if rounds == 0 || !possible("figures beside virsh") {
        return println!("SKIPPED figures beside virsh: set COMPARE to a number of rounds");
    }
    let cluster = real_cluster(Fencing::None, Broken::Nothing).await;
    let client = cluster.client().unwrap();
    let mut guest = Traveller::create(&client, "ours", "", vec![]).await;
    assert!(guest.goes_on(&cluster, 5).await);
    let mut here = guest.host(&client).await;
    let mut there = (here + 1) % 3;
    let definition = virsh(&cluster, here, &["dumpxml", "--migratable", &guest.id]);
    let name = definition.split("<name>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let foreign = uuid::Uuid::new_v4().to_string();
    let definition = definition
        .replace(&format!("bodies/{}/", guest.id), "foreign-")
        .replace(&guest.id, &foreign)
        .replace(&format!("<name>{name}"), &format!("<name>{FOREIGN}"));
    // Both hosts write to the same console.
    let console = definition.split("<log file='").nth(1).unwrap().split('\'').next().unwrap();
    let console = PathBuf::from(console);
    let file = cluster.access_file().with_file_name("foreign.xml");
    std::fs::write(&file, &definition).unwrap();
    virsh(&cluster, here, &["create", file.to_str().unwrap()]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (mut ours, mut plain) = (Figures::default(), Figures::default());
    for _ in 0..rounds {
        move_ours(&cluster, &client, &guest, there, &mut ours).await;
        move_foreign(&cluster, &foreign, &console, (here, there), &mut plain).await;
        (here, there) = (there, here);
    }
    virsh(&cluster, here, &["destroy", FOREIGN]);
    ours.print("ours");
    plain.print("virsh");
    let (ours, plain) = (median(&ours.switched), median(&plain.switched));
    println!("copy to switch {ours} ms beside {plain} ms: {:.2}x", ours as f64 / plain as f64);
}
