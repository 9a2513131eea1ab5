//! The wall clock of the leader jumps, or that of every node to somewhere else; forward or back.

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use client::v1::{self, events_client::EventsClient};

use super::{Fault, Proof, Site};

/// Jumps, seconds: far more than any lease lasts.
const OFF_S: std::ops::RangeInclusive<i64> = 30..=300;

pub(super) struct ClockJump;

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
        Ok(victims)
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let seen = off_s(site).await;
        for node in 0..site.nodes() {
            site.cluster.set_wall_clock(node, 0)?;
        }
        Ok(match seen {
            Err(error) => Err(format!("{error:#}")),
            Ok(off_s) => {
                let told = format!("the newest entry of the log was {off_s} s off");
                if off_s.abs() < *OFF_S.start() / 2 { Err(told) } else { Ok(told) }
            }
        })
    }
}

/// How far the time of the newest entry is off, seconds.
async fn off_s(site: &Site) -> Result<i64> {
    let client = site.client(Duration::from_secs(3))?;
    let request = v1::ListEventsRequest { since_revision: 0, limit: 1 };
    let listed = client
        .call(request, async |channel, request| {
            EventsClient::new(channel).list_events(request).await
        })
        .await?;
    let event = listed.events.last().context("there is no entry")?;
    let at: jiff::Timestamp = event.at.parse()?;
    Ok(at.as_second() - jiff::Timestamp::now().as_second())
}
