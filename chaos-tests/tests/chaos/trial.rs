//! A cluster on disks of its own, and what is written to it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use lab::{Cluster, ClusterOptions, Hosts, Storage, disks_are_possible};
use novacron_chaos_tests::Counters;

pub const NODES: usize = 3;
/// So many writers keep every group commit full.
const WRITERS: usize = 32;

pub struct Trial {
    pub cluster: Cluster,
    pub counters: Counters,
}

impl Trial {
    pub async fn start(storage: Storage) -> Result<Trial> {
        let test = std::env::current_exe()?;
        let programs: PathBuf = test.ancestors().nth(2).map(Into::into).unwrap_or_default();
        let options =
            ClusterOptions { storage, ..ClusterOptions::new(NODES, Hosts::Simulated, programs) };
        let cluster = Cluster::start(options, |_| ()).await?;
        cluster.await_voters(NODES).await?;
        let counters = Counters::make(&cluster.client()?, WRITERS).await?;
        Ok(Trial { cluster, counters })
    }

    /// Writes for a while and cuts the victims' power. The answer is how many bytes were lost that
    /// were not synced.
    pub async fn cut(&mut self, victims: &[usize], load: Duration) -> Result<u64> {
        let client = self.cluster.client()?;
        let writers = self.counters.write(&client);
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
    pub async fn recover(&mut self, victims: &[usize]) -> Result<()> {
        for victim in victims {
            self.cluster.run(*victim)?;
        }
        for victim in victims {
            self.cluster.await_ready(*victim).await?;
        }
        for node in 0..NODES {
            let client = self.cluster.patient_client_of(node)?;
            if let Err(all) = self.counters.check(&client).await? {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                bail!("node {} has lost what was acknowledged: {}", node + 1, all.join("; "));
            }
        }
        Ok(())
    }

    /// Waits until those that are left have gone on.
    pub async fn await_progress(&self, victims: &[usize]) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let (begun, before) = (Instant::now(), self.counters.acknowledged());
        while self.counters.acknowledged() < before + WRITERS as u64 {
            if begun.elapsed() > PATIENCE {
                bail!("{victims:?} was away and for {PATIENCE:?} nothing went on");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

pub fn is_possible() -> bool {
    let Err(why) = disks_are_possible() else { return true };
    assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "{why}");
    println!("SKIPPED power cuts: {why}");
    false
}
