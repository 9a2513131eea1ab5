//! Watches: a watcher is never sent back in time, nothing twice, and everything that was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::{Judgement, number};
use crate::{
    history::{End, Event, Kind, Operation, operations},
    workload::{registers, watches::MODEL},
};

/// What one watcher was sent.
#[derive(Default)]
struct Sent {
    /// Its objects, by revision.
    objects: BTreeMap<u64, BTreeSet<String>>,
    /// From which revision on it watches; that one is not sent.
    since: u64,
    last: u64,
    /// Stretches of which it was told that they are gone: after the first, up to the second.
    gaps: Vec<(u64, u64)>,
}

impl Sent {
    fn covers(&self, revision: u64) -> bool {
        let in_gap = |(after, to): &(u64, u64)| *after < revision && revision <= *to;
        (self.since + 1..=self.last).contains(&revision) && !self.gaps.iter().any(in_gap)
    }
}

pub(super) fn judge(events: &[Event], judgement: &mut Judgement) {
    let mut watchers: BTreeMap<&str, Sent> = BTreeMap::new();
    for event in events.iter().filter(|event| event.model == MODEL && event.kind == Kind::Ok) {
        let sent = watchers.entry(&event.key).or_default();
        if event.f == "begin" {
            sent.since = number(&event.value, "since");
            continue;
        }
        if event.f == "gap" {
            sent.gaps.push((number(&event.value, "after"), number(&event.value, "to")));
            continue;
        }
        for row in event.value.as_array().into_iter().flatten() {
            let revision = row[0].as_u64().unwrap_or_default();
            if revision <= sent.last {
                let what = format!("sent {revision} after {}", sent.last);
                judgement.complain(MODEL, &event.key, what);
            }
            sent.last = revision.max(sent.last);
            let objects = row[1].as_array().into_iter().flatten();
            let objects = objects.filter_map(|name| Some(name.as_str()?.to_owned()));
            sent.objects.entry(revision).or_default().extend(objects);
            judgement.compared.watched += 1;
        }
    }
    judge_registers(events, &watchers, judgement);
    judge_agreement(&watchers, judgement);
}

/// Every change of a register that was acknowledged has come to every watcher.
fn judge_registers(events: &[Event], watchers: &BTreeMap<&str, Sent>, judgement: &mut Judgement) {
    let all = operations(events, registers::MODEL);
    let ids = all.iter().filter(|row| row.f == "create").filter_map(|row| match &row.end {
        End::Ok(_, made) => Some((row.key.as_str(), made["id"].as_str()?)),
        End::Fail(..) | End::Unknown => None,
    });
    let ids: BTreeMap<&str, &str> = ids.collect();
    let changed = |row: &Operation| matches!(row.f.as_str(), "write" | "swap");
    for row in all.iter().filter(|row| changed(row)) {
        let (End::Ok(_, done), Some(id)) = (&row.end, ids.get(row.key.as_str())) else { continue };
        let revision = number(done, "etag");
        for (watcher, sent) in watchers {
            let there = sent.objects.get(&revision).is_some_and(|objects| objects.contains(*id));
            if sent.covers(revision) && !there {
                let what = format!("the change of {} at {revision} was not sent", row.key);
                judgement.complain(MODEL, watcher, what);
            }
        }
    }
}

/// Where two watchers were, they were sent the same.
fn judge_agreement(watchers: &BTreeMap<&str, Sent>, judgement: &mut Judgement) {
    let all: BTreeSet<u64> =
        watchers.values().flat_map(|sent| sent.objects.keys().copied()).collect();
    for (watcher, sent) in watchers {
        let missed = |at: &&u64| sent.covers(**at) && !sent.objects.contains_key(*at);
        if let Some(revision) = all.iter().find(missed) {
            let what = format!("{revision} was not sent, and others were");
            judgement.complain(MODEL, watcher, what);
        }
    }
}
