//! The wall clock of the leader jumps, or that of every node to somewhere else; forward or back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use async_trait::async_trait;
use client::{
    Client,
    v1::{self, events_client::EventsClient},
};
use tokio::task::JoinSet;

use super::{Fault, Proof, Site};

/// Jumps, seconds: far more than any lease lasts.
const OFF_S: std::ops::RangeInclusive<i64> = 30..=300;
/// Between two looks at the log: who leads when the clocks are set right may not be who led when they were set wrong.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct ClockJump {
    /// Who look at the log, through each node.
    looks: JoinSet<()>,
    /// How far the newest entry of the log was off at most.
    most_off_s: Arc<AtomicU64>,
}

#[async_trait]
impl Fault for ClockJump {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let everybody = site.random.bool();
        let leader = site.leader.filter(|_| !everybody);
        let victims = leader.map_or_else(|| (0..site.nodes()).collect(), |leader| vec![leader]);
        for victim in &victims {
            let off_s = site.random.i64(OFF_S);
            let off_s = if site.random.bool() { off_s } else { -off_s };
            site.cluster.set_wall_clock(*victim, off_s)?;
        }
        for node in 0..site.nodes() {
            self.looks.spawn(look(site.cluster.client_of(node)?, self.most_off_s.clone()));
        }
        Ok(victims)
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        self.looks.abort_all();
        for node in 0..site.nodes() {
            site.cluster.set_wall_clock(node, 0)?;
        }
        let off_s = self.most_off_s.load(Ordering::Relaxed);
        let told = format!("the newest entry of the log was up to {off_s} s off");
        Ok(if off_s < OFF_S.start().unsigned_abs() / 2 { Err(told) } else { Ok(told) })
    }
}

/// Looks at the newest entry again and again.
async fn look(client: Client, most_off_s: Arc<AtomicU64>) {
    let mut before = None;
    loop {
        if let Ok((revision, off_s)) = newest(&client).await {
            // One that was there before may be old because nobody leads.
            if before.is_some_and(|before| revision > before) {
                most_off_s.fetch_max(off_s, Ordering::Relaxed);
            }
            before = Some(revision);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The newest entry, and how far its time is off, seconds.
async fn newest(client: &Client) -> Result<(u64, u64)> {
    let request = v1::ListEventsRequest { since_revision: 0, limit: 1 };
    let listed = client
        .call(request, async |channel, request| {
            EventsClient::new(channel).list_events(request).await
        })
        .await?;
    let event = listed.events.last().context("there is no entry")?;
    let at: jiff::Timestamp = event.at.parse()?;
    Ok((event.revision, at.as_second().abs_diff(jiff::Timestamp::now().as_second())))
}
