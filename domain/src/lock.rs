//! A lock: time-bound ownership of something outside the cluster, with a number that grows from owner
//! to owner.
//!
//! A lock alone protects nothing: an owner may be paused for longer than its time and go on acting.
//! What is protected must itself keep the highest fence it has seen and refuse a lower one.
//!
//! ```text
//!            acquire                       release, or its time is over
//!  (absent) ─────────▶ held ─────────────────────────────────────────▶ held by the next who waits
//!                        │ ▲ renew                                  └▶ (absent) when nobody does
//!                        └─┘
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    Draft, Fence, Revision, State,
    event::Change,
    id::TicketId,
    limit,
    name::Name,
    rejected::{Reason, Rejected, Violation},
    table::{Resource, Row, Table},
};

/// Who holds a lock. Times are lease time, milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The request that was granted.
    pub ticket: TicketId,
    /// Who it says it is.
    pub owner: String,
    /// The revision of the grant: higher than that of every holder before.
    pub fence: Fence,
    /// How long it lasts from a grant or a renewal.
    pub ttl_ms: u64,
    /// When it ends, unless it is renewed.
    pub until_ms: u64,
}

/// Who waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiter {
    /// The request that waits.
    pub ticket: TicketId,
    /// Who it says it is.
    pub owner: String,
    /// How long it will hold the lock.
    pub ttl_ms: u64,
    /// Lease time at which it gives up, milliseconds.
    pub until_ms: u64,
}

/// A lock that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Its project.
    pub project: Name,
    /// Its name in the project.
    pub name: Name,
    /// Who holds it.
    pub holder: Holder,
    /// Who waits, in the order of asking.
    #[serde(default)]
    pub waiters: Vec<Waiter>,
    /// The entry that changed it last.
    pub revision: Revision,
}

/// Names a lock: its project and its name there.
pub type LockKey = (Name, Name);

/// What may be asked of locks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum LockCommand {
    /// Take it, or wait for it.
    Acquire {
        /// Which.
        lock: LockKey,
        /// The request's own id, minted by the proposer.
        ticket: TicketId,
        /// Who asks.
        owner: String,
        /// How long it is held from a grant or a renewal, milliseconds.
        ttl_ms: u64,
        /// How long it is waited for, milliseconds; 0 to be refused at once.
        wait_ms: u64,
    },
    /// Hold it for its time again.
    Renew {
        /// Which.
        lock: LockKey,
        /// The fence that was granted.
        fence: Fence,
    },
    /// Give it back.
    Release {
        /// Which.
        lock: LockKey,
        /// The fence that was granted.
        fence: Fence,
    },
}

impl Resource for Lock {
    type Key = LockKey;

    fn key(&self) -> LockKey {
        (self.project.clone(), self.name.clone())
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Lock> {
        &state.locks
    }
    fn table_mut(state: &mut State) -> &mut Table<Lock> {
        &mut state.locks
    }
    fn change(row: Row<Lock>) -> Change {
        Change::Lock(row)
    }

    fn reindex(state: &mut State, old: Option<&Lock>, new: Option<&Lock>) {
        if let Some(old) = old {
            state.locks_by_end.remove(&(old.ends_ms(), old.key()));
        }
        if let Some(new) = new {
            state.locks_by_end.insert((new.ends_ms(), new.key()));
        }
    }
}

impl Lock {
    /// What its texts take in memory, bytes.
    pub(crate) fn weight_bytes(&self) -> usize {
        let waiting = self.waiters.iter().map(|waiter| waiter.owner.len() + 64);
        self.holder.owner.len() + waiting.sum::<usize>()
    }

