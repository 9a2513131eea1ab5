//! What only the leading node does: time goes on, VMs get hosts, members get votes, silent hosts lose
//! their power. Everything it
//! needs is in the state, so the next leader's actor takes over where this one was.

mod alerts;
mod canary;
mod fencing;
pub mod membership;
mod place;
mod protocol;

use std::{sync::Arc, time::Duration};

use domain::{cluster::ClusterCommand, envelope::Command};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use raft_store::Store;
use telemetry::Present;
use tokio::time::Instant;

pub use alerts::{Receiver, ReceiverKind};
pub use fencing::FencingAgent;

use crate::{
    metrics::{self, Wake},
    planted,
    root::StaffOptions,
};
use alerts::Tellers;
use fencing::Fencers;
use membership::Observer;
use place::Placer;

/// Between two beats, when nothing happens.
const INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two looks at what changed: many changes then share one.
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) const NAME: &str = "leader";

pub(crate) struct Leader {
    _present: Present,
}

pub(crate) struct LeaderState {
    store: Store,
    observer: Observer,
    fencers: Fencers,
    tellers: Tellers,
    placer: Placer,
    next_beat: Instant,
}

impl Leader {
    pub(crate) async fn start(
        options: Arc<StaffOptions>,
        supervisor: ActorCell,
    ) -> Result<ActorCell, String> {
        let spawned = Actor::spawn_linked(
            None,
            Leader { _present: metrics::at_work(NAME) },
            options,
            supervisor,
        )
        .await;
        spawned.map(|(actor, _)| actor.get_cell()).map_err(|error| error.to_string())
    }
}

impl Actor for Leader {
    type Msg = Wake;
    type State = LeaderState;
    type Arguments = Arc<StaffOptions>;

    async fn pre_start(
        &self,
        me: ActorRef<Wake>,
        options: Arc<StaffOptions>,
    ) -> Result<LeaderState, ActorProcessingErr> {
        me.cast(Wake::now())?;
        Ok(LeaderState {
            store: options.store.clone(),
            observer: Observer::default(),
            fencers: Fencers::new(&options),
            tellers: Tellers::new(&options),
            placer: Placer::default(),
            next_beat: Instant::now(),
        })
    }

    /// One round for each message; the next message comes from here.
    async fn handle(
        &self,
        me: ActorRef<Wake>,
        wake: Wake,
        state: &mut LeaderState,
    ) -> Result<(), ActorProcessingErr> {
        wake.taken(NAME);
        planted::may_panic();
        let mut views = state.store.views();
        views.mark_unchanged();
        let mut again = None;
        if state.store.status().leads {
            let beats = Instant::now() >= state.next_beat;
            if beats {
                state.next_beat = Instant::now() + INTERVAL;
                let leads = tick(&state.store).await;
                state.observer.act(&state.store).await;
                state.fencers.act(&state.store);
                // One that was cut off knows what was, and others tell what is.
                if leads {
                    protocol::act(&state.store).await;
                    state.tellers.act(&state.store).await;
                    canary::act(&state.store).await;
                }
            }
            again = state.placer.act(&state.store, beats).await;
        } else {
            state.observer = Observer::default();
            state.fencers.rest();
            state.tellers.rest();
            state.placer = Placer::default();
        }
        // A change wakes it, else the clock does.
        let wake = state.next_beat.max(soon());
        let wake = again.map_or(wake, |again| wake.min(again));
        let _ = tokio::time::timeout_at(wake, views.changed()).await;
        tokio::time::sleep(PAUSE).await;
        me.cast(Wake::now())?;
        Ok(())
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(100)
}

/// The answer is whether time goes on: a majority follows.
async fn tick(store: &Store) -> bool {
    let mark = store.view().state.mark;
    let tick = Command::Cluster(ClusterCommand::Tick(mark));
    let ticked = store.propose_as_node(tick).await;
    if let Err(error) = &ticked {
        tracing::debug!(%error, "time stands still");
    }
    ticked.is_ok()
}
