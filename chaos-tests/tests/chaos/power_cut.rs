//! The power of nodes fails under full load: everything that was not synced is gone.
//! `POWER_CUTS` says how many times (20), `SEED` repeats a run's choices.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use lab::{Cluster, ClusterOptions, Hosts, Storage, disks_are_possible};
use novacron_chaos_tests::Registers;

const NODES: usize = 3;
/// So many writers keep every group commit full.
const WRITERS: usize = 32;
/// Then another cluster begins: from one second of age to past a purge of its log.
const CUTS_PER_CLUSTER: u64 = 10;

struct Trial {
    cluster: Cluster,
    registers: Registers,
}

impl Trial {
    async fn start(storage: Storage) -> Result<Trial> {
        let test = std::env::current_exe()?;
        let programs: PathBuf = test.ancestors().nth(2).map(Into::into).unwrap_or_default();
        let options = ClusterOptions { nodes: NODES, hosts: Hosts::Simulated, programs, storage };
        let cluster = Cluster::start(options, |_| ()).await?;
        cluster.await_voters(NODES).await?;
        let registers = Registers::make(&cluster.client()?, WRITERS).await?;
        Ok(Trial { cluster, registers })
    }

    /// Writes for a while and cuts the victims' power. The answer is how many bytes were lost that
    /// were not synced.
    async fn cut(&mut self, victims: &[usize], load: Duration) -> Result<u64> {
        let client = self.cluster.client()?;
        let writers = self.registers.write(&client);
        tokio::time::sleep(load).await;
        for victim in victims {
            self.cluster.kill(*victim)?;
        }
        let mut lost = 0;
        for victim in victims {
            lost += self.cluster.cut_power(*victim)?;
        }
        if victims.len() < NODES {
            self.await_progress(victims).await?;
        }
        drop(writers);
        Ok(lost)
    }

    /// Lets the victims come back, and looks whether every node has what was acknowledged.
    async fn recover(&mut self, victims: &[usize]) -> Result<()> {
        for victim in victims {
            self.cluster.run(*victim)?;
        }
        for victim in victims {
            self.cluster.await_ready(*victim).await?;
        }
        for node in 0..NODES {
            let client = self.cluster.client_of(node)?;
            if let Err(all) = self.registers.check(&client).await? {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                bail!("node {} has lost what was acknowledged: {}", node + 1, all.join("; "));
            }
        }
        Ok(())
    }

    /// Waits until those that are left have gone on.
    async fn await_progress(&self, victims: &[usize]) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let (begun, before) = (Instant::now(), self.registers.acknowledged());
        while self.registers.acknowledged() < before + WRITERS as u64 {
            if begun.elapsed() > PATIENCE {
                bail!("{victims:?} was away and for {PATIENCE:?} nothing went on");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn is_possible() -> bool {
    let Err(why) = disks_are_possible() else { return true };
    assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "{why}");
    println!("SKIPPED power cuts: {why}");
    false
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost() {
    if !is_possible() {
        return;
    }
    let cuts = number("POWER_CUTS").unwrap_or(20);
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let (begun, mut acknowledged, mut lost) = (Instant::now(), 0, 0);
    let mut trial = None;
    for cut in 0..cuts {
        if cut % CUTS_PER_CLUSTER == 0 {
            println!("after {cut} cuts {acknowledged} writes acknowledged, none lost");
            trial = Some(Trial::start(Storage::Disk).await.unwrap());
        }
        let trial = trial.as_mut().unwrap();
        // All at once in half of the cuts: then nobody else has what a disk has not.
        let victims = if cut % 2 == 0 { (0..NODES).collect() } else { vec![random.usize(..NODES)] };
        let load = Duration::from_millis(random.u64(200..2_000));
        let before = trial.registers.acknowledged();
        let fail = |error| -> ! {
            panic!("SEED={seed}, cut {cut} of {victims:?} after {load:?}: {error:#}")
        };
        lost += trial.cut(&victims, load).await.unwrap_or_else(|error: anyhow::Error| fail(error));
        trial.recover(&victims).await.unwrap_or_else(|error| fail(error));
        acknowledged += trial.registers.acknowledged() - before;
    }
    println!(
        "{cuts} power cuts in {:.0?}: {acknowledged} writes acknowledged and kept, {} KiB not \
         synced and lost; SEED={seed}",
        begun.elapsed(),
        lost >> 10
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_synced_is_noticed() {
    if !is_possible() {
        return;
    }
    let mut trial = Trial::start(Storage::DiskNeverSynced).await.unwrap();
    let victims: Vec<usize> = (0..NODES).collect();
    let mut kept = 0;
    while kept < 5 {
        // Only what the nodes do counts: a cut that failed is a broken test.
        trial.cut(&victims, Duration::from_secs(1)).await.unwrap();
        if let Err(error) = trial.recover(&victims).await {
            println!("noticed after {kept} cuts: {error:#}");
            return;
        }
        kept += 1;
    }
    panic!("the log was not synced, and {kept} power cuts lost nothing");
}
