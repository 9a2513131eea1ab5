//! All who use a cluster while it is struck.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use lab::Cluster;
use tokio::task::JoinSet;

use crate::{
    history::History,
    workload::{
        HostKind, Load, backups::Backups, lists::Lists, lives::Lives, locks, queue::Queue,
        registers::Registers, watches::Watchers,
    },
};

/// Clients that use registers, that use locks, and that lead VMs through their lives.
const CLIENTS: u64 = 24;
const HOLDERS: u64 = 10;
const LEADERS: u64 = 10;
/// The same, of real guests.
const REAL_LEADERS: u64 = 5;
/// Clients that read lists and append to them.
const APPENDERS: u64 = 4;
/// Clients that have drivers asked.
const ASKERS: u64 = 2;
/// How long clients may wait for the answers to what they asked last.
const LAST_ANSWERS: Duration = Duration::from_secs(20);

/// They, and what they use.
pub(crate) struct Users {
    pub load: Load,
    pub registers: Arc<Registers>,
    pub lives: Arc<Lives>,
    pub backups: Arc<Backups>,
    /// Nobody, once they were asked what they have seen.
    pub watchers: Option<Watchers>,
    busy: Vec<JoinSet<()>>,
}

impl Users {
    /// They begin. What each does is drawn from the seed; backups go to the directory.
    ///
    /// # Errors
    /// When what they use cannot be made.
    pub(crate) async fn begin(
        cluster: &Cluster,
        history: Arc<History>,
        directory: &Path,
        seed: u64,
    ) -> Result<Users> {
        let load = Load::new(cluster, history)?;
        let registers = Registers::make(&load).await.context("cannot make registers")?;
        let lists = Lists::make(&load).await.context("cannot make a list")?;
        let since = registers.write_one(&load).await.context("cannot write to a register")?;
        let watchers = Some(Watchers::begin(&load, since));
        let lives = Arc::new(Lives::default());
        let backups = Backups::in_directory(directory);
        let busy = vec![
            registers.use_them(&load, CLIENTS, seed),
            lists.use_them(&load, APPENDERS, seed),
            locks::take(&load, HOLDERS, seed),
            lives.lead(&load, HostKind::Simulated, LEADERS, seed),
            lives.lead(&load, HostKind::Real, REAL_LEADERS, seed),
            Arc::<Queue>::default().fill(&load, ASKERS, seed),
            backups.make_them(&load, seed),
        ];
        Ok(Users { load, registers, lives, backups, watchers, busy })
    }

    /// They ask for nothing more; watchers go on.
    pub(crate) async fn rest(&mut self) {
        self.load.stop();
        for mut users in self.busy.drain(..) {
            // What is still asked then is never answered: nobody knows what became of it.
            let all = async { while users.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(LAST_ANSWERS, all).await;
            users.shutdown().await;
        }
    }
}
