//! What is proposed to the log: a command and the circumstances it is decided under.

use serde::{Deserialize, Serialize};

use crate::{
    Revision,
    alert::AlertCommand,
    canary::CanaryCommand,
    cluster::ClusterCommand,
    credential::CredentialCommand,
    host::HostCommand,
    id::{Digest, RequestId},
    image::ImageCommand,
    instance::InstanceCommand,
    lock::LockCommand,
    migration_policy::MigrationPolicyCommand,
    node::NodeCommand,
    operation::OperationCommand,
    principal::Principal,
    project::ProjectCommand,
    setting::SettingCommand,
    token::TokenCommand,
    trace::Trace,
    vm::VmCommand,
};

/// A request to change the state: one arm per noun. Nothing else changes it.
///
/// Adding an arm or a field needs a new protocol version: an older node stops before it applies
/// what it does not know, it never skips it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Command {
    /// The cluster and its time.
    Cluster(ClusterCommand),
    /// Nodes.
    Node(NodeCommand),
    /// Join tokens.
    Token(TokenCommand),
    /// Credentials.
    Credential(CredentialCommand),
    /// Settings.
    Setting(SettingCommand),
    /// Migration policies.
    MigrationPolicy(MigrationPolicyCommand),
    /// Projects.
    Project(ProjectCommand),
    /// Hosts and their leases.
    Host(HostCommand),
    /// Images.
    Image(ImageCommand),
    /// VMs.
    Vm(VmCommand),
    /// Bodies: placements and reports.
    Instance(InstanceCommand),
    /// Operations.
    Operation(OperationCommand),
    /// Locks.
    Lock(LockCommand),
    /// Alerts, their rules, and silences.
    Alert(AlertCommand),
    /// Canaries.
    Canary(CanaryCommand),
}

/// A client's idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The key.
    pub id: RequestId,
    /// The digest of the client's message, not of the command: ids are minted per attempt.
    pub digest: Digest,
    /// What the client had seen before it minted the key.
    pub since: Option<Revision>,
}

/// A command and its circumstances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Lease time, stamped by the leader that proposes, milliseconds.
    pub at_ms: u64,
    /// Wall time, stamped by the same, Unix milliseconds: for people and for expiry, never for
    /// leases.
    pub wall_ms: u64,
    /// The author.
    pub principal: Principal,
    /// The idempotency key, when the author gave one.
    #[serde(default)]
    pub request: Option<Request>,
    /// The call that asked, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// What is asked.
    pub command: Command,
}

/// The answer to an accepted command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outcome {
    /// The noun of the object: `vm`, `image` …
    pub kind: String,
    /// The object's id or, where the name is the identity, its name.
    pub object: String,
    /// The operation to wait for.
    pub operation: Option<crate::id::OperationId>,
    /// The entry that made the change; a read at this revision sees it.
    pub revision: Revision,
}
