//! The cluster itself: its founding, and its time.

use serde::{Deserialize, Serialize};

use crate::{
    Draft, Revision, State, alert,
    credential::Credential,
    host,
    id::{ClusterId, CredentialId, Digest, NodeId, StoreId, TokenId},
    lock,
    name::Name,
    node::Node,
    operation,
    principal::Role,
    project::Project,
    rejected::{Reason, Rejected, Violation},
    token::JoinToken,
};

/// The newest protocol version that this program understands. What is in force is [`State::protocol_version`]; nothing
/// newer is proposed.
///
/// | version | since then |
/// |---|---|
/// | 1 | |
/// | 2 | the version of a cluster is raised; a state says since when its version is in force; leaders ask others whether they have promised themselves to somebody else |
/// | 3 | a VM whose host was lost starts elsewhere without waiting for what its guest's crashes were to cost it |
pub const PROTOCOL_VERSION: u32 = 3;

/// The version of clusters that were founded before the founding said which.
pub(crate) const PROTOCOL_FIRST: u32 = 1;

/// Since this version a leader asks others whether they have promised themselves to somebody else.
pub const PROTOCOL_CONFIRM: u32 = 2;

/// Since this version the crashes of a guest whose host was lost are forgiven.
pub(crate) const PROTOCOL_FORGIVE: u32 = 3;

/// Who the cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its identity.
    pub id: ClusterId,
    /// Its name, for people.
    pub name: Name,
}

/// The first command of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founding {
    /// Who the cluster is.
    pub cluster: Cluster,
    /// The protocol version to begin with.
    #[serde(default = "protocol_first")]
    pub protocol_version: u32,
    /// The first node's id, as Raft was told it.
    pub node: NodeId,
    /// The first node's name.
    pub node_name: Name,
    /// Where other nodes reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub api_address: String,
    /// The identity of its data directory.
    pub store: StoreId,
    /// SHA-256 of its public key.
    pub key_sha256: Digest,
    /// The first admin credential.
    pub admin: CredentialId,
    /// SHA-256 of its secret.
    pub admin_sha256: Digest,
    /// One join token per expected node.
    pub tokens: Vec<Invitation>,
}

const fn protocol_first() -> u32 {
    PROTOCOL_FIRST
}

impl Founding {
    /// The first node, as a member.
    #[must_use]
    pub fn first_node(&self, wall_ms: u64) -> Node {
        Node {
            id: self.node,
            name: self.node_name.clone(),
            peer_address: self.peer_address.clone(),
            api_address: self.api_address.clone(),
            store: self.store,
            key_sha256: self.key_sha256,
            // What was founded by an older program is applied by newer ones, to the same state.
            protocol_max: self.protocol_version,
            disk_used_percent: 0,
            version: String::new(),
            joined_wall_ms: wall_ms,
            revision: Revision::ZERO,
        }
    }

    /// The admin credential, under a name.
    #[must_use]
    pub fn admin(&self, name: Name) -> Credential {
        Credential {
            id: self.admin,
            name,
            role: Role::Admin,
            secret_sha256: self.admin_sha256,
            expires_wall_ms: 0,
            revoked: false,
            revision: Revision::ZERO,
        }
    }

    /// The join tokens of those that are expected.
    pub fn join_tokens(&self) -> impl Iterator<Item = JoinToken> {
        self.tokens.iter().map(|invitation| JoinToken {
            id: invitation.token,
            secret_sha256: invitation.secret_sha256,
            node: invitation.node.clone(),
            expires_wall_ms: invitation.expires_wall_ms,
            used_by: None,
            revision: Revision::ZERO,
        })
    }
}

/// A join token of the founding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// The token's id.
    pub token: TokenId,
    /// SHA-256 of its secret.
    pub secret_sha256: Digest,
    /// The one node name it admits.
    pub node: Option<Name>,
    /// Wall time of its end, Unix milliseconds.
    pub expires_wall_ms: u64,
}

/// What may be asked of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ClusterCommand {
    /// Begin.
    Found(Box<Founding>),
    /// Time goes on: leases lapse and operations miss their deadlines. Carries the leader's hash of
    /// the history up to the tick before, so that a node that has diverged finds out.
    Tick(Mark),
    /// A newer protocol is in force from the next entry on. A program that does not understand it stops here.
    Raise {
        /// Its version.
        to: u32,
    },
}

/// A point of the history and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The log index.
    pub index: u64,
    /// The chained hash of all events up to it.
    pub chain: Digest,
}

/// Decides about the cluster.
pub(crate) fn decide(draft: &mut Draft, command: ClusterCommand) -> Result<(), Rejected> {
    match command {
        ClusterCommand::Found(founding) => found(draft, *founding),
        ClusterCommand::Tick(_) => {
            host::expire(draft);
            host::settle_drains(draft);
            operation::expire(draft);
            operation::look(draft);
            lock::expire(draft);
            alert::look(draft);
            draft.mark();
            Ok(())
        }
        ClusterCommand::Raise { to } => raise(draft, to),
    }
}

fn raise(draft: &mut Draft, to: u32) -> Result<(), Rejected> {
    let (now, common) = (draft.state().protocol_version, draft.state().protocol_common());
    if to <= now || to > common {
        let message = format!("protocol {now} is in force, and all nodes understand {common}");
        return Rejected::unless_empty(vec![Violation::new("to", message)]);
    }
    draft.raise(to);
    Ok(())
}

impl State {
    /// The newest protocol version that every member said it understands.
    #[must_use]
    pub fn protocol_common(&self) -> u32 {
        let all = self.nodes.values().map(|node| node.protocol_max);
        all.min().unwrap_or(self.protocol_version)
    }
}

fn found(draft: &mut Draft, founding: Founding) -> Result<(), Rejected> {
    if let Some(cluster) = &draft.state().cluster {
        let message = format!("this node belongs to cluster {} already", cluster.name);
        return Err(Rejected::new(Reason::ClusterExists, message));
    }
    let wall_ms = draft.wall_ms();
    draft.found(founding.cluster.clone(), founding.protocol_version);
    draft.put(Project { name: Name::default_project(), revision: Revision::ZERO });
    draft.put(founding.first_node(wall_ms));
    draft.put(founding.admin(admin_name()));
    founding.join_tokens().for_each(|token| draft.put(token));
    alert::Rule::defaults().for_each(|rule| draft.put(rule));
    draft.reply_object("node", founding.node);
    Ok(())
}

fn admin_name() -> Name {
    Name::new("admin").expect("the literal is a name")
}
