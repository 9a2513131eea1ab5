//! What must hold of a history. Each checker reads it alone: a kept history is judged again like a new one.

mod backups;
pub(crate) mod bodies;
mod linear;
mod lists;
mod lives;
mod locks;
mod queue;
mod registers;
#[cfg(test)]
mod tests;
mod watches;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::history::Event;

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The workload.
    pub model: &'static str,
    /// What it is about: a key, a lock, a watcher.
    pub key: String,
    /// What was seen, in a sentence.
    pub what: String,
}

/// What a history comes to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Judgement {
    /// What does not hold.
    pub violations: Vec<Violation>,
    /// Keys of registers for which the search for an order was given up: no verdict.
    pub undecided: Vec<String>,
    /// How much was looked at.
    #[serde(flatten)]
    pub compared: Compared,
}

/// How much was looked at: where it is nothing, nothing was found to hold.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Compared {
    /// Registers whose order was searched for.
    pub keys: usize,
    /// Grants of locks.
    pub grants: usize,
    /// VMs of which it was known what they must be, and which were looked at in the end.
    pub lives: usize,
    /// Times in which hosts executed a guest.
    pub executions: usize,
    /// Those of them of real guests.
    pub real: usize,
    /// VMs with real guests that were looked at in the end.
    pub real_lives: usize,
    /// VMs that one host executed and then another.
    pub moved: usize,
    /// Elements that were appended to lists.
    pub appended: usize,
    /// Operations that were looked at in the end.
    pub operations: usize,
    /// Backups that were made.
    pub backups: usize,
    /// Registers that were asked for after a cluster began again from a backup.
    pub restored: usize,
    /// Events that watchers were sent.
    pub watched: usize,
}

impl Compared {
    /// What nothing was found of.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = &'static str> {
        let Compared { keys, grants, lives, executions, real, real_lives, moved, .. } = *self;
        let Compared { appended, operations, backups, restored, watched, .. } = *self;
        let all = [
            (keys, "registers"),
            (appended, "elements of lists"),
            (grants, "grants of locks"),
            (lives, "VMs"),
            (executions, "executions"),
            (real, "executions of real guests"),
            (real_lives, "VMs with real guests in the end"),
            (moved, "VMs on several hosts"),
            (operations, "operations"),
            (backups, "backups"),
            (restored, "restored registers"),
            (watched, "events"),
        ];
        all.into_iter().filter(|(count, _)| *count == 0).map(|(_, name)| name)
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compared { keys, grants, lives, executions, real, real_lives, moved, .. } = self;
        let Compared { appended, operations, backups, restored, watched, .. } = self;
        writeln!(f, "{keys} registers, {appended} appended to lists, {grants} grants of locks")?;
        writeln!(f, "{lives} VMs, executed {executions} times, {moved} of them on several hosts")?;
        writeln!(f, "{real} of these times by real hosts, {real_lives} VMs there in the end")?;
        write!(f, "{operations} operations, {backups} backups, {restored} registers restored, ")?;
        write!(f, "{watched} events sent to watchers")
    }
}

impl Judgement {
    fn complain(&mut self, model: &'static str, key: &str, what: String) {
        self.violations.push(Violation { model, key: key.to_owned(), what });
    }
}

/// Judges a history.
pub(crate) fn judge(events: &[Event]) -> Judgement {
    let mut judgement = Judgement::default();
    registers::judge(events, &mut judgement);
    locks::judge(events, &mut judgement);
    lives::judge(events, &mut judgement);
    bodies::judge(events, &mut judgement);
    backups::judge(events, &mut judgement);
    queue::judge(events, &mut judgement);
    lists::judge(events, &mut judgement);
    watches::judge(events, &mut judgement);
    judgement
}

/// A number of what was asked or answered; 0 where there is none.
fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_default()
}
