//! Locks.

use std::time::Duration;

use domain::{
    Fence, State,
    envelope::Command,
    id::TicketId,
    lock::{Lock, LockCommand, LockKey},
    principal::Role,
    rejected::{Reason, Rejected},
};
use proto::{convert, v1, v1::locks_server::Locks};
use raft_store::Consistency;
use tonic::{Request, Response, Status};

use super::{
    Api, auth,
    change::{answer, mint, not_found},
    errors,
    list::{Lazy, page},
    project,
};

const MESSAGE: &str = "novacron.v1.Lock";
/// Longest wait of one call.
const WAIT: Duration = Duration::from_secs(30);

fn key(of: &str, lock: &str) -> Result<LockKey, Status> {
    Ok((project(of)?, convert::name("lock", lock).map_err(errors::rejected)?))
}

/// What has become of a request.
enum Standing {
    Held(Lock),
    Waits,
    Gone,
}

fn standing(state: &State, key: &LockKey, ticket: TicketId) -> Standing {
    let Some(lock) = state.locks.get(key) else { return Standing::Gone };
    if lock.holder.ticket == ticket {
        return Standing::Held(Lock::clone(lock));
    }
    if lock.waiters.iter().any(|waiter| waiter.ticket == ticket) {
        Standing::Waits
    } else {
        Standing::Gone
    }
}

#[tonic::async_trait]
impl Locks for Api {
    async fn acquire_lock(
        &self,
        request: Request<v1::AcquireLockRequest>,
    ) -> Result<Response<v1::AcquireLockResponse>, Status> {
        Ok(Response::new(self.acquire(request.into_inner(), WAIT).await?))
    }

    async fn renew_lock(
        &self,
        request: Request<v1::HeldLockRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        self.held(request, "renew", |lock, fence| LockCommand::Renew { lock, fence }).await
    }

    async fn release_lock(
        &self,
        request: Request<v1::HeldLockRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        self.held(request, "release", |lock, fence| LockCommand::Release { lock, fence }).await
    }

    async fn get_lock(
        &self,
        request: Request<v1::GetLockRequest>,
    ) -> Result<Response<v1::Lock>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let key = key(&message.project, &message.lock)?;
        let view = self.view(message.freshness.as_ref()).await?;
        let row = view.state.locks.get(&key);
        let row = row.ok_or_else(|| errors::rejected(not_found("lock", &message.lock)))?;
        Ok(Response::new(convert::lock::lock(&view.state, row)))
    }

    async fn list_locks(
        &self,
        request: Request<v1::ListLocksRequest>,
    ) -> Result<Response<v1::ListLocksResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let project = project(&message.project)?;
        let view = self.view(message.freshness.as_ref()).await?;
        let state = &view.state;
        let rows = state.locks_in(&project);
        let rows = rows.map(|row| Lazy::new(&row.name, || convert::lock::lock(state, row)));
        let (locks, next_page_token) = page(message.page, MESSAGE, &message.project, rows)?;
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListLocksResponse { locks, next_page_token, revision }))
    }
}

/// What is asked of a held lock. The verb goes into the digest: the same request id for another verb
/// is another request.
#[derive(Clone, PartialEq, prost::Message)]
struct Verb {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    of: Option<v1::HeldLockRequest>,
}

impl Api {
    /// Takes a lock, and waits so long if somebody has it.
    pub(super) async fn acquire(
        &self,
        mut message: v1::AcquireLockRequest,
        patience: Duration,
    ) -> Result<v1::AcquireLockResponse, Status> {
        let mutation = message.mutation.take();
        let validates = mutation.as_ref().is_some_and(|mutation| mutation.validate_only);
        let lock = key(&message.project, &message.lock)?;
        let ticket: TicketId = mint();
        let acquired = self.change(Role::Operator, mutation, &message, |_, _| {
            Ok(Command::Lock(LockCommand::Acquire {
                lock: lock.clone(),
                ticket,
                owner: message.owner.clone(),
                ttl_ms: message.ttl_ms,
                wait_ms: message.wait_ms,
            }))
        });
        let outcome = acquired.await?;
        if validates {
            return Ok(v1::AcquireLockResponse {
                outcome: Some(outcome.into()),
                ..Default::default()
            });
        }
        // A repeated request goes on with the first one's ticket.
        let ticket = outcome.object.parse().map_err(|_| Status::internal("a ticket is no id"))?;
        let since = Consistency::AtLeast(outcome.revision);
        self.store.read(since).await.map_err(errors::read)?;
        let mut views = self.store.views();
        let decided =
            views.wait_for(|view| !matches!(standing(&view.state, &lock, ticket), Standing::Waits));
        let _ = tokio::time::timeout(patience, decided).await;
        let view = self.store.view();
        let (held, fence, ttl_ms) = match standing(&view.state, &lock, ticket) {
            Standing::Held(lock) => (true, lock.holder.fence.as_u64(), lock.holder.ttl_ms),
            Standing::Waits => (false, 0, 0),
            Standing::Gone => {
                let message = format!("lock {} was not freed in time, or its time is over", lock.1);
                return Err(errors::rejected(Rejected::new(Reason::LockHeld, message)));
            }
        };
        let outcome = Some(outcome.into());
        Ok(v1::AcquireLockResponse { held, fence, ttl_ms, outcome })
    }

    async fn held(
        &self,
        request: Request<v1::HeldLockRequest>,
        verb: &str,
        command: impl Fn(LockKey, Fence) -> LockCommand + Send + Sync,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let (lock, fence) = (key(&message.project, &message.lock)?, message.fence);
        let verb = Verb { name: verb.to_owned(), of: Some(message) };
        let changed = self.change(Role::Operator, mutation, &verb, |_, _| {
            Ok(Command::Lock(command(lock.clone(), Fence::from_u64(fence))))
        });
        Ok(answer(changed.await?))
    }
}
