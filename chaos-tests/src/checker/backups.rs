//! Backups: each has all that was acknowledged before it was asked for, and what begins again from one is what was
//! there at its revision.

use std::collections::{BTreeMap, BTreeSet};

use super::{Judgement, number};
use crate::{
    history::{End, Event, Operation, operations},
    workload::{backups::MODEL, registers},
};

pub(super) fn judge(events: &[Event], judgement: &mut Judgement) {
    let changes: Vec<Operation> = operations(events, registers::MODEL)
        .into_iter()
        .filter(|row| matches!(row.f.as_str(), "create" | "write" | "swap"))
        .collect();
    let mut revisions = BTreeMap::new();
    for row in operations(events, MODEL) {
        match (row.f.as_str(), &row.end) {
            ("make", End::Ok(_, made)) => {
                let revision = number(made, "revision");
                revisions.insert(row.key.clone(), revision);
                judge_age(&row, revision, &changes, judgement);
            }
            ("restored", end) => {
                let backup = row.asked["backup"].as_str().unwrap_or_default();
                let Some(revision) = revisions.get(backup) else { continue };
                judgement.compared.restored += usize::from(matches!(end, End::Ok(..)));
                judge_restored(&row.key, *revision, end, &changes, judgement);
            }
            _ => {}
        }
    }
}

/// A backup is no older than what was acknowledged before it was asked for.
fn judge_age(backup: &Operation, revision: u64, changes: &[Operation], judgement: &mut Judgement) {
    let before = changes.iter().filter_map(|change| match &change.end {
        End::Ok(at_ns, done) if *at_ns < backup.invoked_ns => Some(number(done, "etag")),
        End::Ok(..) | End::Fail(..) | End::Unknown => None,
    });
    if let Some(newest) = before.max().filter(|newest| *newest > revision) {
        let what = format!("it is of {revision}, and {newest} was acknowledged before");
        judgement.complain(MODEL, &backup.key, what);
    }
    judgement.compared.backups += 1;
}

fn judge_restored(
    key: &str,
    revision: u64,
    end: &End,
    changes: &[Operation],
    judgement: &mut Judgement,
) {
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    let mut maybe: BTreeSet<u64> = BTreeSet::new();
    for change in changes.iter().filter(|change| change.key == key) {
        let value = number(&change.asked, "value");
        match &change.end {
            End::Ok(_, done) => drop(known.insert(number(done, "etag"), value)),
            End::Unknown => drop(maybe.insert(value)),
            End::Fail(..) => {}
        }
    }
    let due = known.range(..=revision).next_back();
    let what = match (due, end) {
        (Some((etag, value)), End::Ok(_, found)) => {
            let (found_etag, found_value) = (number(found, "etag"), number(found, "value"));
            let same = (found_etag, found_value) == (*etag, *value);
            // What nobody knows the end of may have come between.
            let later =
                (*etag + 1..=revision).contains(&found_etag) && maybe.contains(&found_value);
            if same || later {
                return;
            }
            format!("{found_value} of {found_etag} was restored, and {value} of {etag} was there")
        }
        (Some((etag, _)), End::Fail(_, why)) => format!("it was made at {etag}, and then: {why}"),
        (None, End::Ok(_, found)) if number(found, "etag") > revision => {
            format!("it is of {}, and the backup of {revision}", number(found, "etag"))
        }
        (None, _) | (_, End::Unknown) => return,
    };
    judgement.complain(MODEL, key, what);
}
