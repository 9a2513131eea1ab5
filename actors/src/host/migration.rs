//! What hosts do with bodies that move between them.

use std::time::Duration;

use domain::{
    State,
    instance::{Action, Body, Ended, Life},
};
use drivers::{DriverError, ErrorKind, Migration, cannot_migrate};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::instance::{More, Task, within};

/// Between two reports of how far a copying is.
const PROGRESS: Duration = Duration::from_secs(3);
/// Between two looks at a guest that has not come whole yet.
const LOOK: Duration = Duration::from_millis(100);
/// How long a guest's agent is given to answer, everything on the way to it included.
const AGENT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a guest is given to show that it works.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

impl Task {
    pub(super) fn migration(&self) -> Result<&dyn Migration, DriverError> {
        self.driver().migration().ok_or_else(cannot_migrate)
    }

    /// Has the guest sent, and tells how far it is. It takes as long as it takes: the operation has
    /// a deadline, and when it wants something else this ends and leaves the sending to that.
    pub(super) async fn send(&self) -> Result<(), String> {
        let Some(departure) = &self.departure else { return Ok(()) };
        let migration = match self.migration() {
            Ok(migration) => migration,
            Err(error) => return self.tell(Err(error), false).await,
        };
        let mut views = self.tools.store.views();
        let wanted = |state: &State| {
            let row = state.instances.get(&self.row.id);
            row.is_some_and(|row| {
                row.fence == self.row.fence && state.next_action(row) == Action::Send
            })
        };
        let agent = !departure.at_rest && self.agent_answers(migration).await == Some(true);
        if !wanted(&self.tools.store.view().state) {
            return Ok(());
        }
        let mut sending = migration.send(departure);
        let mut beat = interval(PROGRESS);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.tick().await;
        loop {
            tokio::select! {
                sent = &mut sending => return self.tell(sent, agent).await,
                _ = views.changed() => {
                    let state = views.borrow_and_update().state.clone();
                    if !wanted(&state) {
                        return Ok(());
                    }
                }
                _ = beat.tick() => self.tell_progress(migration).await,
            }
        }
    }

    /// Tells how the sending ended. What is not known to have failed is asked for again: the driver
    /// then waits for what is under way.
    async fn tell(&self, sent: Result<(), DriverError>, agent: bool) -> Result<(), String> {
        let failure = sent.err();
        if let Some(error) = &failure
            && matches!(error.kind, ErrorKind::Ambiguous | ErrorKind::Fenced)
        {
            return Err(error.to_string());
        }
        let seen = within(self.driver().observe(self.row.vm)).await;
        let seen = seen.map_err(|error| format!("cannot observe: {error}"))?;
        let at_rest = self.row.phase.is_at_rest();
        let left = match seen.body {
            Body::Stopped(Ended::Migrated) | Body::Absent => true,
            Body::Stopped(_) => !at_rest,
            Body::Ready | Body::Running | Body::Paused | Body::Incoming | Body::Arrived => false,
        };
        let more = More { agent: agent && left, ..More::default() };
        self.report(&seen, failure.filter(|_| !left), more).await
    }

    async fn tell_progress(&self, migration: &dyn Migration) {
        let vm = self.row.vm;
        let Ok(Some(progress)) = within(migration.progress(vm)).await else { return };
        let Ok(seen) = within(self.driver().observe(vm)).await else { return };
        if self.row.phase.next(seen.body) == self.row.phase {
            let more = More { progress: Some(progress), ..More::default() };
            if let Err(why) = self.report(&seen, None, more).await {
                tracing::debug!(%vm, why, "progress was not told");
            }
        }
    }

    /// Looks whether a guest has come, now that its source has ended, and tells whatever it is.
    pub(super) async fn look(&self) -> Result<(), String> {
        let seen = within(self.driver().observe(self.row.vm)).await;
        let seen = seen.map_err(|error| format!("cannot observe: {error}"))?;
        if seen.body == Body::Incoming {
            tokio::time::sleep(LOOK).await;
            return Ok(());
        }
        self.report(&seen, None, More { asked: true, ..More::default() }).await
    }

    /// Waits for a sign of life: processor time that grows, and an answer of the guest's agent, if that gave
    /// one before it left.
    pub(super) async fn validate(&self) -> Result<(), String> {
        let (vm, begun) = (self.row.vm, Instant::now());
        let migration = self.migration().map_err(|error| error.to_string())?;
        let state = self.tools.store.view().state.clone();
        let agent = state.migration_of(vm).is_some_and(|(_, migration)| migration.agent);
        let (mut before, mut asked) = (None, false);
        let wanted = || {
            let state = self.tools.store.view().state.clone();
            let row = state.instances.get(&self.row.id);
            row.is_some_and(|row| state.next_action(row) == Action::Validate)
        };
        while begun.elapsed() < SIGN_OF_LIFE {
            if !wanted() {
                return Ok(());
            }
            let used = within(self.driver().usage(vm)).await.ok().map(|usage| usage.cpu_ns);
            if let (Some(before), Some(used)) = (before, used)
                && used > before
                && (!agent || self.agent_answers(migration).await == Some(true))
            {
                let seen = within(self.driver().observe(vm)).await;
                let seen = seen.map_err(|error| format!("cannot observe: {error}"))?;
                let more = More { life: Some(Life::Seen), ..More::default() };
                return self.report(&seen, None, more).await;
            }
            asked |= before.is_some() && used.is_some();
            before = before.or(used);
            tokio::time::sleep(LOOK).await;
        }
        if !asked {
            return Err("the guest could not be asked for a sign of life".to_owned());
        }
        let why = format!("the guest has shown no sign of life for {} s", SIGN_OF_LIFE.as_secs());
        let seen = within(self.driver().observe(vm)).await;
        let seen = seen.map_err(|error| format!("cannot observe: {error}"))?;
        let more = More { life: Some(Life::Missed), ..More::default() };
        self.report(&seen, Some(DriverError::new(ErrorKind::Transient, why)), more).await
    }

    /// Whether the guest's agent answers; none when it has none, or that could not be asked.
    async fn agent_answers(&self, migration: &dyn Migration) -> Option<bool> {
        let answer = timeout(AGENT_PATIENCE, migration.answers(self.row.vm)).await.ok()?;
        answer.ok().flatten()
    }
}
