//! Who asks, and what they may.

use serde::{Deserialize, Serialize};

use crate::id::{CredentialId, NodeId};

/// The author of a command. Whether it still may is decided when the command is applied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Principal {
    /// A node of this cluster, on behalf of its actors.
    Node(NodeId),
    /// The holder of a credential.
    Credential(CredentialId),
    /// Somebody who has nothing but a join token, which the command itself carries.
    Joiner,
    /// `novacron init`, before there is anybody else.
    Founder,
}

/// What a credential allows. Each role may all that the one before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads everything but secrets.
    Viewer,
    /// Creates and runs VMs and images.
    Operator,
    /// Also changes the cluster: members, tokens, credentials, settings, hosts.
    Admin,
}

impl Role {
    /// Every role, least first.
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a command needs of its author.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A credential of at least this role.
    Role(Role),
    /// Any node of the cluster: observations and time.
    Node,
    /// A join token, which the noun's own rule checks.
    Token,
    /// Only the founding entry.
    Founding,
}
