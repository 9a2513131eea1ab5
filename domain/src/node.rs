//! A node: our process on a machine, a peer of the Raft group.

use serde::{Deserialize, Serialize};

use crate::{
    Draft, Revision, State,
    event::Change,
    id::{Digest, NodeId, StoreId},
    limit,
    name::Name,
    principal::Principal,
    rejected::{Reason, Rejected, Violation},
    setting::Key,
    table::{Resource, Row, Table},
    token::{self, JoinToken},
};

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its identity, never given twice.
    pub id: NodeId,
    /// Its name, unique in the cluster.
    pub name: Name,
    /// Where other nodes reach it, `host:port`.
    pub peer_address: String,
    /// Where clients reach it, `host:port`.
    pub api_address: String,
    /// The identity of its data directory.
    pub store: StoreId,
    /// SHA-256 of its public key.
    pub key_sha256: Digest,
    /// The newest protocol version it understands.
    #[serde(default)]
    pub protocol_max: u32,
    /// Use of its data disk, percent, as it reported last.
    #[serde(default)]
    pub disk_used_percent: u8,
    /// The program's version, as it reported last.
    #[serde(default)]
    pub version: String,
    /// Wall time when it joined, Unix milliseconds.
    pub joined_wall_ms: u64,
    /// The entry that changed it last.
    pub revision: Revision,
}

/// How a node is, besides what decisions rest on. It is no row, since it comes again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// By how much its clock is ahead of the leader's, milliseconds. The way of its report to the leader is a part
    /// of it, so it is told in steps of [`limit::CLOCK_SKEW_STEP_MS`].
    pub clock_skew_ms: i64,
    /// The slowest sync of its log in the half minute before the report, milliseconds.
    pub slowest_sync_ms: u32,
    /// Wall time at which its certificate expires, Unix milliseconds.
    pub certificate_until_wall_ms: u64,
    /// Lease time of the report, milliseconds.
    pub at_ms: u64,
}

/// The same as the node itself knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnCondition {
    /// Its wall clock, Unix milliseconds.
    pub wall_ms: u64,
    /// See [`Condition::slowest_sync_ms`].
    pub slowest_sync_ms: u32,
    /// See [`Condition::certificate_until_wall_ms`].
    pub certificate_until_wall_ms: u64,
}

/// What a machine that wants to join says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// SHA-256 of the token's secret.
    pub secret_sha256: Digest,
    /// The name it wants.
    pub name: Name,
    /// Where other nodes will reach it.
    pub peer_address: String,
    /// Where clients will reach it.
    pub api_address: String,
    /// The identity of its data directory.
    pub store: StoreId,
    /// SHA-256 of its public key.
    pub key_sha256: Digest,
    /// The newest protocol version it understands.
    pub protocol_max: u32,
}

/// What a node says of itself from time to time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Use of its data disk, percent.
    pub disk_used_percent: u8,
    /// How it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<OwnCondition>,
    /// The program's version.
    pub version: String,
    /// The newest protocol version it understands.
    pub protocol_max: u32,
    /// Where other nodes reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub api_address: String,
}

/// What may be asked of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum NodeCommand {
    /// Admit a machine that has a token.
    Join(Box<Join>),
    /// A node's own report.
    Report(Box<Health>),
    /// Expel a node. Its id never returns.
    Remove {
        /// The node.
        node: NodeId,
    },
}

impl Resource for Node {
    type Key = NodeId;

    fn key(&self) -> NodeId {
        self.id
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Node> {
        &state.nodes
    }
    fn table_mut(state: &mut State) -> &mut Table<Node> {
        &mut state.nodes
    }
    fn change(row: Row<Node>) -> Change {
        Change::Node(row)
    }
}

impl State {
    /// What a node said of itself, unless that is long ago.
    #[must_use]
    pub fn condition_of(&self, node: NodeId) -> Option<&Condition> {
        let condition = self.conditions.get(&node)?;
        (self.now_ms <= condition.at_ms + limit::CONDITION_MS).then_some(condition)
    }

    /// The node called `name`.
    #[must_use]
    pub fn node_named(&self, name: &Name) -> Option<&std::sync::Arc<Node>> {
        self.nodes.values().find(|node| node.name == *name)
    }

    /// Whether `node` was a member once and is no more. Ids are log indexes, so every id up to the
    /// newest entry that is not a member's either never was one or was removed.
    #[must_use]
    pub fn is_removed(&self, node: NodeId) -> bool {
        !self.nodes.contains_key(&node) && node <= self.index
    }

