//! One action on one body: do it, see what is there, report it. A driver's answer proves nothing,
//! so what is reported is always what was observed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use domain::{
    State,
    instance::{Action, Failure, Instance, Landing, Life, Report},
    limit,
    operation::Progress,
    trace::Trace,
};
use drivers::{Departure, Driver, DriverError, ErrorKind, Observation, Order};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use raft_store::{Consistency, Store};
use telemetry::{Present, trace::Span};

use super::LocalHost;
use crate::{
    files::ImageFiles,
    metrics::{self, Wake},
    planted,
    reporter::Reporter,
};

/// The reason with which an actor ends that has done its work.
pub(super) const FINISHED: &str = "finished";
/// Longest time a driver's call may take; after that it may have happened.
const CALL_TIMEOUT: Duration = Duration::from_millis(limit::DRIVER_CALL_MS_MAX);
/// Attempts before a failure that may pass is told to people.
const ATTEMPTS: usize = 5;
/// Between two requests to a guest that does not shut down.
const SHUTDOWN_PAUSE: Duration = Duration::from_secs(1);

/// What work on a host's bodies is done with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) store: Store,
    pub(super) host: Arc<LocalHost>,
    pub(super) reporter: Reporter,
    pub(super) images: Arc<ImageFiles>,
}

/// What is told besides what was seen.
#[derive(Default, PartialEq, Eq)]
pub(super) struct More {
    pub(super) landing: Option<Landing>,
    pub(super) progress: Option<Progress>,
    pub(super) still: bool,
    pub(super) agent: bool,
    pub(super) life: Option<Life>,
    pub(super) cleared: bool,
    /// A look that was asked for is told whatever it shows.
    pub(super) asked: bool,
}

/// What is to be done, and with what.
pub(super) struct Task {
    pub(super) tools: Tools,
    pub(super) row: Instance,
    order: Order,
    /// Where the guest goes, when it is to be sent.
    pub(super) departure: Option<Departure>,
    action: Option<Action>,
    /// Whether files of the image must come first.
    missing: bool,
    /// Whether somebody waits, so that each failure counts.
    awaited: bool,
    /// Whether what the VM has in a pool goes with the body.
    discards: bool,
    /// The step of the VM's operation that it is done for.
    trace: Option<Trace>,
}

impl Task {
    /// `None` when the VM or its image has gone meanwhile.
    pub(super) fn new(
        tools: &Tools,
        state: &State,
        body: &Instance,
        action: Option<Action>,
    ) -> Option<Task> {
        let vm = state.vms.get(&body.vm)?;
        let mut order = Order {
            vm: vm.id,
            fence: body.fence,
            lease: state.hosts.get(&body.host)?.fence,
            project: vm.project.clone(),
            name: vm.name.clone(),
            spec: vm.spec.clone(),
            generation: vm.generation,
            reboots: body.reboots,
            pool: vm.pool,
            disks_made: vm.disks_made,
            image: state.images.get(&vm.image)?.clone(),
            files: BTreeMap::new(),
        };
        if action == Some(Action::Receive) {
            // What comes is what runs, not what is wanted next.
            order.spec = body.spec.clone();
            order.generation = body.generation;
        }
        let landing = state.spare_of(vm.id).and_then(|spare| spare.landing.clone());
        let policy = state.migration_of(vm.id).map(|(_, migration)| migration.terms.copy);
        let departure = landing.zip(policy).map(|(landing, policy)| Departure {
            vm: vm.id,
            fence: body.fence,
            landing,
            policy,
            at_rest: body.phase.is_at_rest(),
            pooled: vm.pool.is_some(),
        });
        let makes = matches!(action, Some(Action::Prepare | Action::Start | Action::Receive));
        let missing = match tools.images.paths(&order.image) {
            Some(files) => {
                order.files = files;
                false
            }
            None => makes,
        };
        let (tools, row, awaited) = (tools.clone(), body.clone(), vm.operation.is_some());
        let discards = vm.deleting;
        let operation = vm.operation.and_then(|operation| state.operations.get(&operation));
        let trace = operation.map(|operation| {
            let place = operation.place_in_trace();
            operation.steps.len().checked_sub(1).map_or(place, |step| place.step(step))
        });
        Some(Task { tools, row, order, departure, action, missing, awaited, discards, trace })
    }

