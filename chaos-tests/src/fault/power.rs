//! The power of a node's disk is cut, or of all at once: what was not synced is gone.

use anyhow::Result;
use async_trait::async_trait;

use super::{Fault, Proof, Site};

pub(super) struct PowerCut {
    all: bool,
    victims: Vec<usize>,
    lost_bytes: u64,
}

impl PowerCut {
    pub(super) fn of_one() -> PowerCut {
        PowerCut { all: false, victims: Vec::new(), lost_bytes: 0 }
    }

    pub(super) fn of_all() -> PowerCut {
        PowerCut { all: true, ..PowerCut::of_one() }
    }
}

#[async_trait]
impl Fault for PowerCut {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        self.victims.extend(site.take());
        if self.all && !self.victims.is_empty() {
            // The others are whoever is there.
            site.at_leader = false;
            while let Some(other) = site.take() {
                self.victims.push(other);
            }
        }
        for victim in &self.victims {
            site.cluster.kill(*victim)?;
        }
        for victim in &self.victims {
            self.lost_bytes += site.cluster.cut_power(*victim)?;
        }
        Ok(self.victims.clone())
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        for victim in self.victims.drain(..) {
            site.cluster.run(victim)?;
            site.give_back(victim);
        }
        Ok(Ok(format!("{} KiB that were not synced are lost", self.lost_bytes >> 10)))
    }
}
