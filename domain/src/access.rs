//! Who may what, decided when the command is applied: a credential revoked a moment before does not
//! slip through.

use crate::{
    State,
    alert::AlertCommand,
    cluster::ClusterCommand,
    envelope::Command,
    host::HostCommand,
    image::ImageCommand,
    lock::LockCommand,
    migration_policy::MigrationPolicyCommand,
    node::NodeCommand,
    operation::OperationCommand,
    principal::{Access, Principal, Role},
    rejected::{Reason, Rejected},
    vm::VmCommand,
};

impl Command {
    /// What the command needs of its author.
    #[must_use]
    pub const fn access(&self) -> Access {
        match self {
            Command::Cluster(ClusterCommand::Found(_)) => Access::Founding,
            Command::Cluster(ClusterCommand::Tick(_) | ClusterCommand::Raise { .. })
            | Command::Node(NodeCommand::Report(_))
            | Command::Host(
                HostCommand::Grant(_)
                | HostCommand::Renew(_)
                | HostCommand::Pools { .. }
                | HostCommand::Fencing { .. }
                | HostCommand::PoweredOff { .. },
            )
            | Command::Image(ImageCommand::Held { .. })
            | Command::Vm(VmCommand::Unplaceable(_))
            | Command::Operation(OperationCommand::Probed { .. })
            | Command::Alert(
                AlertCommand::Notify { .. }
                | AlertCommand::Notified { .. }
                | AlertCommand::Voters { .. },
            )
            | Command::Canary(_)
            | Command::Instance(_) => Access::Node,
            Command::Node(NodeCommand::Join(_)) => Access::Token,
            Command::Node(NodeCommand::Remove { .. })
            | Command::Host(
                HostCommand::Schedule { .. }
                | HostCommand::Restore { .. }
                | HostCommand::Label { .. }
                | HostCommand::ConfirmDead { .. }
                | HostCommand::Remove { .. },
            )
            | Command::Token(_)
            | Command::Credential(_)
            | Command::Setting(_)
            | Command::MigrationPolicy(_)
            | Command::Alert(AlertCommand::SetRule(_) | AlertCommand::DeleteRule { .. })
            | Command::Project(_) => Access::Role(Role::Admin),
            Command::Image(ImageCommand::Create { .. } | ImageCommand::Delete { .. })
            | Command::Vm(
                VmCommand::Create { .. }
                | VmCommand::Update { .. }
                | VmCommand::Start { .. }
                | VmCommand::Stop { .. }
                | VmCommand::Reboot { .. }
                | VmCommand::Pause { .. }
                | VmCommand::Resume { .. }
                | VmCommand::Migrate { .. }
                | VmCommand::Delete { .. },
            )
            | Command::Operation(
                OperationCommand::Cancel { .. }
                | OperationCommand::Retry { .. }
                | OperationCommand::Resume { .. }
                | OperationCommand::Abandon { .. }
                | OperationCommand::Probe { .. },
            )
            | Command::Alert(
                AlertCommand::Acknowledge { .. }
                | AlertCommand::SetSilence(_)
                | AlertCommand::DeleteSilence { .. },
            )
            | Command::Lock(_) => Access::Role(Role::Operator),
        }
    }

