//! Packets between nodes are lost, whichever chance wants.

use anyhow::Result;
use async_trait::async_trait;

use super::{Fault, Proof, Site};

/// Of a hundred.
const PERCENT: std::ops::RangeInclusive<u32> = 10..=40;

#[derive(Default)]
pub(super) struct Loss {
    lost: u64,
}

#[async_trait]
impl Fault for Loss {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        self.lost = site.cluster.keep_packets()?;
        site.cluster.lose_packets(site.random.u32(PERCENT))?;
        Ok((0..site.nodes()).collect())
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let lost = site.cluster.keep_packets()? - self.lost;
        let told = format!("{lost} packets lost");
        Ok(if lost > 0 { Ok(told) } else { Err(told) })
    }
}
