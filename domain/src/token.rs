//! A join token: lets one machine become a node, once, for a short time.

use serde::{Deserialize, Serialize};

use crate::{
    Draft, Revision, State,
    event::Change,
    id::{Digest, NodeId, TokenId},
    limit,
    name::Name,
    rejected::{Reason, Rejected},
    table::{Resource, Row, Table},
};

/// A join token. Only the hash of its secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// Its identity.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub secret_sha256: Digest,
    /// The one node name it admits, if it is scoped to one.
    #[serde(default)]
    pub node: Option<Name>,
    /// Wall time of its end, Unix milliseconds.
    pub expires_wall_ms: u64,
    /// The node that used it.
    #[serde(default)]
    pub used_by: Option<NodeId>,
    /// The entry that changed it last.
    pub revision: Revision,
}

/// What may be asked of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum TokenCommand {
    /// Make one. Its secret never enters the log.
    Create {
        /// The new token's id.
        token: TokenId,
        /// SHA-256 of its secret.
        secret_sha256: Digest,
        /// The one node name it admits.
        node: Option<Name>,
        /// Wall time of its end, Unix milliseconds.
        expires_wall_ms: u64,
    },
    /// Withdraw it.
    Revoke {
        /// The token.
        token: TokenId,
    },
}

impl Resource for JoinToken {
    type Key = TokenId;

    fn key(&self) -> TokenId {
        self.id
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<JoinToken> {
        &state.tokens
    }
    fn table_mut(state: &mut State) -> &mut Table<JoinToken> {
        &mut state.tokens
    }
    fn change(row: Row<JoinToken>) -> Change {
        Change::Token(row)
    }
}

/// Decides about tokens.
pub(crate) fn decide(draft: &mut Draft, command: TokenCommand) -> Result<(), Rejected> {
    match command {
        TokenCommand::Create { token, secret_sha256, node, expires_wall_ms } => {
            sweep(draft);
            draft.room_for("join tokens", draft.state().tokens.len(), limit::TOKENS_MAX)?;
            draft.put(JoinToken {
                id: token,
                secret_sha256,
                node,
                expires_wall_ms,
                used_by: None,
                revision: Revision::ZERO,
            });
            draft.reply_object("token", token);
        }
        TokenCommand::Revoke { token } => {
            if !draft.state().tokens.contains_key(&token) {
                return Err(Rejected::not_found("token", token));
            }
            draft.delete::<JoinToken>(token);
            draft.reply_object("token", token);
        }
    }
    Ok(())
}

/// Forgets tokens that ended a day ago: until then a failed join can still be told why.
fn sweep(draft: &mut Draft) {
    const KEPT_MS: u64 = 24 * 3600 * 1000;
    let wall_ms = draft.wall_ms();
    let tokens = draft.state().tokens.values();
    let old: Vec<TokenId> = tokens
        .filter(|t| t.expires_wall_ms.saturating_add(KEPT_MS) < wall_ms)
        .map(|t| t.id)
        .collect();
    old.into_iter().for_each(|id| draft.delete::<JoinToken>(id));
}

/// Finds the token with this secret and checks that it may admit a node called `name` now.
///
/// # Errors
/// [`Reason::TokenUnknown`], [`Reason::TokenExpired`] or [`Reason::TokenScope`]. Whether it was used
/// is for the caller, who knows by whom.
pub fn present(
    state: &State,
    secret_sha256: Digest,
    name: &Name,
    wall_ms: u64,
) -> Result<JoinToken, Rejected> {
    let token = state.tokens.values().find(|token| token.secret_sha256 == secret_sha256);
    let Some(token) = token else {
        let message = "this cluster does not know the join token: it was revoked, or it belongs to \
                       another cluster; create a new one with `novacron token create`";
        return Err(Rejected::new(Reason::TokenUnknown, message));
    };
    if token.used_by.is_none() && wall_ms >= token.expires_wall_ms {
        let message = format!(
            "the join token expired {} s ago by this cluster's clock; create a new one, and if it \
             is new compare the clocks of both machines",
            (wall_ms - token.expires_wall_ms) / 1000
        );
        return Err(Rejected::new(Reason::TokenExpired, message));
    }
    if let Some(scope) = &token.node
        && scope != name
    {
        let message = format!("the join token is for a node named {scope}, not {name}");
        return Err(Rejected::new(Reason::TokenScope, message));
    }
    Ok(JoinToken::clone(token))
}
