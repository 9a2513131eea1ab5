//! Gathers what was seen of bodies into few entries: a thousand VMs that start at once are a
//! handful of entries and not a thousand.

use std::{sync::Arc, time::Duration};

use domain::{
    Revision,
    envelope::Command,
    instance::{InstanceCommand, Report},
    limit,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use raft_store::{ProposeError, Store};
use telemetry::Present;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};

use crate::{
    metrics::{self, Wake},
    planted,
};

/// Reports that may wait; who reports more waits too.
const QUEUE: usize = 4 * limit::BATCH_MAX;
/// Least time from one entry to the next: what is seen meanwhile shares the next one. Each entry is in the way of those
/// that somebody waits for.
const PAUSE: Duration = Duration::from_millis(10);

type Reply = oneshot::Sender<Result<Revision, ProposeError>>;
type Queued = (Report, Reply);

/// Hands reports to the reporting actor, whichever it is at present.
#[derive(Clone)]
pub(crate) struct Reporter {
    store: Store,
    queue: mpsc::Sender<Queued>,
    queued: Arc<Mutex<mpsc::Receiver<Queued>>>,
}

impl Reporter {
    pub(crate) fn new(store: Store) -> Reporter {
        let (queue, queued) = mpsc::channel(QUEUE);
        Reporter { store, queue, queued: Arc::new(Mutex::new(queued)) }
    }

    /// Reports, and waits until it is decided; the answer is where a read sees it.
    pub(crate) async fn report(&self, report: Report) -> Result<Revision, ProposeError> {
        let gone = || ProposeError::Unknown("the reporter is gone".to_owned());
        let (reply, answer) = oneshot::channel();
        self.queue.send((report, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    pub(crate) async fn start(self, supervisor: ActorCell) -> Result<ActorCell, String> {
        let spawned = Actor::spawn_linked(
            None,
            ReportingActor { _present: metrics::at_work(NAME) },
            self,
            supervisor,
        )
        .await;
        spawned.map(|(actor, _)| actor.get_cell()).map_err(|error| error.to_string())
    }
}

pub(crate) const NAME: &str = "reporter";

struct ReportingActor {
    _present: Present,
}

impl Actor for ReportingActor {
    type Msg = Wake;
    type State = Reporter;
    type Arguments = Reporter;

    async fn pre_start(
        &self,
        me: ActorRef<Wake>,
        reporter: Reporter,
    ) -> Result<Reporter, ActorProcessingErr> {
        me.cast(Wake::now())?;
        Ok(reporter)
    }

    /// One batch for each message; the next message comes from here.
    async fn handle(
        &self,
        me: ActorRef<Wake>,
        wake: Wake,
        reporter: &mut Reporter,
    ) -> Result<(), ActorProcessingErr> {
        wake.taken(NAME);
        let mut batch = Vec::new();
        {
            let mut queued = reporter.queued.lock().await;
            let wait = queued.recv_many(&mut batch, limit::BATCH_MAX);
            // Waking up now and then lets a stop through.
            let _ = tokio::time::timeout(Duration::from_millis(500), wait).await;
        }
        if !batch.is_empty() {
            planted::may_panic();
            let begun = Instant::now();
            let (reports, replies): (Vec<Report>, Vec<Reply>) = batch.into_iter().unzip();
            let command = Command::Instance(InstanceCommand::Report(reports));
            let answer = reporter.store.propose_as_node(command).await;
            let answer = answer.map(|outcome| outcome.revision);
            for reply in replies {
                let _ = reply.send(answer.clone());
            }
            tokio::time::sleep_until(begun + PAUSE).await;
        }
        me.cast(Wake::now())?;
        Ok(())
    }
}