    /// Whether it makes the state grow, and so is refused while a disk is full. Deletes, reports
    /// and time always pass.
    #[must_use]
    pub const fn is_growth(&self) -> bool {
        match self {
            Command::Vm(VmCommand::Create { .. })
            | Command::Image(ImageCommand::Create { .. })
            | Command::Project(crate::project::ProjectCommand::Create { .. })
            | Command::Credential(crate::credential::CredentialCommand::Create { .. })
            | Command::MigrationPolicy(MigrationPolicyCommand::Set { .. })
            | Command::Alert(AlertCommand::SetRule(_))
            | Command::Operation(OperationCommand::Probe { .. })
            | Command::Lock(LockCommand::Acquire { .. })
            | Command::Node(NodeCommand::Join(_))
            | Command::Token(crate::token::TokenCommand::Create { .. }) => true,
            Command::Cluster(_)
            | Command::Node(NodeCommand::Report(_) | NodeCommand::Remove { .. })
            | Command::Token(crate::token::TokenCommand::Revoke { .. })
            | Command::Credential(crate::credential::CredentialCommand::Revoke { .. })
            | Command::Setting(_)
            | Command::MigrationPolicy(MigrationPolicyCommand::Delete { .. })
            | Command::Project(crate::project::ProjectCommand::Delete { .. })
            | Command::Host(_)
            | Command::Image(ImageCommand::Held { .. } | ImageCommand::Delete { .. })
            | Command::Vm(
                VmCommand::Update { .. }
                | VmCommand::Start { .. }
                | VmCommand::Stop { .. }
                | VmCommand::Reboot { .. }
                | VmCommand::Pause { .. }
                | VmCommand::Resume { .. }
                | VmCommand::Migrate { .. }
                | VmCommand::Delete { .. }
                | VmCommand::Unplaceable(_),
            )
            | Command::Instance(_)
            // What it makes it deletes.
            | Command::Canary(_)
            // Alerts of a full disk must be told.
            | Command::Alert(
                AlertCommand::DeleteRule { .. }
                | AlertCommand::Acknowledge { .. }
                | AlertCommand::SetSilence(_)
                | AlertCommand::DeleteSilence { .. }
                | AlertCommand::Notify { .. }
                | AlertCommand::Notified { .. }
                | AlertCommand::Voters { .. },
            )
            | Command::Lock(LockCommand::Renew { .. } | LockCommand::Release { .. })
            | Command::Operation(
                OperationCommand::Cancel { .. }
                | OperationCommand::Retry { .. }
                | OperationCommand::Resume { .. }
                | OperationCommand::Abandon { .. }
                | OperationCommand::Probed { .. },
            ) => false,
        }
    }
}

/// Checks the author and, for growth, the disks.
///
/// # Errors
/// [`Reason::Unauthenticated`], [`Reason::PermissionDenied`], [`Reason::NodeRemoved`] or
/// [`Reason::DiskFull`].
pub(crate) fn authorise(
    state: &State,
    principal: &Principal,
    command: &Command,
    wall_ms: u64,
) -> Result<(), Rejected> {
    let denied = |message: String| Err(Rejected::new(Reason::PermissionDenied, message));
    match (command.access(), principal) {
        (Access::Founding, Principal::Founder) | (Access::Token, _) => {}
        (Access::Node, Principal::Node(id)) => {
            if !state.nodes.contains_key(id) {
                let message =
                    format!("node {id} was removed; run `novacron node reset` and join again");
                return Err(Rejected::new(Reason::NodeRemoved, message));
            }
        }
        (Access::Role(needed), Principal::Credential(_)) => {
            let role = state.role_of(principal, wall_ms)?;
            if role < needed {
                return denied(format!("this needs the role {needed}; the credential has {role}"));
            }
        }
        (Access::Role(_), Principal::Node(_) | Principal::Joiner | Principal::Founder)
        | (Access::Node, Principal::Credential(_) | Principal::Joiner | Principal::Founder)
        | (Access::Founding, Principal::Node(_) | Principal::Credential(_) | Principal::Joiner) => {
            return denied("this author may not ask for this".to_owned());
        }
    }
    if command.is_growth()
        && let Some(node) = state.full_disk()
    {
        let message = format!(
            "the disk of node {} is {} % full; free space on it or delete something",
            node.name, node.disk_used_percent
        );
        return Err(Rejected::new(Reason::DiskFull, message));
    }
    Ok(())
}

impl State {
    /// The role a principal has at this wall time.
    ///
    /// # Errors
    /// [`Reason::Unauthenticated`] unless it is a credential that is valid.
    pub fn role_of(&self, principal: &Principal, wall_ms: u64) -> Result<Role, Rejected> {
        let credential = match principal {
            Principal::Credential(id) => self.credentials.get(id),
            Principal::Node(_) | Principal::Joiner | Principal::Founder => None,
        };
        match credential {
            Some(credential) if credential.is_valid(wall_ms) => Ok(credential.role),
            Some(credential) if credential.revoked => {
                Err(Rejected::new(Reason::Unauthenticated, "the credential was revoked"))
            }
            Some(_) => Err(Rejected::new(Reason::Unauthenticated, "the credential has expired")),
            None => Err(Rejected::new(Reason::Unauthenticated, "the credential is unknown")),
        }
    }
}
