//! What is done again and again on every node, each as an actor of its own.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

use telemetry::Present;

use crate::{
    metrics::{self, Wake},
    planted,
    root::StaffOptions,
};

/// Something that is done in turns.
pub(crate) trait Turn: Default + Send + Sync + 'static {
    /// What the actor is called.
    const NAME: &str;
    /// Between the end of a turn and the next.
    const PAUSE: Duration;

    /// One turn. What fails is logged, and done in a later one.
    fn take(&mut self, options: &StaffOptions) -> impl Future<Output = ()> + Send;
}

/// Who takes the turns.
pub(crate) struct Routine<T> {
    _present: Present,
    turn: PhantomData<T>,
}

impl<T: Turn> Routine<T> {
    pub(crate) async fn start(
        options: Arc<StaffOptions>,
        supervisor: ActorCell,
    ) -> Result<ActorCell, String> {
        let me = Routine::<T> { _present: metrics::at_work(T::NAME), turn: PhantomData };
        let spawned = Actor::spawn_linked(None, me, options, supervisor);
        spawned.await.map(|(actor, _)| actor.get_cell()).map_err(|error| error.to_string())
    }
}

impl<T: Turn> Actor for Routine<T> {
    type Msg = Wake;
    type State = (T, Arc<StaffOptions>);
    type Arguments = Arc<StaffOptions>;

    async fn pre_start(
        &self,
        me: ActorRef<Wake>,
        options: Arc<StaffOptions>,
    ) -> Result<(T, Arc<StaffOptions>), ActorProcessingErr> {
        me.cast(Wake::now())?;
        Ok((T::default(), options))
    }

    async fn handle(
        &self,
        me: ActorRef<Wake>,
        wake: Wake,
        (turn, options): &mut (T, Arc<StaffOptions>),
    ) -> Result<(), ActorProcessingErr> {
        wake.taken(T::NAME);
        planted::may_panic();
        turn.take(options).await;
        me.send_after(T::PAUSE, Wake::now);
        Ok(())
    }
}
