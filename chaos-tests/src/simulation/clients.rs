//! Clients of each node, which end with it: they ask the store on their own machine, and note what they hear.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use domain::{
    envelope::{Command, Outcome, Request},
    id::{CredentialId, Digest, TicketId},
    lock::{LockCommand, LockKey},
    migration_policy::MigrationPolicyCommand,
    name::Name,
    operation::Terms,
    principal::Principal,
    rejected::Reason,
};
use raft_store::{Consistency, ProposeError, Store, View};
use serde_json::{Value, json};

use super::node::{Common, id, name};
use crate::{
    history::{Call, Process},
    workload::{locks, registers},
};

/// Clients of each node that use registers, and locks.
const READERS: u64 = 2;
const HOLDERS: u64 = 2;
/// Registers that are used at one time. Each is left for a new one after so many steps, so that the search for
/// an order stays small.
const REGISTERS: u64 = 3;
const STEPS_MAX: u64 = 150;
const LOCKS: u64 = 2;

pub(super) fn admin() -> CredentialId {
    id(1)
}

/// What clients of all nodes share: it is not part of what is tested.
#[derive(Default)]
pub(super) struct Resource {
    /// The highest fence that each lock's resource has seen.
    fences: RefCell<BTreeMap<String, u64>>,
    /// Each value is written once.
    values: Cell<u64>,
    /// Steps of registers so far.
    steps: Cell<u64>,
    /// Clients at work.
    busy: Cell<usize>,
}

impl Resource {
    /// Whether nobody asks for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.busy.get() == 0
    }

    fn write(&self, lock: &str, fence: u64) -> Result<(), String> {
        let mut fences = self.fences.borrow_mut();
        let highest = fences.entry(lock.to_owned()).or_default();
        if fence < *highest {
            return Err(format!("{highest} was here"));
        }
        *highest = fence;
        Ok(())
    }

    fn register(&self, random: &mut fastrand::Rng) -> String {
        let step = self.steps.replace(self.steps.get() + 1);
        format!("r{}", step / (REGISTERS * STEPS_MAX) * REGISTERS + random.u64(..REGISTERS))
    }
}

fn next(counter: &Cell<u64>) -> u64 {
    counter.set(counter.get() + 1);
    counter.get()
}

/// A client of one node.
struct Client {
    store: Store,
    common: Rc<Common>,
    random: fastrand::Rng,
}

/// Somebody who works; a crash ends that too.
struct Busy(Rc<Common>);

impl Busy {
    fn new(common: &Rc<Common>) -> Busy {
        common.resource.busy.set(common.resource.busy.get() + 1);
        Busy(common.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.resource.busy.set(self.0.resource.busy.get() - 1);
    }
}

/// Starts the clients of a node.
pub(super) fn start(store: &Store, common: &Rc<Common>, seed: u64) {
    for number in 0..READERS + HOLDERS {
        let random = fastrand::Rng::with_seed(seed.wrapping_add(number));
        let client = Client { store: store.clone(), common: common.clone(), random };
        let busy = Busy::new(common);
        if number < READERS {
            tokio::task::spawn_local(async move { client.use_registers(busy).await });
        } else {
            tokio::task::spawn_local(async move { client.use_locks(busy).await });
        }
    }
}

impl Client {
    async fn use_registers(mut self, _busy: Busy) {
        let mut process = self.common.history.process(registers::MODEL);
        while !self.common.is_over.get() {
            let key = self.common.resource.register(&mut self.random);
            match self.random.u8(..10) {
                0..5 => self.read(&mut process, &key).await,
                5..9 => self.write(&mut process, &key).await,
                _ => self.read_weakly(&mut process, &key).await,
            }
            self.think(0..60).await;
        }
    }

    async fn read(&mut self, process: &mut Process, key: &str) {
        let call = process.invoke("read", key, Value::Null);
        match self.store.read(Consistency::Linearizable).await {
            Ok(view) => call.ok(held(&view, key)),
            Err(error) => call.fail(error.to_string()),
        }
    }

    async fn read_weakly(&mut self, process: &mut Process, key: &str) {
        const AGE_MS: u64 = 500;
        if self.random.bool() {
            let call = process.invoke("read-any", key, Value::Null);
            return call.ok(held(&self.store.view(), key));
        }
        let call = process.invoke("read-aged", key, json!({ "age_ms": AGE_MS }));
        match self.store.read(Consistency::MaxAge(Duration::from_millis(AGE_MS))).await {
            Ok(view) => call.ok(held(&view, key)),
            Err(error) => call.fail(error.to_string()),
        }
    }

