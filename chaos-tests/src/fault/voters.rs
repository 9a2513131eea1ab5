//! Fewer nodes are to vote, and then all again: the group changes while everything else goes on.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use client::v1;

use super::{Fault, Proof, Site};
use crate::afterwards::{VOTERS, set_setting, votes_max};

/// How long a change may take to be known.
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(super) struct Voters {
    before: usize,
}

#[async_trait]
impl Fault for Voters {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        self.before = voters(site).await;
        let fewer = site.random.usize(3..site.nodes());
        match set_setting(&site.client(DEADLINE)?, VOTERS, fewer as u64).await {
            Ok(()) => Ok((0..site.nodes()).collect()),
            // It may be set all the same: the next one sets it anew.
            Err(_) => Ok(Vec::new()),
        }
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let after = voters(site).await;
        // When it cannot be set now, it is in the end of the run.
        let _ = set_setting(&site.client(DEADLINE)?, VOTERS, votes_max(site.nodes())).await;
        let told = format!("{} voters became {after}", self.before);
        Ok(if after == self.before || after == 0 { Err(told) } else { Ok(told) })
    }
}

/// How many nodes vote, as the node of the highest term knows; 0 when nobody answers.
async fn voters(site: &Site) -> usize {
    let views = site.views().await.into_iter().flatten();
    let votes = |node: &&v1::Node| matches!(node.role.as_str(), "leader" | "voter");
    let newest = views.max_by_key(|view| (view.term, view.revision));
    newest.map_or(0, |view| view.nodes.iter().filter(votes).count())
}
