//! Row 11: guests on real hypervisors: from being asked for until one is up, and moved while it runs. Beside it `virsh`
//! has the same done with the same guest on the same hosts, in turn.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use client::{
    Client,
    v1::{self, vms_client::VmsClient},
};
use lab::{Cluster, ClusterOptions, Guest, Hosts, begun_us};
use uuid::Uuid;

use crate::{
    book::{Aim, Book},
    field::Extent,
    ours::NODES,
};

/// What its guests are booted from.
const IMAGE: &str = "tiny";
/// What a guest says on its console once it is up.
const UP: &str = "GUEST-UP";
/// What its kernel is told: to say each tenth of a second that it runs.
const WORDS: &str = "g.tick=0.1 g.noshell=1";
/// The guest that is moved, and of which `virsh` gets one more.
const MODEL: &str = "model";
/// What libvirt calls that one.
const FOREIGN: &str = "foreign";
/// Until a guest is up, or has moved.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at what a guest says, or at who executes it.
const LOOK: Duration = Duration::from_millis(2);
/// Before something is measured, for what was before to be over.
const QUIET: Duration = Duration::from_secs(2);

/// Measures the row where guests can be had.
pub(crate) async fn measure(extent: &Extent, programs: &Path, book: &mut Book) -> Result<()> {
    if let Err(why) = lab::is_possible() {
        println!("11  is not measured: {why}");
        return Ok(());
    }
    let guest = Guest::make(programs)?;
    let options = ClusterOptions::new(NODES, Hosts::Real, programs.to_owned());
    let cluster = Cluster::start(options, |_| ()).await?;
    cluster.await_voters(NODES).await?;
    guest.import(&cluster, IMAGE)?;
    let hosts = Beside { client: cluster.client()?, cluster };
    let model = hosts.boot(MODEL).await?.0;
    hosts.measure_boots(extent.guests, &model, book).await?;
    hosts.measure_moves(extent.guests, &model, book).await
}

/// Hosts on which VMs of ours run beside one that nobody of ours knows.
struct Beside {
    cluster: Cluster,
    client: Client,
}

/// How a move went.
struct Move {
    /// From the begin of copying to the switch; of `virsh` all that it does, milliseconds.
    took_ms: f64,
    /// For how long nobody executed the guest, milliseconds.
    down_ms: f64,
}

impl Beside {
    /// How long it takes from asking for a guest until it is up.
    async fn measure_boots(&self, rounds: usize, model: &str, book: &mut Book) -> Result<()> {
        let (mut ours, mut virsh) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let name = format!("boot-{round}");
            tokio::time::sleep(QUIET).await;
            ours.push(self.boot(&name).await?.1);
            self.delete(&name).await?;
            tokio::time::sleep(QUIET).await;
            let twin = self.twin(model)?;
            virsh.push(twin.boot(&self.cluster).await?);
            twin.delete(&self.cluster, 0)?;
        }
        let case = "asked for, until the guest is up";
        book.beside(11, case, "s", (ours, virsh), "virsh", Aim::TimesAtMost(1.15));
        Ok(())
    }

    /// How long a guest takes to another host, there and back.
    async fn measure_moves(&self, rounds: usize, model: &str, book: &mut Book) -> Result<()> {
        let twin = self.twin(model)?;
        twin.boot(&self.cluster).await?;
        let (mut ours, mut virsh) = (Vec::new(), Vec::new());
        let (mut here, mut there) = (0, 1);
        for _ in 0..rounds {
            tokio::time::sleep(QUIET).await;
            ours.push(self.migrate(model, there).await?);
            tokio::time::sleep(QUIET).await;
            virsh.push(twin.migrate(&self.cluster, here, there).await?);
            (here, there) = (there, here);
        }
        twin.delete(&self.cluster, here)?;
        let both = |figure: fn(&Move) -> f64| {
            (ours.iter().map(figure).collect(), virsh.iter().map(figure).collect())
        };
        let case = "moved while it runs";
        let aim = Aim::TimesAtMost(1.1);
        book.beside(11, case, "ms, copy to switch", both(|one| one.took_ms), "virsh", aim);
        book.beside(
            11,
            case,
            "ms, executed by nobody",
            both(|one| one.down_ms),
            "virsh",
            Aim::Told,
        );
        Ok(())
    }

    /// Has a VM made on the first host, and waits until its guest is up. The answer is its id, and how long that took,
    /// seconds.
    async fn boot(&self, name: &str) -> Result<(String, f64)> {
        let spec = v1::VmSpec {
            vcpus: 1,
            memory_mib: 96,
            image: IMAGE.to_owned(),
            host: "h1".to_owned(),
            cmdline: WORDS.to_owned(),
            ..Default::default()
        };
        let begun = Instant::now();
        let asked = v1::CreateVmRequest {
            mutation: self.client.mutation().await?,
            name: name.to_owned(),
            spec: Some(spec),
            ..Default::default()
        };
        let call = async |channel, request| VmsClient::new(channel).create_vm(request).await;
        self.client.note(self.client.call(asked, call).await?.revision);
        let asked = v1::GetVmRequest { vm: name.to_owned(), ..Default::default() };
        let call = async |channel, request| VmsClient::new(channel).get_vm(request).await;
        let id = self.client.call(asked, call).await?.id;
        until_up(&self.cluster.console_file("h1", &id), begun).await?;
        Ok((id, begun.elapsed().as_secs_f64()))
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let mutation = self.client.mutation().await?;
        let vm = name.to_owned();
        let asked = v1::DeleteVmRequest { mutation, vm, ..Default::default() };
        let call = async |channel, request| VmsClient::new(channel).delete_vm(request).await;
        let outcome = self.client.call(asked, call).await?;
        self.ended(&outcome.operation).await.map(drop)
    }

    /// Waits until an operation has done what it is to do.
    async fn ended(&self, operation: &str) -> Result<v1::Operation> {
        let ended = self.client.wait(operation, PATIENCE, |_| ()).await?;
        ensure!(ended.status == "done", "{} is {}: {}", ended.kind, ended.status, ended.message);
        Ok(ended)
    }

    /// Has the model moved to a host.
    async fn migrate(&self, model: &str, there: usize) -> Result<Move> {
        let since_us = now_us()?;
        let asked = v1::MigrateVmRequest {
            mutation: self.client.mutation().await?,
            vm: MODEL.to_owned(),
            host: format!("h{}", there + 1),
            ..Default::default()
        };
        let call = async |channel, request| VmsClient::new(channel).migrate_vm(request).await;
        let outcome = self.client.call(asked, call).await?;
        let ended = self.ended(&outcome.operation).await?;
        let begun = |step| begun_us(&ended, step).with_context(|| format!("it has no {step}"));
        let took_us = begun("validate")? - begun("copy")?;
        let down_ms = down_ms(&self.cluster, model, there, since_us).await?;
        Ok(Move { took_ms: took_us as f64 / 1_000.0, down_ms })
    }

    /// One more of the model for `virsh`, whose files lie on the first host.
    fn twin(&self, model: &str) -> Result<Twin> {
        let id = Uuid::new_v4().to_string();
        let text = self.cluster.virsh(0, &["dumpxml", "--migratable", model])?;
        let between = |before: &str, after: &str| {
            let rest = text.split(before).nth(1)?;
            Some(rest.split(after).next()?.to_owned())
        };
        let name = between("<name>", "</name>").context("the model has no name")?;
        let console = between("<log file='", "'").context("the model has no console")?;
        let files = |text: &str| text.replace(&format!("bodies/{model}/"), &format!("{id}-"));
        let called = |name: &str| format!("<name>{name}</name>");
        let text = files(&text.replace(&called(&name), &called(FOREIGN))).replace(model, &id);
        let definition = self.cluster.access_file().with_file_name(format!("{id}.xml"));
        std::fs::write(&definition, text)?;
        let console = PathBuf::from(files(&console));
        Ok(Twin { id, definition, console })
    }
}

