//! One host: keeps its lease, finds out what its bodies need, and has it done.
//!
//! It looks at what changed since it looked last, and at everything when it starts, when it missed
//! something, and now and then. What is to be done comes from `next_action` alone.

mod claim;
pub(crate) mod guarding;
mod instance;
mod migration;
mod probe;
mod sweep;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{
    Revision, State,
    event::Change,
    host::Capacity,
    id::{BootId, HostId, InstanceId, OperationId, VmId},
    instance::{Action, Instance},
    name::Name,
    table::Row,
};
use drivers::{Driver, Guard};
use guard::since_boot;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use raft_store::Consistency;
use telemetry::Present;
use tokio::time::Instant;

use crate::{
    metrics::{self, Wake},
    planted,
    reporter::Reporter,
    root::StaffOptions,
};
use claim::Claim;
use instance::{InstanceActor, Task, Tools};
use probe::{ProbeActor, Question};

/// A host this node drives.
pub struct LocalHost {
    /// Its identity, kept on the host.
    pub id: HostId,
    /// Its name.
    pub name: Name,
    /// The present boot.
    pub boot: BootId,
    /// What is kept back for the machine itself.
    pub reserved: Capacity,
    /// What of the whole machine is given out.
    pub offered: Box<dyn Fn(Capacity) -> Capacity + Send + Sync>,
    /// Its driver.
    pub driver: Arc<dyn Driver>,
    /// What ends its guests when its lease runs out, if something does.
    pub guard: Option<Arc<dyn Guard>>,
    /// Where its driver must say that it asks the guard, if the guard is a process of its own.
    pub guard_socket: Option<PathBuf>,
    /// When that will be, since the machine booted, nanoseconds; 0 while it is not known.
    pub held_until_ns: AtomicU64,
}

impl LocalHost {
    pub(crate) fn note_held(&self, until: Option<Duration>) {
        let until_ns = until.map_or(0, |until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
        self.held_until_ns.store(until_ns, Ordering::Relaxed);
    }

    /// How long its guests may still execute if its lease is not renewed, when its guard ends them then.
    #[must_use]
    pub fn held_for(&self) -> Option<Duration> {
        let until_ns = self.held_until_ns.load(Ordering::Relaxed);
        (until_ns > 0).then(|| Duration::from_nanos(until_ns).saturating_sub(since_boot()))
    }
}

/// Between two looks, when nothing happens.
const INTERVAL: Duration = Duration::from_millis(500);
/// Least time between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// Between two looks at everything the driver has.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// After an action that keeps failing.
const RETRY: Duration = Duration::from_secs(10);
/// Between two questions for one operation.
const REASK: Duration = Duration::from_secs(1);

pub(crate) const NAME: &str = "host";

pub(crate) struct HostActor {
    _present: Present,
}

pub(crate) struct HostState {
    tools: Tools,
    parallel: usize,
    /// What was looked at last; nothing before the first look.
    seen: Option<Revision>,
    /// Bodies to look at again at a time.
    due: BTreeSet<(Instant, InstanceId)>,
    /// Bodies to look at as soon as there is room.
    ready: BTreeSet<InstanceId>,
    working: BTreeMap<InstanceId, ActorId>,
    /// Questions that are under way; after a failure, when each may be asked again.
    asking: BTreeMap<OperationId, ActorId>,
    asked: BTreeMap<OperationId, Instant>,
    changes: tokio::sync::broadcast::Receiver<VmId>,
    next_sweep: Instant,
    claim: Claim,
}

impl HostActor {
    pub(crate) async fn start(
        options: Arc<StaffOptions>,
        number: usize,
        reporter: Reporter,
        supervisor: ActorCell,
    ) -> Result<ActorCell, String> {
        let host = options.hosts.get(number).cloned().ok_or("there is no such host")?;
        let changes = host.driver.changes();
        let (store, images) = (options.store.clone(), options.images.clone());
        let state = HostState {
            tools: Tools { store, host, reporter, images },
            changes,
            parallel: options.parallel,
            seen: None,
            due: BTreeSet::new(),
            ready: BTreeSet::new(),
            working: BTreeMap::new(),
            asking: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_sweep: Instant::now(),
            claim: Claim::default(),
        };
        let spawned = Actor::spawn_linked(
            None,
            HostActor { _present: metrics::at_work(NAME) },
            state,
            supervisor,
        )
        .await;
        spawned.map(|(actor, _)| actor.get_cell()).map_err(|error| error.to_string())
    }
}

impl Actor for HostActor {
    type Msg = Wake;
    type State = HostState;
    type Arguments = HostState;

