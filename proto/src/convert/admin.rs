//! Projects, settings, credentials, tokens.

use domain::{
    State, credential::Credential, principal::Role, project::Project, rejected::Rejected,
    setting::Definition, token::JoinToken,
};

use super::{invalid, time};
use crate::v1;

/// A project as the API shows it.
#[must_use]
pub fn project(state: &State, project: &Project) -> v1::Project {
    v1::Project {
        name: project.name.to_string(),
        vms: u32::try_from(state.vms_in(&project.name).count()).unwrap_or(u32::MAX),
        etag: project.revision.as_u64(),
    }
}

/// A setting as the API shows it.
#[must_use]
pub fn setting(state: &State, definition: &Definition) -> v1::Setting {
    v1::Setting {
        name: definition.name.to_owned(),
        value: state.setting(definition.key),
        default_value: definition.default,
        min: definition.min,
        max: definition.max,
        meaning: definition.meaning.to_owned(),
    }
}

/// A credential as the API shows it.
#[must_use]
pub fn credential(credential: &Credential) -> v1::Credential {
    v1::Credential {
        id: credential.id.to_string(),
        name: credential.name.to_string(),
        role: credential.role.to_string(),
        expires_at: time(credential.expires_wall_ms),
        revoked: credential.revoked,
    }
}

/// Reads a role.
///
/// # Errors
/// When there is none of that name.
pub fn read_role(text: &str) -> Result<Role, Rejected> {
    let role = Role::ALL.into_iter().find(|role| role.as_str() == text);
    role.ok_or_else(|| invalid("role", "use viewer, operator or admin"))
}

/// A token as the API shows it at this wall time.
#[must_use]
pub fn token(token: &JoinToken, wall_ms: u64) -> v1::Token {
    let status = match token.used_by {
        Some(_) => "used",
        None if wall_ms >= token.expires_wall_ms => "expired",
        None => "open",
    };
    v1::Token {
        id: token.id.to_string(),
        node: token.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        expires_at: time(token.expires_wall_ms),
        status: status.to_owned(),
    }
}
