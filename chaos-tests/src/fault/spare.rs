//! One more node joins, gets a vote, and is removed again: the group and its members change while everything else
//! goes on.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use client::{
    Client,
    v1::{self, clusters_client::ClustersClient, tokens_client::TokensClient},
};

use super::{Fault, Proof, Site};

/// How long a change may take to be known.
const DEADLINE: Duration = Duration::from_secs(3);
/// The same when it is tried again and again, and other faults wait to be mended meanwhile.
const SHORTLY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Spare;

#[async_trait]
impl Fault for Spare {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let client = site.client(DEADLINE)?;
        // It may be a member yet, when it could not be removed the last time or joined after all.
        if site.lingers || !leave(site, &client).await? {
            return Ok(Vec::new());
        }
        let (_, name) = site.cluster.spare();
        match token(&client, name).await {
            Ok(token) => site.cluster.spare_joins(&token)?,
            Err(_) => return Ok(Vec::new()),
        }
        Ok((0..site.nodes()).collect())
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        let (number, name) = site.cluster.spare();
        let views = site.views().await.into_iter().flatten();
        let newest = views.max_by_key(|view| (view.term, view.revision)).unwrap_or_default();
        let joined = newest.nodes.into_iter().find(|node| node.name == name);
        let ended = site.cluster.ended(number);
        // With 1 it ends that gave up to join, although that was done.
        if let Some(how) = ended.filter(|how| joined.is_some() && how.code() != Some(1)) {
            site.complain(number, format!("as a member it ended by itself: {how}"));
        }
        site.lingers = true;
        see_out(site).await?;
        Ok(match joined {
            None => Err("it did not join in time".to_owned()),
            Some(node) => Ok(format!("it joined as node {}, {}", node.id, node.role)),
        })
    }
}

/// Has the spare node leave, if it lingers. It may lead: until it has gone nobody can be struck who does.
pub(super) async fn see_out(site: &mut Site) -> Result<()> {
    if site.lingers {
        let client = site.client(SHORTLY)?;
        site.lingers = !leave(site, &client).await?;
    }
    Ok(())
}

/// Has the spare node removed, and ends it; whether that was done.
///
/// # Errors
/// When it cannot be ended.
pub(crate) async fn leave(site: &mut Site, client: &Client) -> Result<bool> {
    let (_, node) = site.cluster.spare();
    let removed = async {
        let request = v1::RemoveNodeRequest { mutation: client.mutation().await?, node };
        let call = client.call(request, async |channel, request| {
            ClustersClient::new(channel).remove_node(request).await
        });
        call.await
    };
    match removed.await {
        Ok(_) => {}
        // It never joined, or is gone since an attempt of which nobody heard.
        Err(error) if error.reason() == "NOT_FOUND" => {}
        Err(_) => return Ok(false),
    }
    site.cluster.spare_leaves()?;
    Ok(true)
}

async fn token(client: &Client, node: String) -> Result<String> {
    let mutation = client.mutation().await?;
    let request = v1::CreateTokenRequest { mutation, node, ..Default::default() };
    let call = client.call(request, async |channel, request| {
        TokensClient::new(channel).create_token(request).await
    });
    let token = call.await?.token;
    let token = token.trim();
    Ok(token.strip_prefix("novacron join ").unwrap_or(token).to_owned())
}