    async fn pre_start(
        &self,
        me: ActorRef<Wake>,
        state: HostState,
    ) -> Result<HostState, ActorProcessingErr> {
        me.cast(Wake::now())?;
        Ok(state)
    }

    /// One look for each message; the next message comes from here.
    async fn handle(
        &self,
        me: ActorRef<Wake>,
        wake: Wake,
        state: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        wake.taken(NAME);
        planted::may_panic();
        let mut views = state.tools.store.views();
        let mut view = views.borrow_and_update().clone();
        let mut acts = state.hold_lease(&view.state).await;
        if acts && state.seen.is_none() {
            // After a restart this node's state may be behind, and what it wanted long over.
            match state.tools.store.read(Consistency::Linearizable).await {
                Ok(newest) => {
                    acts = state.hold_lease(&newest.state).await;
                    view = newest;
                }
                Err(error) => {
                    tracing::debug!(%error, "the newest state cannot be read");
                    acts = false;
                }
            }
        }
        if acts {
            state.gather(&view.state);
            state.sweep(&view.state).await;
            state.dispatch(&me, &view.state).await;
            state.ask(&me, &view.state).await;
        }
        // What was due on a host that another one drives now is not done from here.
        let due = state.due.first().filter(|_| acts).map(|(at, _)| *at);
        let wake = due.unwrap_or_else(|| Instant::now() + INTERVAL);
        // While children work, their end must come through: it is a message too.
        let idle = state.working.is_empty() && state.asking.is_empty();
        let interval = if idle { INTERVAL } else { PAUSE };
        let wake = wake.min(Instant::now() + interval);
        tokio::select! {
            _ = tokio::time::timeout_at(wake, views.changed()) => {}
            changed = state.changes.recv() => state.note(&changed),
        }
        tokio::time::sleep(PAUSE).await;
        me.cast(Wake::now())?;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Wake>,
        event: SupervisionEvent,
        state: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        let (child, failed) = match event {
            SupervisionEvent::ActorFailed(child, error) => (child, Some(error.to_string())),
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                (child, reason.filter(|reason| reason != instance::FINISHED))
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {
                return Ok(());
            }
        };
        state.asking.retain(|_, asker| *asker != child.get_id());
        let done = state.working.iter().find(|(_, id)| **id == child.get_id());
        let Some(body) = done.map(|(body, _)| *body) else { return Ok(()) };
        state.working.remove(&body);
        match failed {
            None => drop(state.ready.insert(body)),
            Some(why) => {
                metrics::failed(instance::NAME);
                tracing::warn!(instance = %body, why, "an action is tried again later");
                state.ready.remove(&body);
                state.due.insert((Instant::now() + RETRY, body));
            }
        }
        Ok(())
    }
}

impl HostState {
    /// Finds bodies that something happened to.
    fn gather(&mut self, state: &State) {
        let news = self.seen.and_then(|seen| {
            let events = state.events.after(seen).ok()?;
            Some(events.flat_map(|event| &event.changes).collect::<Vec<_>>())
        });
        let here = self.tools.host.id;
        match news {
            Some(changes) => {
                let vms = changes.into_iter().filter_map(|change| match change {
                    Change::Vm(Row::Put(vm)) => Some(vm.id),
                    // Of a VM that moves, one body waits for what becomes of the other.
                    Change::Instance(Row::Put(body)) => Some(body.vm),
                    // Its turn has come, or it is at its next step.
                    Change::Operation(Row::Put(operation)) => operation.vm(),
                    Change::Vm(Row::Delete(_))
                    | Change::Instance(Row::Delete(_))
                    | Change::Project(_)
                    | Change::Host(_)
                    | Change::Image(_)
                    | Change::Operation(Row::Delete(_))
                    | Change::Setting(_)
                    | Change::MigrationPolicy(_)
                    | Change::AlertRule(_)
                    | Change::Alert(_)
                    | Change::Silence(_)
                    | Change::Node(_)
                    | Change::Token(_)
                    | Change::Credential(_)
                    | Change::Lock(_) => None,
                });
                // Most changes come several for one VM.
                let vms: BTreeSet<VmId> = vms.collect();
                let bodies = vms.into_iter().filter_map(|vm| state.body_on(vm, here));
                self.ready.extend(bodies.map(|body| body.id));
            }
            None => self.ready.extend(state.instances_on(here).map(|body| body.id)),
        }
        self.seen = Some(state.revision());
        let now = Instant::now();
        while let Some((at, body)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, body));
            self.ready.insert(body);
        }
    }

    /// Starts work on bodies that need some, as far as there is room.
    async fn dispatch(&mut self, me: &ActorRef<Wake>, state: &State) {
        while self.working.len() < self.parallel {
            let Some(id) = self.ready.pop_first() else { break };
            if self.working.contains_key(&id) {
                continue;
            }
            let Some(body) = state.instances.get(&id) else { continue };
            let action = state.next_action(body);
            match action {
                Action::Rest => continue,
                Action::Wait(until_ms) => {
                    let wait = Duration::from_millis(until_ms.saturating_sub(state.now_ms));
                    self.due.insert((Instant::now() + wait, id));
                    continue;
                }
                Action::Prepare
                | Action::Start
                | Action::Shutdown { .. }
                | Action::Kill
                | Action::Reboot
                | Action::Pause
                | Action::Resume
                | Action::Release
                | Action::Receive
                | Action::Look
                | Action::Send
                | Action::Abort
                | Action::Validate => {}
            }
            self.work(me, state, body, Some(action)).await;
        }
    }

    /// Has one thing done, or just seen, by an actor of its own.
    async fn work(
        &mut self,
        me: &ActorRef<Wake>,
        state: &State,
        body: &Instance,
        action: Option<Action>,
    ) {
        let Some(task) = Task::new(&self.tools, state, body, action) else { return };
        match Actor::spawn_linked(None, InstanceActor::new(), task, me.get_cell()).await {
            Ok((actor, _)) => drop(self.working.insert(body.id, actor.get_id())),
            Err(error) => {
                tracing::warn!(instance = %body.id, %error, "cannot start an action");
                self.due.insert((Instant::now() + RETRY, body.id));
            }
        }
    }

    /// Has the driver asked what operations want to know; again after a while, while they want to.
    async fn ask(&mut self, me: &ActorRef<Wake>, state: &State) {
        let wanted: Vec<_> = state.asked_of(self.tools.host.id).take(self.parallel).collect();
        self.asked.retain(|operation, _| wanted.contains(operation));
        for operation in wanted {
            let rests = self.asked.get(&operation).is_some_and(|at| at.elapsed() < REASK);
            if rests || self.asking.contains_key(&operation) {
                continue;
            }
            self.asked.insert(operation, Instant::now());
            let question = Question { tools: self.tools.clone(), operation };
            if let Ok((actor, _)) =
                Actor::spawn_linked(None, ProbeActor::new(), question, me.get_cell()).await
            {
                self.asking.insert(operation, actor.get_id());
            }
        }
    }

    /// Takes note of what the driver says has changed: everything is looked over, and what one
    /// body's observation would tell is in that. A lost message means the same.
    fn note(&mut self, _: &Result<VmId, tokio::sync::broadcast::error::RecvError>) {
        self.next_sweep = Instant::now();
    }
}
