//! Where rows are measured: a cluster of ours and one of etcd, on the same machine at the same time.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use client::Client;
use tonic::transport::Channel;

use crate::{
    book::{Aim, Book},
    etcd::Etcd,
    load::{Askers, Lasting, Seen, drive},
    ours::{CLIENTS_OF_CONNECTION, Ours},
};

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// How often each figure is taken, ours and the peer's in turn.
    pub(crate) rounds: usize,
    /// How long each load lasts.
    pub(crate) lasting: Lasting,
    /// With how many clients.
    pub(crate) clients: Vec<usize>,
    /// VMs that there are when lists are read and nothing is done.
    pub(crate) vms: usize,
    /// By what hosts and VMs of placements are divided.
    pub(crate) fewer: u64,
    /// How often a leader is killed.
    pub(crate) kills: usize,
    /// How long nothing is done.
    pub(crate) idle: Duration,
    /// How long reads and changes come at a fixed rate.
    pub(crate) mixed: Duration,
    /// How many watch.
    pub(crate) watchers: usize,
    /// How often a guest is booted, and how often moved.
    pub(crate) guests: usize,
    /// Before something is measured, for what was before to be over: an election after a pause, a guest's end.
    pub(crate) settle: Duration,
}

impl Extent {
    /// As the page has it.
    pub(crate) fn whole(clients: Vec<usize>) -> Extent {
        let (warm_up, counted) = (Duration::from_secs(1), Duration::from_secs(4));
        Extent {
            rounds: 3,
            lasting: Lasting { warm_up, counted },
            clients,
            vms: 10_000,
            fewer: 1,
            kills: 20,
            idle: Duration::from_secs(60),
            mixed: Duration::from_secs(300),
            watchers: 1_000,
            guests: 12,
            settle: Duration::from_secs(2),
        }
    }

    /// Only to see that it works.
    pub(crate) fn short() -> Extent {
        let (warm_up, counted) = (Duration::from_millis(200), Duration::from_millis(500));
        Extent {
            rounds: 1,
            lasting: Lasting { warm_up, counted },
            clients: vec![2],
            vms: 50,
            fewer: 100,
            kills: 1,
            idle: Duration::from_secs(1),
            mixed: Duration::from_secs(1),
            watchers: 10,
            guests: 1,
            settle: Duration::from_millis(300),
        }
    }
}

/// The two clusters.
pub(crate) struct Field {
    pub(crate) extent: Extent,
    pub(crate) ours: Ours,
    pub(crate) etcd: Etcd,
}

/// What a load on both has shown.
pub(crate) struct Both {
    ours: Vec<Seen>,
    etcd: Vec<Seen>,
}

impl Field {
    pub(crate) async fn start(programs: PathBuf, extent: Extent) -> Result<Field> {
        let (etcd, ours) = (Etcd::start().await?, Ours::start(programs).await?);
        Ok(Field { extent, ours, etcd })
    }

    /// A client of ours for each of so many.
    pub(crate) async fn clients(&self, count: usize) -> Result<Vec<Client>> {
        self.ours.many_clients(count).await
    }

    /// A channel to etcd for each of so many.
    pub(crate) async fn channels(&self, count: usize) -> Result<Vec<Channel>> {
        let few = self.etcd.channels(count.div_ceil(CLIENTS_OF_CONNECTION)).await?;
        Ok(few.into_iter().cycle().take(count).collect())
    }

    /// Loads one and the other, in turn, round by round. The one that is not loaded stands still: what it still has
    /// to do would be in the way.
    pub(crate) async fn drive_both(
        &self,
        ours: impl AsyncFn(usize) -> Result<Askers>,
        etcd: impl AsyncFn() -> Result<Askers>,
    ) -> Result<Both> {
        let mut both = Both { ours: Vec::new(), etcd: Vec::new() };
        for round in 0..self.extent.rounds {
            self.etcd.pause()?;
            both.ours.push(drive(ours(round).await?, self.extent.lasting).await?);
            self.ours.pause()?;
            self.etcd.resume(self.extent.settle).await?;
            both.etcd.push(drive(etcd().await?, self.extent.lasting).await?);
            self.ours.resume(self.extent.settle).await?;
        }
        Ok(both)
    }
}

impl Both {
    /// Writes it down: answers per second, which are to be so many times etcd's, and times.
    pub(crate) fn write(&self, book: &mut Book, row: u8, case: &str, times: f64) -> Result<()> {
        ensure!(self.ours.len() == self.etcd.len(), "a round is missing");
        let all = |figure: fn(&Seen) -> f64| {
            (self.ours.iter().map(figure).collect(), self.etcd.iter().map(figure).collect())
        };
        book.beside(row, case, "per s", all(|seen| seen.per_s), "etcd", Aim::TimesAtLeast(times));
        book.beside(row, case, "ms, p50", all(|seen| seen.p50_ms), "etcd", Aim::Told);
        book.beside(row, case, "ms, p99", all(|seen| seen.p99_ms), "etcd", Aim::TimesAtMost(1.0));
        Ok(())
    }
}
