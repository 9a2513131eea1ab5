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
    let mut hosts = Beside { client: cluster.client()?, cluster, home: 0, settle: extent.settle };
    // It may move, and so not be meant for one host alone.
    let model = hosts.create(MODEL, "").await?;
    hosts.home = hosts.host_of(MODEL).await?;
    hosts.measure_boots(extent.guests, &model, book).await?;
    hosts.measure_moves(extent.guests, &model, book).await
}

/// Hosts on which VMs of ours run beside one that nobody of ours knows.
struct Beside {
    cluster: Cluster,
    client: Client,
    /// The host of the model, from 0, on which the others boot too.
    home: usize,
    settle: Duration,
}

/// How a move went.
struct Move {
    /// From the begin of copying to the switch; of `virsh` all that it does, milliseconds.
    took_ms: f64,
    /// From when it was asked for until the other host executed the guest, milliseconds.
    there_ms: f64,
    /// For how long nobody executed the guest, milliseconds.
    down_ms: f64,
}

impl Beside {
    /// How long it takes from asking for a guest until it is up.
    async fn measure_boots(&self, rounds: usize, model: &str, book: &mut Book) -> Result<()> {
        let (mut ours, mut virsh) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let name = format!("boot-{round}");
            tokio::time::sleep(self.settle).await;
            ours.push(self.boot(&name).await?);
            self.delete(&name).await?;
            tokio::time::sleep(self.settle).await;
            let twin = self.twin(model)?;
            virsh.push(twin.boot(&self.cluster, self.home).await?);
            twin.delete(&self.cluster, self.home)?;
        }
        let case = "asked for, until the guest is up";
        book.beside(11, case, "s", (ours, virsh), "virsh", Aim::TimesAtMost(1.15));
        Ok(())
    }

    /// How long a guest takes to another host, there and back.
    async fn measure_moves(&self, rounds: usize, model: &str, book: &mut Book) -> Result<()> {
        let twin = self.twin(model)?;
        twin.boot(&self.cluster, self.home).await?;
        let (mut ours, mut virsh) = (Vec::new(), Vec::new());
        let (mut here, mut there) = (self.home, (self.home + 1) % NODES);
        for _ in 0..rounds {
            tokio::time::sleep(self.settle).await;
            ours.push(self.migrate(model, there).await?);
            tokio::time::sleep(self.settle).await;
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
        book.beside(11, case, "ms, asked to there", both(|one| one.there_ms), "virsh", Aim::Told);
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

    /// Has a VM made at home, and waits until its guest is up. The answer is how long that took, seconds.
    async fn boot(&self, name: &str) -> Result<f64> {
        let begun = Instant::now();
        let host = format!("h{}", self.home + 1);
        let id = self.create(name, &host).await?;
        until_up(&self.cluster.console_file(&host, &id), begun).await?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Has a VM made, on this host or any; the answer is its id.
    async fn create(&self, name: &str, host: &str) -> Result<String> {
        let spec = v1::VmSpec {
            vcpus: 1,
            memory_mib: 96,
            image: IMAGE.to_owned(),
            host: host.to_owned(),
            cmdline: WORDS.to_owned(),
            ..Default::default()
        };
        let asked = v1::CreateVmRequest {
            mutation: self.client.mutation().await?,
            name: name.to_owned(),
            spec: Some(spec),
            ..Default::default()
        };
        let call = async |channel, request| VmsClient::new(channel).create_vm(request).await;
        Ok(self.client.call(asked, call).await?.object)
    }

    /// Where a VM is, from 0, once it runs.
    async fn host_of(&self, name: &str) -> Result<usize> {
        let begun = Instant::now();
        loop {
            let asked = v1::GetVmRequest { vm: name.to_owned(), ..Default::default() };
            let call = async |channel, request| VmsClient::new(channel).get_vm(request).await;
            let vm = self.client.call(asked, call).await?;
            if vm.phase == "running" {
                let number = vm.host.strip_prefix('h').context("the host has another name")?;
                return Ok(number.parse::<usize>()? - 1);
            }
            ensure!(begun.elapsed() < PATIENCE, "{name} is {}: {}", vm.phase, vm.message);
            tokio::time::sleep(LOOK).await;
        }
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

    /// Has the model, whose id this is, moved to a host.
    async fn migrate(&self, id: &str, there: usize) -> Result<Move> {
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
        let (there_ms, down_ms) = went_on(&self.cluster, id, there, since_us).await?;
        Ok(Move { took_ms: took_us as f64 / 1_000.0, there_ms, down_ms })
    }

    /// One more of the model for `virsh`, whose files lie beside the model's.
    fn twin(&self, model: &str) -> Result<Twin> {
        let id = Uuid::new_v4().to_string();
        let text = self.cluster.virsh(self.home, &["dumpxml", "--migratable", model])?;
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
    async fn boot(&self, cluster: &Cluster, host: usize) -> Result<f64> {
        let begun = Instant::now();
        cluster.virsh(host, &["define", &self.definition.to_string_lossy()])?;
        cluster.virsh(host, &["start", FOREIGN])?;
        until_up(&self.console, begun).await?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Moves it.
    async fn migrate(&self, cluster: &Cluster, here: usize, there: usize) -> Result<Move> {
        let since_us = now_us()?;
        let daemon = cluster.migration_uri(there).context("there is no hypervisor")?;
        let data = cluster.memory_uri(there);
        let words = ["migrate", "--live", "--p2p", "--tls", "--persistent", "--undefinesource"];
        cluster.virsh(here, &[&words[..], &[FOREIGN, &daemon, "--migrateuri", &data]].concat())?;
        let took_ms = (now_us()? - since_us) as f64 / 1_000.0;
        let (there_ms, down_ms) = went_on(cluster, &self.id, there, since_us).await?;
        Ok(Move { took_ms, there_ms, down_ms })
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

/// Waits until a host executes a guest. How long that was after `since_us`, and for how long nobody had before,
/// milliseconds.
async fn went_on(cluster: &Cluster, vm: &str, host: usize, since_us: u64) -> Result<(f64, f64)> {
    let begun = Instant::now();
    loop {
        let witness = cluster.witness(vm)?;
        ensure!(witness.overlaps().is_empty(), "two hosts execute a guest: {witness:?}");
        if let Some(there) = witness.begun_since(host, since_us) {
            let gap_us = witness.gap_before_us(&there).context("nobody executed it before")?;
            return Ok(((there.begun_us - since_us) as f64 / 1_000.0, gap_us as f64 / 1_000.0));
        }
        ensure!(begun.elapsed() < PATIENCE, "the guest does not go on: {witness:?}");
        tokio::time::sleep(LOOK).await;
    }
}

fn now_us() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}