    /// When something about it ends next: the holder's time, or a waiter's patience.
    fn ends_ms(&self) -> u64 {
        let waits = self.waiters.iter().map(|waiter| waiter.until_ms);
        waits.fold(self.holder.until_ms, u64::min)
    }
}

/// Decides about locks.
pub(crate) fn decide(draft: &mut Draft, command: LockCommand) -> Result<(), Rejected> {
    let (LockCommand::Acquire { lock: key, .. }
    | LockCommand::Renew { lock: key, .. }
    | LockCommand::Release { lock: key, .. }) = &command;
    // Time may have passed since the last tick.
    let key = key.clone();
    settle(draft, &key);
    match command {
        LockCommand::Acquire { ticket, owner, ttl_ms, wait_ms, .. } => {
            let wish = Waiter { ticket, owner, ttl_ms, until_ms: draft.state().now_ms + wait_ms };
            acquire(draft, key, wish, wait_ms)
        }
        LockCommand::Renew { fence, .. } => {
            let lock = held(draft, &key, fence)?;
            let until_ms = draft.state().now_ms + lock.holder.ttl_ms;
            draft.put(Lock { holder: Holder { until_ms, ..lock.holder.clone() }, ..lock });
            draft.reply_object("lock", &key.1);
            Ok(())
        }
        LockCommand::Release { fence, .. } => {
            let lock = held(draft, &key, fence)?;
            pass_on(draft, lock);
            draft.reply_object("lock", &key.1);
            Ok(())
        }
    }
}

fn acquire(draft: &mut Draft, key: LockKey, wish: Waiter, wait_ms: u64) -> Result<(), Rejected> {
    let mut violations = Vec::new();
    if !(limit::LOCK_TTL_MS_MIN..=limit::LOCK_TTL_MS_MAX).contains(&wish.ttl_ms) {
        let bounds = format!("must be {} to {}", limit::LOCK_TTL_MS_MIN, limit::LOCK_TTL_MS_MAX);
        violations.push(Violation::new("ttl_ms", bounds));
    }
    if wait_ms > limit::LOCK_WAIT_MS_MAX {
        let bounds = format!("must be at most {}", limit::LOCK_WAIT_MS_MAX);
        violations.push(Violation::new("wait_ms", bounds));
    }
    if wish.owner.is_empty() || wish.owner.len() > limit::LOCK_OWNER_BYTES_MAX {
        let bounds = format!("must be 1 to {} bytes", limit::LOCK_OWNER_BYTES_MAX);
        violations.push(Violation::new("owner", bounds));
    }
    Rejected::unless_empty(violations)?;
    let state = draft.state();
    if !state.projects.contains_key(&key.0) {
        return Err(Rejected::not_found("project", &key.0));
    }
    let ticket = wish.ticket;
    match state.locks.get(&key).map(|lock| Lock::clone(lock)) {
        None => {
            draft.room_for("locks", state.locks.len(), limit::LOCKS_MAX)?;
            let holder = grant(draft, wish);
            let (project, name) = key;
            draft.put(Lock {
                project,
                name,
                holder,
                waiters: Vec::new(),
                revision: Revision::ZERO,
            });
        }
        Some(lock) if wait_ms == 0 => {
            let message = format!(
                "lock {} is held by {} for {} s more; wait for it with wait_ms",
                key.1,
                lock.holder.owner,
                lock.holder.until_ms.saturating_sub(draft.state().now_ms).div_ceil(1_000)
            );
            return Err(Rejected::new(Reason::LockHeld, message));
        }
        Some(mut lock) => {
            if lock.waiters.len() >= limit::LOCK_WAITERS_MAX {
                let message = format!("{} wait for lock {} already", lock.waiters.len(), key.1);
                return Err(Rejected::new(Reason::QueueFull, message));
            }
            lock.waiters.push(wish);
            draft.put(lock);
        }
    }
    draft.reply_object("ticket", ticket);
    Ok(())
}

/// The lock, if this fence holds it.
fn held(draft: &Draft, key: &LockKey, fence: Fence) -> Result<Lock, Rejected> {
    let lock = draft.state().locks.get(key).filter(|lock| lock.holder.fence == fence);
    lock.map(|lock| Lock::clone(lock)).ok_or_else(|| {
        let message = format!("lock {} is not held under this fence any more", key.1);
        Rejected::new(Reason::Fenced, message)
    })
}

fn grant(draft: &Draft, wish: Waiter) -> Holder {
    Holder {
        ticket: wish.ticket,
        owner: wish.owner,
        fence: draft.revision(),
        ttl_ms: wish.ttl_ms,
        until_ms: draft.state().now_ms + wish.ttl_ms,
    }
}

/// Gives the lock to the next who waits; without one it is gone.
fn pass_on(draft: &mut Draft, mut lock: Lock) {
    if lock.waiters.is_empty() {
        return draft.delete::<Lock>(lock.key());
    }
    let next = lock.waiters.remove(0);
    let holder = grant(draft, next);
    draft.put(Lock { holder, ..lock });
}

/// Lets time pass for one lock: who has waited long enough goes, and whose time is over loses it.
fn settle(draft: &mut Draft, key: &LockKey) {
    let now_ms = draft.state().now_ms;
    let Some(lock) = draft.state().locks.get(key).filter(|lock| lock.ends_ms() < now_ms) else {
        return;
    };
    let mut lock = Lock::clone(lock);
    lock.waiters.retain(|waiter| waiter.until_ms >= now_ms);
    if lock.holder.until_ms < now_ms {
        pass_on(draft, lock);
    } else {
        draft.put(lock);
    }
}

/// Lets time pass for all locks, a bounded number of them.
pub(crate) fn expire(draft: &mut Draft) {
    for _ in 0..limit::BATCH_MAX {
        let state = draft.state();
        let Some((ends_ms, key)) = state.locks_by_end.get_min().cloned() else { return };
        if ends_ms >= state.now_ms {
            return;
        }
        settle(draft, &key);
    }
}

impl State {
    /// The locks of a project, by name.
    pub fn locks_in(&self, project: &Name) -> impl Iterator<Item = &std::sync::Arc<Lock>> {
        let from = (project.clone(), Name::first());
        let found = self.locks.range(from..).take_while(move |((of, _), _)| of == project);
        found.map(|(_, lock)| lock)
    }
}
