//! Events, and watches that resume on any node.

use std::{pin::Pin, time::Duration};

use domain::{Revision, State, event::Event, principal::Role};
use futures_util::Stream;
use proto::{convert, v1, v1::events_server::Events};
use raft_store::{Consistency, ReadError};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Api, auth, errors, vms::shown_to};
use crate::metrics;

/// Between two bookmarks while nothing happens.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(5);
const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

#[tonic::async_trait]
impl Events for Api {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let role = auth::caller(Role::Viewer)?.role;
        let message = request.into_inner();
        let view = self.view(None).await?;
        let state = &view.state;
        let limit = match message.limit {
            0 => LIMIT_DEFAULT,
            limit => limit.min(LIMIT_MAX),
        };
        let since = match message.since_revision {
            0 => state.events.floor(),
            since => Revision::from_u64(since),
        };
        if message.since_revision > 0 && since.epoch() != state.epoch {
            return Err(errors::read(ReadError::OtherEpoch(since)));
        }
        let events: Vec<_> = state.events.after(since).map_err(errors::compacted)?.collect();
        let skipped = events.len().saturating_sub(usize::try_from(limit).unwrap_or(1));
        let events = events[skipped..].iter().map(|event| event_for(role, state, event));
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListEventsResponse { events: events.collect(), revision }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = match message.since_revision {
            0 => self.store.read(Consistency::Linearizable).await,
            since => self.store.read(Consistency::AtLeast(Revision::from_u64(since))).await,
        };
        let view = view.map_err(errors::read)?;
        let cursor = match message.since_revision {
            0 => view.revision(),
            since => Revision::from_u64(since),
        };
        // Refused at once, and not as a stream that ends.
        drop(view.state.events.after(cursor).map_err(errors::compacted)?);
        let watcher = Watcher {
            api: self.clone(),
            caller,
            views: self.store.views(),
            request: message,
            cursor,
            bookmarked: Instant::now(),
            ready: Vec::new(),
            given: metrics::WATCHED.of::<&str>([]),
            _present: metrics::WATCHERS.enter::<&str>([]),
        };
        let stream = futures_util::stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(message) => Some((Ok(message), Some(watcher))),
                Err(status) => Some((Err(*status), None)),
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// An event as somebody of this role may see it.
fn event_for(role: Role, state: &State, event: &Event) -> v1::Event {
    let mut event = convert::event::event(state, event);
    for change in &mut event.changes {
        change.vm = change.vm.take().map(|vm| shown_to(role, vm));
    }
    event
}

/// A cursor into the ring. It holds no events of its own but those of one look.
struct Watcher {
    api: Api,
    caller: auth::Caller,
    views: tokio::sync::watch::Receiver<std::sync::Arc<raft_store::View>>,
    request: v1::WatchRequest,
    cursor: Revision,
    bookmarked: Instant,
    /// What is to be sent, newest first.
    ready: Vec<v1::WatchResponse>,
    given: telemetry::series::Counter,
    _present: telemetry::Present,
}

impl Watcher {
    async fn next(&mut self) -> Result<v1::WatchResponse, Box<Status>> {
        loop {
            if let Some(message) = self.ready.pop() {
                self.given.increment(1);
                return Ok(message);
            }
            // A stream must not outlive its credential.
            if !auth::is_still_valid(&self.api.store, &self.caller) {
                return Err(Box::new(errors::unauthenticated(
                    "the credential is not valid any more",
                )));
            }
            self.look()?;
            if !self.ready.is_empty() {
                continue;
            }
            let bookmark_at = self.bookmarked + BOOKMARK_INTERVAL;
            if tokio::time::timeout_at(bookmark_at, self.views.changed()).await.is_err() {
                self.bookmarked = Instant::now();
                return Ok(v1::WatchResponse { event: None, bookmark: self.cursor.as_u64() });
            }
        }
    }

    /// Takes what is new, a bounded number of events at a time.
    fn look(&mut self) -> Result<(), Box<Status>> {
        const EVENTS_MAX: usize = 256;
        let view = self.views.borrow_and_update().clone();
        let state = &view.state;
        let events = state.events.after(self.cursor);
        let events = events.map_err(|error| Box::new(errors::compacted(error)))?;
        let mut taken = 0;
        for event in events.take(EVENTS_MAX) {
            taken += 1;
            self.cursor = event.revision;
            let event = self.filter(event_for(self.caller.role, state, event));
            let dropped = event.revision.is_multiple_of(40) && raft_store::is_broken("drop-events");
            if !event.changes.is_empty() && !dropped {
                self.ready.push(v1::WatchResponse { event: Some(event), bookmark: 0 });
            }
        }
        if taken < EVENTS_MAX {
            self.cursor = self.cursor.max(view.revision());
        } else {
            self.views.mark_changed();
        }
        self.ready.reverse();
        Ok(())
    }

    fn filter(&self, mut event: v1::Event) -> v1::Event {
        let (kinds, project) = (&self.request.kinds, &self.request.project);
        event.changes.retain(|change| {
            let elsewhere = |of: &str| !project.is_empty() && of != project;
            let kind = kinds.is_empty() || kinds.contains(&change.kind);
            // Of a VM that is gone nobody knows the project. That it goes everybody is told.
            let lost = change.kind == "vm" && change.vm.is_none() && !change.deleted;
            let foreign = (lost && !project.is_empty())
                || change.vm.as_ref().is_some_and(|vm| elsewhere(&vm.project))
                || change.operation.as_ref().is_some_and(|row| elsewhere(&row.project));
            kind && !foreign
        });
        event
    }
}
