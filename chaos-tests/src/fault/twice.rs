//! Packets between nodes come twice, whichever chance wants.

use anyhow::Result;
use async_trait::async_trait;

use super::{Fault, Proof, Site};

/// Of a hundred.
const PERCENT: std::ops::RangeInclusive<u32> = 10..=60;

#[derive(Default)]
pub(super) struct Twice {
    doubled: u64,
}

#[async_trait]
impl Fault for Twice {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        self.doubled = site.cluster.send_packets_once()?;
        site.cluster.send_packets_twice(site.random.u32(PERCENT))?;
        Ok((0..site.nodes()).collect())
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let doubled = site.cluster.send_packets_once()? - self.doubled;
        let told = format!("{doubled} packets sent twice");
        Ok(if doubled > 0 { Ok(told) } else { Err(told) })
    }
}
