//! A bearer credential of the API. Only the hash of its secret is kept.

use serde::{Deserialize, Serialize};

use crate::{
    Draft, Revision, State,
    event::Change,
    id::{CredentialId, Digest},
    limit,
    name::Name,
    principal::Role,
    rejected::{Reason, Rejected},
    table::{Resource, Row, Table},
};

/// A credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Its identity; part of the bearer text.
    pub id: CredentialId,
    /// Its name, unique in the cluster.
    pub name: Name,
    /// What it allows.
    pub role: Role,
    /// SHA-256 of its secret.
    pub secret_sha256: Digest,
    /// Wall time of its end, Unix milliseconds; 0 is never.
    pub expires_wall_ms: u64,
    /// Whether it was withdrawn.
    #[serde(default)]
    pub revoked: bool,
    /// The entry that changed it last.
    pub revision: Revision,
}

impl Credential {
    /// Whether it may be used at this wall time.
    #[must_use]
    pub const fn is_valid(&self, wall_ms: u64) -> bool {
        !self.revoked && (self.expires_wall_ms == 0 || wall_ms < self.expires_wall_ms)
    }
}

/// What may be asked of credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum CredentialCommand {
    /// Make one. Its secret never enters the log.
    Create {
        /// The new credential's id.
        credential: CredentialId,
        /// Its name.
        name: Name,
        /// What it allows.
        role: Role,
        /// SHA-256 of its secret.
        secret_sha256: Digest,
        /// Wall time of its end, Unix milliseconds; 0 is never.
        expires_wall_ms: u64,
    },
    /// Withdraw it, for ever.
    Revoke {
        /// The credential.
        credential: CredentialId,
    },
}

impl Resource for Credential {
    type Key = CredentialId;

    fn key(&self) -> CredentialId {
        self.id
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Credential> {
        &state.credentials
    }
    fn table_mut(state: &mut State) -> &mut Table<Credential> {
        &mut state.credentials
    }
    fn change(row: Row<Credential>) -> Change {
        Change::Credential(row)
    }
}

/// Decides about credentials.
pub(crate) fn decide(draft: &mut Draft, command: CredentialCommand) -> Result<(), Rejected> {
    match command {
        CredentialCommand::Create { credential, name, role, secret_sha256, expires_wall_ms } => {
            let state = draft.state();
            if state.credentials.values().any(|other| other.name == name && !other.revoked) {
                let message = format!("credential {name} exists already; choose another name");
                return Err(Rejected::new(Reason::NameTaken, message));
            }
            sweep(draft);
            let state = draft.state();
            draft.room_for("credentials", state.credentials.len(), limit::CREDENTIALS_MAX)?;
            draft.put(Credential {
                id: credential,
                name,
                role,
                secret_sha256,
                expires_wall_ms,
                revoked: false,
                revision: Revision::ZERO,
            });
            draft.reply_object("credential", credential);
            Ok(())
        }
        CredentialCommand::Revoke { credential } => revoke(draft, credential),
    }
}

/// Forgets credentials that ended a month ago: until then the history can still be read by name.
fn sweep(draft: &mut Draft) {
    const KEPT_MS: u64 = 30 * 24 * 3600 * 1000;
    let wall_ms = draft.wall_ms();
    let ended = |row: &&std::sync::Arc<Credential>| {
        row.expires_wall_ms != 0 && row.expires_wall_ms.saturating_add(KEPT_MS) < wall_ms
    };
    let rows = draft.state().credentials.values().filter(ended);
    let old: Vec<CredentialId> = rows.map(|row| row.id).collect();
    old.into_iter().for_each(|id| draft.delete::<Credential>(id));
}

fn revoke(draft: &mut Draft, id: CredentialId) -> Result<(), Rejected> {
    let wall_ms = draft.wall_ms();
    let state = draft.state();
    let credential =
        state.credentials.get(&id).ok_or_else(|| Rejected::not_found("credential", id))?;
    let another_admin = state
        .credentials
        .values()
        .any(|other| other.id != id && other.role == Role::Admin && other.is_valid(wall_ms));
    if credential.role == Role::Admin && !another_admin {
        let message = "this is the last admin credential; create another first";
        return Err(Rejected::new(Reason::LastAdmin, message));
    }
    let expires_wall_ms = match credential.expires_wall_ms {
        0 => wall_ms,
        expires => expires.min(wall_ms),
    };
    let credential = Credential { revoked: true, expires_wall_ms, ..Credential::clone(credential) };
    draft.put(credential);
    draft.reply_object("credential", id);
    Ok(())
}