    /// The node whose disk is too full for growth, if there is one.
    #[must_use]
    pub fn full_disk(&self) -> Option<&Node> {
        let limit = self.setting(Key::DiskFullPercent);
        let full = |node: &&std::sync::Arc<Node>| u64::from(node.disk_used_percent) >= limit;
        self.nodes.values().find(full).map(|node| &**node)
    }
}

/// Decides about nodes.
pub(crate) fn decide(draft: &mut Draft, command: NodeCommand) -> Result<(), Rejected> {
    match command {
        NodeCommand::Join(join) => admit(draft, *join),
        NodeCommand::Report(health) => report(draft, *health),
        NodeCommand::Remove { node } => remove(draft, node),
    }
}

fn admit(draft: &mut Draft, join: Join) -> Result<(), Rejected> {
    let state = draft.state();
    let token = token::present(state, join.secret_sha256, &join.name, draft.wall_ms())?;
    if let Some(id) = token.used_by {
        // A lost reply burns nothing: the same machine with the same key gets the same answer.
        let same = state
            .nodes
            .get(&id)
            .is_some_and(|node| node.store == join.store && node.key_sha256 == join.key_sha256);
        if same {
            draft.reply_object("node", id);
            return Ok(());
        }
        let message = "the join token was used by another machine; create a new one";
        return Err(Rejected::new(Reason::TokenUsed, message));
    }
    if state.node_named(&join.name).is_some() {
        let message = format!(
            "a node named {} is a member; remove it first or choose another name",
            join.name
        );
        return Err(Rejected::new(Reason::NameTaken, message));
    }
    if join.protocol_max < state.protocol_version {
        let message = format!(
            "the cluster speaks protocol {} and this node only {}; install the newer program",
            state.protocol_version, join.protocol_max
        );
        return Rejected::unless_empty(vec![Violation::new("protocol_max", message)]);
    }
    draft.room_for("nodes", state.nodes.len(), limit::NODES_MAX)?;
    let id = draft.index();
    draft.put(JoinToken { used_by: Some(id), ..token });
    draft.put(Node {
        id,
        name: join.name,
        peer_address: limit::clip(&join.peer_address),
        api_address: limit::clip(&join.api_address),
        store: join.store,
        key_sha256: join.key_sha256,
        protocol_max: join.protocol_max,
        disk_used_percent: 0,
        version: String::new(),
        joined_wall_ms: draft.wall_ms(),
        revision: Revision::ZERO,
    });
    draft.reply_object("node", id);
    Ok(())
}

fn report(draft: &mut Draft, health: Health) -> Result<(), Rejected> {
    let Principal::Node(id) = *draft.principal() else {
        return Err(Rejected::new(Reason::PermissionDenied, "only nodes report their health"));
    };
    let Some(old) = draft.state().nodes.get(&id).cloned() else {
        let message = format!("node {id} was removed; run `novacron node reset` and join again");
        return Err(Rejected::new(Reason::NodeRemoved, message));
    };
    if let Some(own) = health.condition {
        let condition = Condition {
            clock_skew_ms: skew(own.wall_ms, draft.wall_ms()),
            slowest_sync_ms: own.slowest_sync_ms,
            certificate_until_wall_ms: own.certificate_until_wall_ms,
            at_ms: draft.state().now_ms,
        };
        draft.note_condition(id, Some(condition));
    }
    let new = Node {
        disk_used_percent: health.disk_used_percent,
        version: limit::clip(&health.version),
        protocol_max: health.protocol_max,
        peer_address: limit::clip(&health.peer_address),
        api_address: limit::clip(&health.api_address),
        ..Node::clone(&old)
    };
    if new != *old {
        draft.put(new);
    }
    Ok(())
}

/// By how much a clock is ahead of the leader's, in steps.
fn skew(wall_ms: u64, leader_wall_ms: u64) -> i64 {
    const STEP: i64 = limit::CLOCK_SKEW_STEP_MS;
    let ahead = i128::from(wall_ms) - i128::from(leader_wall_ms);
    let ahead = i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN / 2 } else { i64::MAX / 2 });
    ahead / STEP * STEP
}

fn remove(draft: &mut Draft, id: NodeId) -> Result<(), Rejected> {
    let state = draft.state();
    let node = state.nodes.get(&id).ok_or_else(|| Rejected::not_found("node", id))?;
    if state.nodes.len() == 1 {
        return Err(Rejected::new(Reason::LastVoter, "the last node cannot be removed"));
    }
    let hosts = state.hosts.values().filter(|host| host.node == id);
    let hosts: Vec<_> = hosts.map(|host| host.id).collect();
    let bodies: usize = hosts.iter().map(|host| state.instances_on(*host).count()).sum();
    if bodies > 0 {
        let message =
            format!("node {} drives hosts with {bodies} VMs; delete them first", node.name);
        return Err(Rejected::new(Reason::HostInUse, message));
    }
    // Nobody drives them any more: no VM may be placed on them from here on.
    hosts.into_iter().for_each(|host| crate::host::lose(draft, host));
    crate::image::forget_holder(draft, id);
    draft.delete::<Node>(id);
    draft.note_condition(id, None);
    draft.reply_object("node", id);
    Ok(())
}