    pub(super) fn driver(&self) -> &dyn Driver {
        &*self.tools.host.driver
    }

    /// Does it, and observes; tries again while that may help.
    async fn run(&self) -> Result<(), String> {
        if self.missing {
            return self.bring().await;
        }
        match self.action {
            Some(Action::Send) => return self.send().await,
            Some(Action::Look) => return self.look().await,
            Some(Action::Validate) => return self.validate().await,
            Some(_) | None => {}
        }
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(2))
            .with_max_times(ATTEMPTS - 1)
            .with_jitter()
            .build();
        loop {
            let (more, failure) = match self.act().await {
                Ok(more) => (more, None),
                Err(error) => (More::default(), Some(error)),
            };
            if let Some(error) = &failure {
                if error.kind == ErrorKind::Fenced {
                    return Err(format!("another owner acts: {error}"));
                }
                tracing::debug!(instance = %self.row.id, action = ?self.action, %error, "an action failed");
            }
            let seen = within(self.driver().observe(self.row.vm)).await;
            let pause = pauses.next();
            match (seen, failure, pause) {
                // The failure may be over, or the action may have happened all the same.
                (Ok(seen), Some(error), Some(pause)) if !error.kind.is_permanent() => {
                    if self.is_progress(&seen) {
                        return self.report(&seen, None, more).await;
                    }
                    tokio::time::sleep(pause).await;
                }
                (Ok(seen), failure, _) => return self.report(&seen, failure, more).await,
                (Err(_), _, Some(pause)) => tokio::time::sleep(pause).await,
                (Err(error), _, None) => return Err(format!("cannot observe: {error}")),
            }
        }
    }

    /// Has the image's files brought here. That may take long, so nothing is done afterwards on what
    /// was known before: the body is looked at again.
    async fn bring(&self) -> Result<(), String> {
        let brought = self.tools.images.bring(&self.tools.store, &self.order.image).await;
        let Err(error) = brought else { return Ok(()) };
        match within(self.driver().observe(self.row.vm)).await {
            Ok(seen) => self.report(&seen, Some(error), More::default()).await,
            Err(error) => Err(format!("cannot observe: {error}")),
        }
    }

    async fn act(&self) -> Result<More, DriverError> {
        let (vm, fence, driver) = (self.row.vm, self.row.fence, self.driver());
        let Some(action) = self.action else { return Ok(More::default()) };
        let call = async {
            let mut more = More::default();
            match action {
                Action::Rest | Action::Wait(_) | Action::Look | Action::Send | Action::Validate => {
                }
                Action::Prepare => driver.prepare(&self.order).await?,
                Action::Start => driver.start(&self.order).await?,
                Action::Shutdown { .. } => {
                    driver.shutdown(vm, fence).await?;
                    tokio::time::sleep(SHUTDOWN_PAUSE).await;
                }
                Action::Kill => driver.kill(vm, fence).await?,
                Action::Reboot => driver.reboot(vm, fence).await?,
                Action::Pause => driver.pause(vm, fence).await?,
                Action::Resume => driver.resume(vm, fence, self.order.lease).await?,
                Action::Release => {
                    driver.release(vm, fence).await?;
                    self.discard().await?;
                    more.cleared = self.discards;
                }
                Action::Receive => {
                    more.landing = Some(self.migration()?.receive(&self.order).await?);
                }
                Action::Abort => {
                    self.migration()?.abort(vm, fence).await?;
                    more.still = true;
                }
            }
            Ok(more)
        };
        within(call).await
    }

    /// Removes what a VM that is on its way out has in a pool.
    async fn discard(&self) -> Result<(), DriverError> {
        let (Some(pool), Some(identity), true) =
            (&self.order.spec.pool, self.order.pool, self.discards)
        else {
            return Ok(());
        };
        let (vm, fence) = (self.row.vm, self.row.fence);
        match self.driver().discard(vm, fence, pool, identity).await {
            // Nobody has seen that there is anything.
            Err(error) if !self.order.disks_made && error.kind != ErrorKind::Fenced => {
                tracing::warn!(vm = %self.row.vm, %error, "what may be in its pool is left");
                Ok(())
            }
            discarded => discarded,
        }
    }

    /// Whether the body is not any more as the row says.
    fn is_progress(&self, seen: &Observation) -> bool {
        self.row.phase.next(seen.body) != self.row.phase
            || seen.reboots > self.row.reboots
            || seen.starts > self.row.starts
    }

    pub(super) async fn report(
        &self,
        seen: &Observation,
        failure: Option<DriverError>,
        more: More,
    ) -> Result<(), String> {
        let failure = failure.map(|error| Failure {
            permanent: error.kind.is_permanent(),
            message: error.to_string(),
        });
        let failed = failure.is_some();
        let known = failure.as_ref().map(|failure| &failure.message) == self.row.failure.as_ref();
        let release = self.action == Some(Action::Release);
        let counts = failed && self.awaited;
        if !self.is_progress(seen) && known && !release && !counts && more == More::default() {
            // Nothing to tell; the wish is still there and is looked at again.
            return if failed { Err("it keeps failing".to_owned()) } else { Ok(()) };
        }
        let report = Report {
            generation: seen.generation,
            reboots: seen.reboots,
            starts: seen.starts,
            landing: more.landing,
            progress: more.progress,
            still: more.still,
            agent: more.agent,
            life: more.life,
            cleared: more.cleared,
            failure,
            ..Report::seen(self.row.id, self.row.fence, seen.body)
        };
        let span = self.trace.and_then(|place| Span::below(place, "report"));
        let told = self.tools.reporter.report(report).await.map_err(|error| error.to_string())?;
        drop(span);
        // The next look must not see the row as it was before.
        let read = self.tools.store.read(Consistency::AtLeast(told)).await;
        read.map_err(|error| error.to_string())?;
        if failed { Err("it keeps failing".to_owned()) } else { Ok(()) }
    }
}

