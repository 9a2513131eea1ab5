//! Locks: a fence is granted once and grows, and within the time of a grant nobody else holds the lock, nor
//! has come with a later fence to what it protects.

use std::collections::BTreeMap;

use super::{Judgement, number};
use crate::{
    history::{End, Event, Operation, operations},
    workload::locks::MODEL,
};

/// A grant, with the time in which nobody else may have held the lock, whatever the clocks of the cluster do:
/// from the answer on, and from the last question on for as long as it is to last.
struct Grant {
    fence: u64,
    invoked_ns: u64,
    held_ns: u64,
    until_ns: u64,
}

pub(super) fn judge(events: &[Event], judgement: &mut Judgement) {
    let mut locks: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for operation in operations(events, MODEL) {
        locks.entry(operation.key.clone()).or_default().push(operation);
    }
    for (lock, operations) in locks {
        let mut grants = grants(&operations);
        judgement.compared.grants +=
            grants.iter().filter(|grant| grant.held_ns < grant.until_ns).count();
        grants.sort_unstable_by_key(|grant| grant.held_ns);
        judge_fences(&lock, &grants, judgement);
        judge_holding(&lock, &grants, judgement);
        judge_writes(&lock, &operations, &grants, judgement);
    }
}

fn grants(operations: &[Operation]) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    for row in operations {
        let asked = |field: &str| number(&row.asked, field);
        let until_ns = row.invoked_ns + asked("ttl_ms") * 1_000_000;
        match (row.f.as_str(), &row.end) {
            ("acquire", End::Ok(at, granted)) => {
                let fence = number(granted, "fence");
                grants.push(Grant { fence, invoked_ns: row.invoked_ns, held_ns: *at, until_ns });
            }
            ("renew", End::Ok(..)) => {
                let of = grants.iter_mut().find(|grant| grant.fence == asked("fence"));
                if let Some(grant) = of {
                    grant.until_ns = grant.until_ns.max(until_ns);
                }
            }
            // From when it was asked for it may be free.
            ("release", _) => {
                let of = grants.iter_mut().find(|grant| grant.fence == asked("fence"));
                if let Some(grant) = of {
                    grant.until_ns = grant.until_ns.min(row.invoked_ns);
                }
            }
            _ => {}
        }
    }
    grants
}

fn judge_fences(lock: &str, grants: &[Grant], judgement: &mut Judgement) {
    for (at, grant) in grants.iter().enumerate() {
        let Grant { fence, invoked_ns, .. } = grant;
        if grants[..at].iter().any(|other| other.fence == *fence) {
            judgement.complain(MODEL, lock, format!("the fence {fence} was granted twice"));
        }
        // Of those that were there before this one was asked for.
        let before = grants[..at].iter().filter(|other| other.held_ns < *invoked_ns);
        let highest = before.map(|other| other.fence).max().unwrap_or_default();
        if *fence < highest {
            let what = format!("the fence {fence} was granted at {invoked_ns} ns, after {highest}");
            judgement.complain(MODEL, lock, what);
        }
    }
}

fn judge_holding(lock: &str, grants: &[Grant], judgement: &mut Judgement) {
    let mut last: Option<&Grant> = None;
    for grant in grants.iter().filter(|grant| grant.held_ns < grant.until_ns) {
        if let Some(last) = last.filter(|last| grant.held_ns < last.until_ns) {
            let (one, other) = (last.fence, grant.fence);
            let ms = (last.until_ns - grant.held_ns) / 1_000_000;
            let what = format!("fences {one} and {other} were held at one time, for {ms} ms");
            judgement.complain(MODEL, lock, what);
        }
        last = Some(last.filter(|last| last.until_ns > grant.until_ns).unwrap_or(grant));
    }
}

/// Within its time nobody with a later fence has come to what a holder protects.
fn judge_writes(lock: &str, rows: &[Operation], grants: &[Grant], judgement: &mut Judgement) {
    for row in rows.iter().filter(|row| row.f == "write") {
        let (fence, End::Fail(at, why)) = (number(&row.asked, "fence"), &row.end) else { continue };
        let in_time = |grant: &&Grant| grant.fence == fence && *at < grant.until_ns;
        if let Some(grant) = grants.iter().find(in_time) {
            let ms = (grant.until_ns - at) / 1_000_000;
            let what = format!("the holder of {fence} was refused, {ms} ms before its end: {why}");
            judgement.complain(MODEL, lock, what);
        }
    }
}
