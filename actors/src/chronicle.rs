//! Writes down what becomes of operations: lines of the log, counts and spans for their steps and their ends. Every node
//! follows; the one that led when it was decided writes, so that each is told once. What a leader decides and does not
//! live to tell is not told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::{
    Revision, State,
    event::Change,
    id::{HostId, OperationId, VmId},
    name::Name,
    operation::{Class, Kind, Operation, Status, Subject},
    table::Row,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use raft_store::{Store, View};
use telemetry::{Present, trace::Span};

use crate::{
    metrics::{self, Wake},
    root::StaffOptions,
};

pub(crate) const NAME: &str = "chronicle";
/// Longest time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two looks: many changes then share one.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Chronicle {
    _present: Present,
}

impl Chronicle {
    pub(crate) async fn start(
        options: Arc<StaffOptions>,
        supervisor: ActorCell,
    ) -> Result<ActorCell, String> {
        let me = Chronicle { _present: metrics::at_work(NAME) };
        let spawned = Actor::spawn_linked(None, me, options.store.clone(), supervisor).await;
        spawned.map(|(actor, _)| actor.get_cell()).map_err(|error| error.to_string())
    }
}

pub(crate) struct Book {
    store: Store,
    /// What was read up to here.
    read: Arc<View>,
    /// The operations that have not ended, as they were told; none while another node tells.
    told: Option<BTreeMap<OperationId, Told>>,
}

/// What was told of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    status: Status,
    steps: usize,
    /// The driver's kind where the VM's body was.
    source: Option<Name>,
}

impl Actor for Chronicle {
    type Msg = Wake;
    type State = Book;
    type Arguments = Store;

    async fn pre_start(
        &self,
        me: ActorRef<Wake>,
        store: Store,
    ) -> Result<Book, ActorProcessingErr> {
        me.cast(Wake::now())?;
        Ok(Book { read: store.view(), store, told: None })
    }

    /// One look for each message; the next message comes from here.
    async fn handle(
        &self,
        me: ActorRef<Wake>,
        wake: Wake,
        book: &mut Book,
    ) -> Result<(), ActorProcessingErr> {
        wake.taken(NAME);
        let mut views = book.store.views();
        let view = views.borrow_and_update().clone();
        book.follow(view);
        let _ = tokio::time::timeout(INTERVAL, views.changed()).await;
        tokio::time::sleep(PAUSE).await;
        me.cast(Wake::now())?;
        Ok(())
    }
}

fn open_ones(state: &State) -> BTreeMap<OperationId, Told> {
    let told = |operation: &Arc<Operation>| {
        let source = operation.vm().and_then(|vm| provider(state, vm));
        (operation.id, Told { status: operation.status, steps: operation.steps.len(), source })
    };
    let stuck = state.operations.values().filter(|operation| operation.status == Status::Stuck);
    state.unfinished_operations().chain(stuck).map(told).collect()
}

/// The driver's kind where a VM's body is.
fn provider(state: &State, vm: VmId) -> Option<Name> {
    driver(state, state.instance_of(vm)?.host)
}

fn driver(state: &State, host: HostId) -> Option<Name> {
    Some(state.hosts.get(&host)?.driver.clone())
}

impl Book {
    fn follow(&mut self, view: Arc<View>) {
        let (from, upto): (Revision, Revision) = (self.read.revision(), view.revision());
        if from == upto {
            return;
        }
        // Also when it leads no more: what it proposed is nobody else's to tell.
        let me = self.store.node();
        if view.at.is_none_or(|at| at.node != me) {
            self.told = None;
            self.read = view;
            return;
        }
        let mut told = self.told.take().unwrap_or_else(|| open_ones(&self.read.state));
        match view.state.events.after(from) {
            Ok(events) if from.epoch() == upto.epoch() => {
                // Where bodies are that were not yet there when it was read last.
                let mut bodies = BTreeMap::new();
                for change in events.flat_map(|event| &event.changes) {
                    if let Change::Instance(Row::Put(body)) = change {
                        bodies.entry(body.vm).or_insert(body.host);
                    }
                    if let Change::Operation(Row::Delete(operation)) = change {
                        told.remove(operation);
                    }
                    if let Change::Operation(Row::Put(operation)) = change {
                        let before = told.get(&operation.id).cloned();
                        let before = before.unwrap_or_else(|| Told {
                            status: Status::Queued,
                            steps: 0,
                            source: operation.vm().and_then(|vm| {
                                let known = provider(&self.read.state, vm);
                                known.or_else(|| driver(&view.state, *bodies.get(&vm)?))
                            }),
                        });
                        let now = note(&view.state, operation, before);
                        match operation.status {
                            Status::Done | Status::RolledBack => drop(told.remove(&operation.id)),
                            // What is stuck may be taken up again.
                            Status::Queued
                            | Status::Running
                            | Status::Unwinding
                            | Status::Stuck => drop(told.insert(operation.id, now)),
                        }
                    }
                }
            }
            // Too much has happened, or another history goes on.
            Ok(_) | Err(_) => told = open_ones(&view.state),
        }
        self.told = Some(told);
        self.read = view;
    }
}

/// Tells what is new of an operation; the answer is what has been told of it now.
fn note(state: &State, operation: &Operation, told: Told) -> Told {
    let (status, steps) = (operation.status, operation.steps.len());
    let now = Told { status, steps, source: told.source.clone() };
    if now != told {
        count(state, operation, &told);
        tell(state, operation, &told);
        // What was stuck and is given up was told when it got stuck.
        if operation.status.is_final() && told.status != Status::Stuck {
            trace(state, operation, &told);
        }
    }
    now
}

