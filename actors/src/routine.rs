//! What is done again and again on every node, each as an actor of its own.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

use crate::{planted, root::StaffOptions};

/// Something that is done in turns.
pub(crate) trait Turn: Send + Sync + 'static {
    /// Between the end of a turn and the next.
    const PAUSE: Duration;

    /// One turn. What fails is logged, and done in a later one.
    fn take(options: &StaffOptions) -> impl Future<Output = ()> + Send;
}

/// Who takes the turns.
pub(crate) struct Routine<T>(PhantomData<T>);

impl<T: Turn> Routine<T> {
    pub(crate) async fn start(
        options: Arc<StaffOptions>,
        supervisor: ActorCell,
    ) -> Result<ActorCell, String> {
        let spawned = Actor::spawn_linked(None, Routine::<T>(PhantomData), options, supervisor);
        spawned.await.map(|(actor, _)| actor.get_cell()).map_err(|error| error.to_string())
    }
}

impl<T: Turn> Actor for Routine<T> {
    type Msg = ();
    type State = Arc<StaffOptions>;
    type Arguments = Arc<StaffOptions>;

    async fn pre_start(
        &self,
        me: ActorRef<()>,
        options: Arc<StaffOptions>,
    ) -> Result<Arc<StaffOptions>, ActorProcessingErr> {
        me.cast(())?;
        Ok(options)
    }

    async fn handle(
        &self,
        me: ActorRef<()>,
        (): (),
        options: &mut Arc<StaffOptions>,
    ) -> Result<(), ActorProcessingErr> {
        planted::may_panic();
        T::take(options).await;
        me.send_after(T::PAUSE, || ());
        Ok(())
    }
}
