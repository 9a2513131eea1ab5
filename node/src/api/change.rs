//! Changes: from a message to a decided command.

use domain::{
    Revision, State,
    envelope::{Command, Envelope, Outcome, Request},
    id::{Digest, OperationId, RequestId},
    principal::{Principal, Role},
    rejected::{Reason, Rejected},
};
use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind};
use proto::v1;
use raft_store::Consistency;
use tonic::Status;

use super::{Api, auth, errors};

/// A fresh id.
pub(crate) fn mint<K: TypedUuidKind>() -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(uuid::Uuid::now_v7())
}

impl Api {
    /// Makes the command that `build` finds for the state, and has it decided. `message` is the
    /// request without its [`v1::Mutation`]: its digest tells a retry from another request.
    pub(crate) async fn change<M: prost::Message>(
        &self,
        least: Role,
        mutation: Option<v1::Mutation>,
        message: &M,
        build: impl Fn(&State, OperationId) -> Result<Command, Rejected> + Send + Sync,
    ) -> Result<Outcome, Status> {
        let caller = auth::caller(least)?;
        let mutation = mutation.unwrap_or_default();
        let request = request(&mutation, message).map_err(errors::rejected)?;
        let since = Revision::from_u64(mutation.since_revision);
        let command = match self.build(since, &build).await {
            Ok(command) => command,
            // A retry may name what its own first attempt has removed.
            Err(refused) => {
                let before = self.answered(&caller.principal, request.as_ref()).await?;
                return before.ok_or(refused);
            }
        };
        if mutation.validate_only {
            let view = self.store.read(Consistency::Linearizable).await.map_err(errors::read)?;
            let envelope = Envelope {
                at_ms: view.state.now_ms,
                wall_ms: crate::clock::wall_ms(),
                principal: caller.principal,
                request,
                trace: telemetry::trace::current(),
                command,
            };
            let dry = view.state.apply(view.state.index + 1, envelope);
            return dry.reply.map_err(errors::rejected);
        }
        let proposed = self.store.propose(caller.principal, request, command).await;
        proposed.map_err(errors::proposed)
    }

    /// What a change was answered before that must be looked into before it is decided.
    pub(crate) async fn answered_before<M: prost::Message>(
        &self,
        mutation: Option<&v1::Mutation>,
        message: &M,
    ) -> Result<Option<Outcome>, Status> {
        let caller = auth::caller(Role::Viewer)?;
        let mutation = mutation.cloned().unwrap_or_default();
        let request = request(&mutation, message).map_err(errors::rejected)?;
        self.answered(&caller.principal, request.as_ref()).await
    }

    async fn answered(
        &self,
        principal: &Principal,
        request: Option<&Request>,
    ) -> Result<Option<Outcome>, Status> {
        let Some(request) = request else { return Ok(None) };
        let view = self.store.read(Consistency::Linearizable).await.map_err(errors::read)?;
        view.state.answered(principal, request).map_err(errors::rejected)
    }

    /// Names become ids in a view that holds what the client has seen; what is not found there is
    /// looked for in the newest.
    async fn build(
        &self,
        since: Revision,
        build: &(impl Fn(&State, OperationId) -> Result<Command, Rejected> + Send + Sync),
    ) -> Result<Command, Status> {
        let operation = mint();
        if let Ok(view) = self.store.read(Consistency::AtLeast(since)).await
            && let Ok(command) = build(&view.state, operation)
        {
            return Ok(command);
        }
        let view = self.store.read(Consistency::Linearizable).await.map_err(errors::read)?;
        build(&view.state, operation).map_err(errors::rejected)
    }
}

fn request<M: prost::Message>(
    mutation: &v1::Mutation,
    message: &M,
) -> Result<Option<Request>, Rejected> {
    if mutation.request_id.is_empty() {
        return Ok(None);
    }
    let id: RequestId = if raft_store::is_broken("forget-requests") {
        proto::convert::id("mutation.request_id", &uuid::Uuid::now_v7().to_string())?
    } else {
        proto::convert::id("mutation.request_id", &mutation.request_id)?
    };
    let kind = std::any::type_name::<M>();
    let digest = Digest::of(&[kind.as_bytes(), &message.encode_to_vec()]);
    let since = (mutation.since_revision > 0).then(|| Revision::from_u64(mutation.since_revision));
    Ok(Some(Request { id, digest, since }))
}

/// The answer as both faces send it.
pub(crate) fn answer(outcome: Outcome) -> tonic::Response<v1::Outcome> {
    tonic::Response::new(outcome.into())
}

/// What an etag of 0 means: whatever is there.
pub(crate) fn etag(etag: u64) -> Option<Revision> {
    (etag > 0).then(|| Revision::from_u64(etag))
}

/// There is none of that name or id.
pub(crate) fn not_found(noun: &str, text: &str) -> Rejected {
    let text: String = text.chars().take(64).collect();
    Rejected::new(Reason::NotFound, format!("there is no {noun} {text}"))
}
