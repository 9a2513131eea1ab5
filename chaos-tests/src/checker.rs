//! What must hold of a history. Each checker reads it alone: a kept history is judged again like a new one.

mod linear;
mod lives;
mod locks;
mod registers;
#[cfg(test)]
mod tests;
mod watches;

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
    /// Keys whose order was searched for.
    pub keys: usize,
    /// Keys of those for which the search was given up: no verdict.
    pub undecided: Vec<String>,
    /// Grants of locks that were compared.
    pub grants: usize,
    /// VMs of which it was known what they must be, and which were looked at in the end.
    pub lives: usize,
    /// Events that watchers were sent.
    pub watched: usize,
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
    watches::judge(events, &mut judgement);
    judgement
}

/// A number of what was asked or answered; 0 where there is none.
fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_default()
}