fn between(from_ms: u64, to_ms: u64) -> f64 {
    Duration::from_millis(to_ms.saturating_sub(from_ms)).as_secs_f64()
}

fn count(state: &State, operation: &Operation, told: &Told) {
    let kind = operation.kind.definition().name;
    if told.status == Status::Queued
        && operation.status == Status::Running
        && let Some((_, begun_ms)) = operation.steps.last()
    {
        let waited = between(operation.created_wall_ms, *begun_ms);
        metrics::QUEUED.of([operation.class.as_str()]).record(waited);
    }
    let ends = operation.status.is_final();
    let after = operation.steps.iter().skip(1).map(|(_, begun_ms)| *begun_ms);
    let after = after.chain(ends.then_some(operation.ended_wall_ms));
    // Those before were counted when the one after them began.
    let steps = operation.steps.iter().zip(after).skip(told.steps.saturating_sub(1));
    for ((step, begun_ms), ended_ms) in steps {
        metrics::STEP.of([kind, step.as_str()]).record(between(*begun_ms, ended_ms));
    }
    if !ends {
        return;
    }
    let (class, status) = (operation.class.as_str(), operation.status.as_str());
    metrics::OPERATIONS.of([class, kind, status]).increment(1);
    if let Subject::Vm { id, project, .. } = &operation.subject
        && *project == domain::canary::name()
        && operation.status == Status::Done
        // At its end one that was made has a host, and one that was deleted has none any more.
        && let Some(provider) = provider(state, *id).or_else(|| told.source.clone())
    {
        let took = between(operation.created_wall_ms, operation.ended_wall_ms);
        metrics::CANARY.of([provider.to_string(), kind.to_owned()]).record(took);
    }
    if operation.kind == Kind::Migrate
        && operation.status == Status::Done
        && let (Some(source), Some(vm)) = (&told.source, operation.vm())
        && let Some(target) = provider(state, vm)
    {
        let took = between(operation.created_wall_ms, operation.ended_wall_ms);
        metrics::MIGRATION.of([source.to_string(), target.to_string()]).record(took);
    }
}

/// Tells the spans of an operation that has ended: its own, and its steps'.
fn trace(state: &State, operation: &Operation, told: &Told) {
    let kind = operation.kind.definition().name;
    let above = operation.trace.map_or(0, |above| above.span);
    let place = operation.place_in_trace();
    let Some(span) = Span::at(place, above, format!("operation {kind}")) else { return };
    let mut span = span.between(operation.created_wall_ms, operation.ended_wall_ms);
    span.say("novacron.operation_id", operation.id.to_string());
    span.say("novacron.status", operation.status.as_str());
    let mut say =
        |name, value: Option<String>| value.into_iter().for_each(|value| span.say(name, value));
    say("novacron.vm_id", operation.vm().map(|vm| vm.to_string()));
    say("novacron.source_provider", told.source.as_ref().map(Name::to_string));
    let target = operation.vm().and_then(|vm| provider(state, vm));
    say("novacron.dest_provider", target.as_ref().map(Name::to_string));
    match operation.status {
        Status::Stuck | Status::RolledBack => span.fail(operation.message.clone()),
        Status::Queued | Status::Running | Status::Unwinding | Status::Done => {}
    }
    let ends = operation.steps.iter().skip(1).map(|(_, begun_ms)| *begun_ms);
    let ends = ends.chain([operation.ended_wall_ms]);
    for (number, ((step, begun_ms), ended_ms)) in operation.steps.iter().zip(ends).enumerate() {
        let step = Span::at(place.step(number), place.span, format!("step {}", step.as_str()));
        drop(step.map(|step| step.between(*begun_ms, ended_ms)));
    }
}

fn tell(state: &State, operation: &Operation, told: &Told) {
    let step = operation.steps.last();
    let now_ms = match (operation.status.is_final(), step) {
        (true, _) => operation.ended_wall_ms,
        (false, Some((_, begun_ms))) => *begun_ms,
        (false, None) => operation.created_wall_ms,
    };
    let moves = matches!(operation.kind, Kind::Migrate | Kind::Failover);
    let source = told.source.as_ref().filter(|_| moves).map(Name::as_str);
    let target = operation.vm().and_then(|vm| provider(state, vm));
    let target = target.as_ref().map(Name::as_str);
    let message = Some(operation.message.as_str()).filter(|message| !message.is_empty());
    let failed = matches!(operation.status, Status::Stuck | Status::RolledBack);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                service = operation.class.as_str(),
                operation = operation.kind.definition().name,
                operation_id = %operation.id,
                vm_id = operation.vm().map(tracing::field::display),
                source_provider = source,
                dest_provider = target,
                phase = step.map(|(step, _)| step.as_str()),
                status = operation.status.as_str(),
                duration_ms = now_ms.saturating_sub(operation.created_wall_ms),
                trace_id = %operation.place_in_trace().id,
                error = message.filter(|_| failed),
                detail = message.filter(|_| !failed),
                "operation"
            )
        };
    }
    match operation.status {
        Status::Stuck => line!(warn),
        Status::Done | Status::RolledBack => line!(info),
        // Of most, how they end is enough.
        Status::Queued | Status::Running | Status::Unwinding
            if operation.class == Class::Migrations =>
        {
            line!(info);
        }
        Status::Queued | Status::Running | Status::Unwinding => line!(debug),
    }
}
