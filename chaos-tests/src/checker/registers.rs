//! Registers: each is one object, whichever node is asked; weaker reads keep their own promise.

use std::collections::BTreeMap;

use super::{
    Judgement,
    linear::{Entry, Linear, Model, linearize},
    number,
};
use crate::{
    history::{End, Event, Operation, operations},
    workload::registers::{MODEL, NOT_THAT_ONE},
};

/// States of a search: some hundred MiB.
const STATES_MAX: usize = 2_000_000;

/// What is done to a register. Every value is written once, so one read names the write.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(u64),
    Write(u64),
    /// It held the first and holds the second.
    Swap(u64, u64),
    /// It did not hold this.
    Mismatch(u64),
    /// Nobody knows whether it was swapped.
    MaybeSwap(u64, u64),
}

struct Register;

impl Model for Register {
    type State = u64;
    type Step = Step;

    fn apply(state: &u64, step: &Step) -> Option<u64> {
        match *step {
            Step::Read(value) => (*state == value).then_some(value),
            Step::Write(value) => Some(value),
            Step::Swap(from, to) => (*state == from).then_some(to),
            Step::Mismatch(from) => (*state != from).then_some(*state),
            Step::MaybeSwap(from, to) => Some(if *state == from { to } else { *state }),
        }
    }
}

pub(super) fn judge(events: &[Event], judgement: &mut Judgement) {
    let mut keys: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for operation in operations(events, MODEL) {
        keys.entry(operation.key.clone()).or_default().push(operation);
    }
    for (key, operations) in keys {
        judge_order(&key, &operations, judgement);
        judge_weak_reads(&key, &operations, judgement);
        judge_repeats(MODEL, &key, &operations, judgement);
    }
}

fn judge_order(key: &str, operations: &[Operation], judgement: &mut Judgement) {
    let entries: Vec<Entry<Step>> = operations.iter().filter_map(entry).collect();
    judgement.compared.keys += 1;
    match linearize::<Register>(0, &entries, STATES_MAX) {
        Linear::Yes => {}
        Linear::Undecided => judgement.undecided.push(key.to_owned()),
        Linear::No(at) => {
            let Entry { invoked_ns, returned_ns, step } = &entries[at];
            let until = returned_ns.unwrap_or_default();
            let what = format!("in no order, for {step:?} from {invoked_ns} to {until} ns");
            judgement.complain(MODEL, key, what);
        }
    }
}

/// A step of the register, of what is one and may have been done.
fn entry(operation: &Operation) -> Option<Entry<Step>> {
    let asked = |field: &str| number(&operation.asked, field);
    let (f, end) = (operation.f.as_str(), &operation.end);
    let step = match (f, end) {
        ("read", End::Ok(_, seen)) => Step::Read(number(seen, "value")),
        ("write", End::Ok(..) | End::Unknown) => Step::Write(asked("value")),
        ("swap", End::Ok(..)) => Step::Swap(asked("from"), asked("value")),
        ("swap", End::Fail(_, why)) if why == NOT_THAT_ONE => Step::Mismatch(asked("from")),
        ("swap", End::Unknown) => Step::MaybeSwap(asked("from"), asked("value")),
        _ => return None,
    };
    let returned_ns = match end {
        End::Ok(at, _) | End::Fail(at, _) => Some(*at),
        End::Unknown => None,
    };
    Some(Entry { invoked_ns: operation.invoked_ns, returned_ns, step })
}

/// What a read that may be old must still show: a value that somebody had begun to write, nothing older than
/// the revision that was asked for, and nothing older than what was acknowledged before its age.
fn judge_weak_reads(key: &str, operations: &[Operation], judgement: &mut Judgement) {
    let changes = || operations.iter().filter(|row| matches!(row.f.as_str(), "write" | "swap"));
    for read in operations {
        let End::Ok(returned_ns, seen) = &read.end else { continue };
        let (value, etag) = (number(seen, "value"), number(seen, "etag"));
        let least = match read.f.as_str() {
            "read-any" => 0,
            "read-since" => number(&read.asked, "since"),
            "read-aged" => {
                let age_ns = number(&read.asked, "age_ms") * 1_000_000;
                let before = read.invoked_ns.saturating_sub(age_ns);
                let known = changes().filter_map(|change| match &change.end {
                    End::Ok(at, done) if *at <= before => Some(number(done, "etag")),
                    End::Ok(..) | End::Fail(..) | End::Unknown => None,
                });
                known.max().unwrap_or_default()
            }
            _ => continue,
        };
        if etag < least {
            let what = format!(
                "{} at {} ns saw revision {etag}, and not {least}",
                read.f, read.invoked_ns
            );
            judgement.complain(MODEL, key, what);
        }
        let begun = |change: &Operation| {
            number(&change.asked, "value") == value && change.invoked_ns <= *returned_ns
        };
        if value != 0 && !changes().any(begun) {
            let what = format!("{} saw {value}, which nobody had written yet", read.f);
            judgement.complain(MODEL, key, what);
        }
    }
}

/// What was sent again under its request id was not done again.
pub(super) fn judge_repeats(
    model: &'static str,
    key: &str,
    operations: &[Operation],
    judgement: &mut Judgement,
) {
    for again in operations.iter().filter(|row| row.f == "again") {
        let first = number(&again.asked, "etag");
        match &again.end {
            End::Ok(_, answer) if number(answer, "etag") != first => {
                let what = format!("a request was done at {first}, and again: {answer}");
                judgement.complain(model, key, what);
            }
            End::Fail(_, why) => {
                let what = format!("a request was done at {first}, and then refused: {why}");
                judgement.complain(model, key, what);
            }
            End::Ok(..) | End::Unknown => {}
        }
    }
}
