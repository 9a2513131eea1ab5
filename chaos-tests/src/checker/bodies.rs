//! Bodies, by what the hosts have written down: no VM is executed twice at one time, or without anybody having
//! said so; no call is carried out under a fence that is lower than one seen; and in the end there runs what is
//! said to run.

use std::collections::{BTreeMap, BTreeSet};

use lab::{Execution, Told};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Judgement;
use crate::{
    history::{End, Event, operations},
    workload::lives,
};

pub(crate) const MODEL: &str = "body";

/// What one host has written down of a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Body {
    /// The host.
    host: String,
    executions: Vec<Execution>,
    /// Nothing of a real guest: under which fences it was executed nobody has written down.
    fences: Option<Vec<u64>>,
}

impl Body {
    /// The VM, and what is told of it.
    pub(crate) fn of(told: Told) -> (String, Body) {
        let Told { host, vm, executions, fences } = told;
        (vm, Body { host, executions, fences })
    }
}

pub(super) fn judge(events: &[Event], judgement: &mut Judgement) {
    let mut bodies: Vec<(String, Body)> = Vec::new();
    for row in operations(events, MODEL) {
        let End::Ok(_, told) = row.end else { continue };
        match serde_json::from_value(told) {
            Ok(body) => bodies.push((row.key, body)),
            Err(error) => judgement.complain(MODEL, &row.key, format!("it is damaged: {error}")),
        }
    }
    if bodies.is_empty() {
        // No host has been asked.
        return;
    }
    let executing = judge_bodies(&bodies, judgement);
    let real = bodies.iter().filter(|(_, body)| body.fences.is_none());
    let real: BTreeSet<&str> = real.map(|(vm, _)| &**vm).collect();
    for row in operations(events, lives::MODEL) {
        if let (true, End::Ok(_, found)) = (row.f == "found", &row.end) {
            judge_end(&row.key, found, &executing, judgement);
            let is_real = found["id"].as_str().is_some_and(|vm| real.contains(vm));
            judgement.compared.real_lives += usize::from(is_real);
        }
    }
}

/// In the end one host executes a VM that runs, and none one that does not.
fn judge_end(
    name: &str,
    found: &Value,
    executing: &BTreeMap<&str, usize>,
    judgement: &mut Judgement,
) {
    let Some(vm) = found["id"].as_str() else { return };
    let hosts = executing.get(vm).copied().unwrap_or_default();
    let phase = found["phase"].as_str().unwrap_or_default();
    let due = usize::from(phase == "running");
    if hosts != due {
        let what = format!("it is {phase} in the end, and {hosts} hosts execute it");
        judgement.complain(MODEL, name, what);
    }
}

/// Judges what hosts have written down; the answer is how many execute each VM now.
pub(crate) fn judge_bodies<'a>(
    bodies: &'a [(String, Body)],
    judgement: &mut Judgement,
) -> BTreeMap<&'a str, usize> {
    let mut vms: BTreeMap<&str, Vec<&Body>> = BTreeMap::new();
    for (vm, body) in bodies {
        vms.entry(vm).or_default().push(body);
    }
    let mut executing = BTreeMap::new();
    for (vm, bodies) in vms {
        for body in &bodies {
            judge_body(vm, body, judgement);
        }
        let all = bodies.iter().flat_map(|body| body.executions.iter().map(|it| (it, &*body.host)));
        let mut all: Vec<(&Execution, &str)> = all.collect();
        all.sort_by_key(|(it, _)| it.begun_ns);
        judge_overlaps(vm, &all, judgement);
        judge_order(vm, &all, judgement);
        judgement.compared.executions += all.len();
        if bodies.iter().any(|body| body.fences.is_none()) {
            judgement.compared.real += all.len();
        }
        let hosts: BTreeSet<&str> = all.iter().map(|(_, host)| *host).collect();
        judgement.compared.moved += usize::from(hosts.len() > 1);
        executing.insert(vm, all.iter().filter(|(it, _)| it.ended_ns.is_none()).count());
    }
    executing
}

fn judge_body(vm: &str, body: &Body, judgement: &mut Judgement) {
    let (host, Some(fences)) = (&body.host, &body.fences) else { return };
    for pair in fences.windows(2) {
        if let [before, after] = pair
            && after < before
        {
            let what = format!("{host} acted under fence {after} after it had seen {before}");
            judgement.complain(MODEL, vm, what);
        }
    }
    for execution in body.executions.iter().filter(|it| it.fence.is_none()) {
        let what = format!("{host} executed it at {} ns unasked", execution.begun_ns);
        judgement.complain(MODEL, vm, what);
    }
}

/// Executions come in the order in which they began.
fn judge_overlaps(vm: &str, all: &[(&Execution, &str)], judgement: &mut Judgement) {
    let mut told: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (at, (one, host)) in all.iter().enumerate() {
        let end = one.ended_ns.unwrap_or(u64::MAX);
        let later = all.iter().skip(at + 1).take_while(|(other, _)| other.begun_ns < end);
        for (other, there) in later {
            // What ends at once was never there.
            let overlap_ns = end.min(other.ended_ns.unwrap_or(u64::MAX)) - other.begun_ns;
            if overlap_ns > 0 && told.insert((*host, *there)) {
                let what = format!(
                    "{host} and {there} executed it at one time, from {} ns on",
                    other.begun_ns
                );
                judgement.complain(MODEL, vm, what);
            }
        }
    }
}

/// Where it is executed next, that is under a later fence than where it was.
fn judge_order(vm: &str, all: &[(&Execution, &str)], judgement: &mut Judgement) {
    for pair in all.windows(2) {
        let [(before, from), (after, to)] = pair else { continue };
        if from != to && after.fence < before.fence && after.fence.is_some() {
            let what = format!(
                "{to} executed it under fence {:?} after {from} had under {:?}",
                after.fence, before.fence
            );
            judgement.complain(MODEL, vm, what);
        }
    }
}
