//! The libvirtd of a node's hypervisor is killed. Its guests go on, and it is started again.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::{Fault, Proof, Site};

#[derive(Default)]
pub(super) struct LibvirtdKilled {
    victim: Option<usize>,
    pid: i32,
    guests: Vec<i32>,
}

#[async_trait]
impl Fault for LibvirtdKilled {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let Some(victim) = site.take() else { return Ok(Vec::new()) };
        let daemon = site.cluster.libvirtd(victim);
        if daemon.is_none() || site.cluster.kill_libvirtd(victim).is_err() {
            // It is just being started.
            site.give_back(victim);
            return Ok(Vec::new());
        }
        self.guests = site.cluster.guests(victim);
        (self.victim, self.pid) = (Some(victim), daemon.context("there is one")?);
        Ok(vec![victim])
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let victim = self.victim.take().context("no libvirtd was killed")?;
        site.give_back(victim);
        let next = site.cluster.libvirtd(victim).filter(|pid| *pid != self.pid);
        Ok(match next {
            Some(next) => {
                let guests = self.guests.len();
                Ok(format!("{} was killed beside {guests} guests, {next} serves", self.pid))
            }
            None => Err("it was not started again".to_owned()),
        })
    }
}