    async fn write(&mut self, process: &mut Process, key: &str) {
        let value = next(&self.common.resource.values);
        let command = Command::MigrationPolicy(MigrationPolicyCommand::Set {
            name: name(key),
            project: None,
            labels: [(name("value"), value.to_string())].into(),
            terms: Terms::default(),
        });
        let request = self.request(&value.to_string());
        let call = process.invoke("write", key, json!({ "value": value }));
        let answer = self.propose(Some(request.clone()), command.clone()).await;
        hear(call, &answer, |outcome| json!({ "etag": outcome.revision.as_u64() }));
        let Ok(done) = answer else { return };
        if self.random.u8(..100) < 20 {
            let asked = json!({ "etag": done.revision.as_u64() });
            let call = process.invoke("again", key, asked);
            let again = self.propose(Some(request), command).await;
            match &again {
                // Nobody said that it was not done.
                Err(ProposeError::Unavailable(why)) => call.info(why.clone()),
                again => hear(call, again, |outcome| json!({ "etag": outcome.revision.as_u64() })),
            }
        }
    }

    async fn use_locks(mut self, _busy: Busy) {
        let mut process = self.common.history.process(locks::MODEL);
        while !self.common.is_over.get() {
            let lock = format!("lock-{}", self.random.u64(..LOCKS));
            self.hold(&mut process, &lock).await;
            self.think(50..400).await;
        }
    }

    /// Takes a lock, if it is free, and uses what it protects.
    async fn hold(&mut self, process: &mut Process, lock: &str) {
        let (key, ttl_ms) = (lock_key(lock), self.random.u64(1_000..3_000));
        let ticket: TicketId = id(self.random.u128(..));
        let call = process.invoke("acquire", lock, json!({ "ttl_ms": ttl_ms, "wait_ms": 0 }));
        let acquire = LockCommand::Acquire {
            lock: key.clone(),
            ticket,
            owner: "somebody".to_owned(),
            ttl_ms,
            wait_ms: 0,
        };
        let request = self.request(&ticket.to_string());
        let answer = self.propose(Some(request), Command::Lock(acquire)).await;
        // The grant is the entry that answered.
        hear(call, &answer, |outcome| json!({ "fence": outcome.revision.as_u64() }));
        let Ok(fence) = answer.map(|outcome| outcome.revision) else { return };
        let asked = json!({ "fence": fence.as_u64() });
        for _ in 0..self.random.u8(1..4) {
            let call = process.invoke("write", lock, asked.clone());
            match self.common.resource.write(lock, fence.as_u64()) {
                Ok(()) => call.ok(json!({})),
                Err(why) => return call.fail(why),
            }
            if self.random.u8(..100) < 30 {
                let renew = LockCommand::Renew { lock: key.clone(), fence };
                let asked = json!({ "fence": fence.as_u64(), "ttl_ms": ttl_ms });
                let call = process.invoke("renew", lock, asked);
                let answer = self.propose(None, Command::Lock(renew)).await;
                hear(call, &answer, |_| json!({}));
            }
            self.think(20..ttl_ms / 2).await;
        }
        if self.random.u8(..100) < 80 {
            let release = LockCommand::Release { lock: key, fence };
            let call = process.invoke("release", lock, asked);
            let answer = self.propose(None, Command::Lock(release)).await;
            hear(call, &answer, |_| json!({}));
        }
    }

    async fn propose(
        &self,
        request: Option<Request>,
        command: Command,
    ) -> Result<Outcome, ProposeError> {
        self.store.propose(Principal::Credential(admin()), request, command).await
    }

    /// An idempotency key for what `what` names.
    fn request(&mut self, what: &str) -> Request {
        Request {
            id: id(self.random.u128(..)),
            digest: Digest::sha256(what.as_bytes()),
            since: Some(self.store.view().revision()),
        }
    }

    async fn think(&mut self, ms: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(ms))).await;
    }
}

fn lock_key(lock: &str) -> LockKey {
    (Name::default_project(), name(lock))
}

/// What a view holds of a register.
fn held(view: &View, key: &str) -> Value {
    let row = view.state.migration_policies.get(&name(key));
    let value = row.and_then(|row| row.labels.get(&name("value"))?.parse::<u64>().ok());
    let etag = row.map(|row| row.revision.as_u64());
    json!({ "value": value.unwrap_or_default(), "etag": etag.unwrap_or_default() })
}

/// Notes what a client heard: what was refused was not done, unless the refusal may be of a later attempt.
fn hear(call: Call<'_>, answer: &Result<Outcome, ProposeError>, value: impl Fn(&Outcome) -> Value) {
    match answer {
        Ok(outcome) => call.ok(value(outcome)),
        Err(ProposeError::Rejected(refused)) if is_final(refused.reason) => {
            call.fail(refused.to_string());
        }
        Err(ProposeError::Unavailable(why)) => call.fail(why.clone()),
        Err(error) => call.info(error.to_string()),
    }
}

fn is_final(reason: Reason) -> bool {
    matches!(reason, Reason::LockHeld | Reason::Fenced | Reason::NotFound)
}