/// A driver's call that takes too long may have happened.
pub(super) async fn within<T>(
    call: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, DriverError> {
    let timed_out =
        || DriverError::new(ErrorKind::Ambiguous, format!("no answer in {CALL_TIMEOUT:?}"));
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(timed_out()))
}

pub(super) const NAME: &str = "instance";

pub(super) struct InstanceActor {
    _present: Present,
}

impl InstanceActor {
    pub(super) fn new() -> InstanceActor {
        InstanceActor { _present: metrics::at_work(NAME) }
    }
}

impl Actor for InstanceActor {
    type Msg = Wake;
    type State = Task;
    type Arguments = Task;

    async fn pre_start(&self, me: ActorRef<Wake>, task: Task) -> Result<Task, ActorProcessingErr> {
        me.cast(Wake::now())?;
        Ok(task)
    }

    async fn handle(
        &self,
        me: ActorRef<Wake>,
        wake: Wake,
        task: &mut Task,
    ) -> Result<(), ActorProcessingErr> {
        wake.taken(NAME);
        planted::may_panic();
        let done = match task.trace {
            Some(trace) => telemetry::trace::within(trace, task.run()).await,
            None => task.run().await,
        };
        let reason = match done {
            Ok(()) => FINISHED.to_owned(),
            Err(why) => why,
        };
        me.stop(Some(reason));
        Ok(())
    }
}
