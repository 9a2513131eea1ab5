//! Hands a command to its noun.

use crate::{
    Draft, alert, canary, cluster, credential, envelope::Command, host, image, instance, lock,
    migration_policy, node, operation, project, rejected::Rejected, setting, token, vm,
};

/// Hands the command to its noun.
pub(crate) fn decide(draft: &mut Draft, command: &Command) -> Result<(), Rejected> {
    let principal = draft.principal().clone();
    match command.clone() {
        Command::Cluster(command) => cluster::decide(draft, command),
        Command::Node(command) => node::decide(draft, command),
        Command::Token(command) => token::decide(draft, command),
        Command::Credential(command) => credential::decide(draft, command),
        Command::Setting(command) => setting::decide(draft, command),
        Command::Project(command) => project::decide(draft, command),
        Command::MigrationPolicy(command) => migration_policy::decide(draft, command),
        Command::Host(command) => host::decide(draft, command),
        Command::Image(command) => image::decide(draft, command),
        Command::Vm(command) => vm::decide(draft, command),
        Command::Instance(command) => instance::decide(draft, &principal, command),
        Command::Operation(command) => operation::decide(draft, command),
        Command::Lock(command) => lock::decide(draft, command),
        Command::Alert(command) => alert::decide(draft, command),
        Command::Canary(command) => canary::decide(draft, command),
    }
}
