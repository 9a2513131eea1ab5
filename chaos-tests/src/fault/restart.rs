//! A node is stopped as for an upgrade, and started again: with the next program, if it had the one of an earlier
//! version.

use std::process::ExitStatus;

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct Restart {
    victim: Option<usize>,
    /// How it ended.
    ended: Option<ExitStatus>,
    /// Whether its program was replaced.
    replaced: bool,
}

#[async_trait]
impl Fault for Restart {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take_to_restart() else { return Ok(Vec::new()) };
        if site.cluster.ended(victim).is_some() {
            // Whoever looks for nodes that end by themselves is to find it.
            site.give_back(victim);
            return Ok(Vec::new());
        }
        self.victim = Some(victim);
        self.replaced = site.cluster.is_previous(victim);
        self.ended = site.restart(victim).await?;
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let victim = self.victim.take().context("nobody was stopped")?;
        site.give_back(victim);
        let code = self.ended.and_then(|ended| ended.code());
        let view = site.views().await.swap_remove(victim);
        let name = format!("n{}", victim + 1);
        let row = view.iter().flat_map(|view| &view.nodes).find(|node| node.name == name);
        let speaks = row.map_or(0, |node| node.protocol_max);
        let program = if self.replaced { "the next" } else { "the same" };
        let told =
            format!("it ended with {code:?}, and {program} program speaks protocol {speaks}");
        Ok(if code == Some(0) && row.is_some() { Ok(told) } else { Err(told) })
    }
}