/// The guest that `virsh` has.
struct Twin {
    id: String,
    definition: PathBuf,
    console: PathBuf,
}

impl Twin {
    /// Defines it, starts it, and waits until it is up. The answer is how long that took, seconds.
    async fn boot(&self, cluster: &Cluster) -> Result<f64> {
        let begun = Instant::now();
        cluster.virsh(0, &["define", &self.definition.to_string_lossy()])?;
        cluster.virsh(0, &["start", FOREIGN])?;
        until_up(&self.console, begun).await?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Moves it.
    async fn migrate(&self, cluster: &Cluster, here: usize, there: usize) -> Result<Move> {
        let since_us = now_us()?;
        let daemon = cluster.migration_uri(there).context("there is no hypervisor")?;
        let data = format!("tcp://10.77.0.{}", there + 1);
        let words = ["migrate", "--live", "--p2p", "--tls", "--persistent", "--undefinesource"];
        cluster.virsh(here, &[&words[..], &[FOREIGN, &daemon, "--migrateuri", &data]].concat())?;
        let took_ms = (now_us()? - since_us) as f64 / 1_000.0;
        let down_ms = down_ms(cluster, &self.id, there, since_us).await?;
        Ok(Move { took_ms, down_ms })
    }

    fn delete(&self, cluster: &Cluster, host: usize) -> Result<()> {
        cluster.virsh(host, &["destroy", FOREIGN])?;
        cluster.virsh(host, &["undefine", FOREIGN]).map(drop)
    }
}

async fn until_up(console: &Path, begun: Instant) -> Result<()> {
    loop {
        // There is no file before there is a guest.
        let said = std::fs::read(console).unwrap_or_default();
        if String::from_utf8_lossy(&said).contains(UP) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "no guest is up after {PATIENCE:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// How long nobody executed a guest before a host did, since then, milliseconds.
async fn down_ms(cluster: &Cluster, vm: &str, host: usize, since_us: u64) -> Result<f64> {
    let begun = Instant::now();
    loop {
        let witness = cluster.witness(vm)?;
        ensure!(witness.overlaps().is_empty(), "two hosts execute a guest: {witness:?}");
        if let Some(there) = witness.begun_since(host, since_us) {
            let gap_us = witness.gap_before_us(&there).context("nobody executed it before")?;
            return Ok(gap_us as f64 / 1_000.0);
        }
        ensure!(begun.elapsed() < PATIENCE, "the guest does not go on: {witness:?}");
        tokio::time::sleep(LOOK).await;
    }
}

fn now_us() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}
