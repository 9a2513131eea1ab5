//! Lists: all reads of one see beginnings of the same list, nothing that was appended goes, and nothing comes twice.

use std::collections::{BTreeMap, BTreeSet};

use super::Judgement;
use crate::{
    history::{End, Event, Operation, operations},
    workload::lists::MODEL,
};

pub(super) fn judge(events: &[Event], judgement: &mut Judgement) {
    let mut lists: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for row in operations(events, MODEL) {
        lists.entry(row.key.clone()).or_default().push(row);
    }
    for (name, rows) in &lists {
        judge_list(name, rows, judgement);
    }
}

/// A read: when it was asked for, when it was answered, and what was there.
struct Read {
    invoked_ns: u64,
    answered_ns: u64,
    elements: Vec<u64>,
}

fn judge_list(name: &str, rows: &[Operation], judgement: &mut Judgement) {
    let reads = rows.iter().filter(|row| row.f == "read");
    let reads = reads.filter_map(|row| match &row.end {
        End::Ok(answered_ns, read) => Some(Read {
            invoked_ns: row.invoked_ns,
            answered_ns: *answered_ns,
            elements: serde_json::from_value(read.clone()).unwrap_or_default(),
        }),
        End::Fail(..) | End::Unknown => None,
    });
    let reads: Vec<Read> = reads.collect();
    let Some(longest) = reads.iter().max_by_key(|read| read.elements.len()) else { return };
    let whole = &longest.elements;
    if whole.iter().collect::<BTreeSet<_>>().len() < whole.len() {
        judgement.complain(MODEL, name, format!("an element is there twice: {whole:?}"));
    }
    if let Some(other) = reads.iter().find(|read| !whole.starts_with(&read.elements)) {
        let what = format!("{:?} was read, and it is no beginning of {whole:?}", other.elements);
        judgement.complain(MODEL, name, what);
    }
    let appended = rows.iter().filter(|row| row.f == "append");
    for row in appended {
        let element = row.asked["element"].as_u64().unwrap_or_default();
        let missed = |since_ns: u64| {
            let later = reads.iter().filter(move |read| read.invoked_ns > since_ns);
            later.into_iter().find(|read| !read.elements.contains(&element))
        };
        match &row.end {
            End::Ok(answered_ns, _) if missed(*answered_ns).is_some() => {
                let what = format!("{element} was appended, and is not there later");
                judgement.complain(MODEL, name, what);
            }
            End::Fail(..) if whole.contains(&element) => {
                judgement.complain(MODEL, name, format!("{element} was refused, and is there"));
            }
            End::Ok(..) | End::Fail(..) | End::Unknown => {}
        }
        judgement.compared.appended += usize::from(matches!(row.end, End::Ok(..)));
        // Once seen, it stays.
        let seen = reads.iter().filter(|read| read.elements.contains(&element));
        let first = seen.map(|read| read.answered_ns).min();
        if first.is_some_and(|first| missed(first).is_some()) {
            let what = format!("{element} was read, and is not there later");
            judgement.complain(MODEL, name, what);
        }
    }
}
