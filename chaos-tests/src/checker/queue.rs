//! Operations: what was acknowledged is there, once, and has ended; and so has every other one.

use std::collections::BTreeMap;

use super::{Judgement, registers::judge_repeats};
use crate::{
    history::{End, Event, operations},
    workload::queue::MODEL,
};

pub(super) fn judge(events: &[Event], judgement: &mut Judgement) {
    let rows = operations(events, MODEL);
    judge_repeats(MODEL, "probe", &rows, judgement);
    let found: BTreeMap<&str, &serde_json::Value> = rows
        .iter()
        .filter_map(|row| match &row.end {
            End::Ok(_, found) if row.f == "found" => Some((row.key.as_str(), found)),
            End::Ok(..) | End::Fail(..) | End::Unknown => None,
        })
        .collect();
    if found.is_empty() {
        // Nobody has looked.
        return;
    }
    for (id, operation) in &found {
        judgement.compared.operations += 1;
        // What is stuck has used up what it may bear, and waits for a person.
        if operation["done"] != true && operation["status"] != "stuck" {
            let [kind, status, message] = ["kind", "status", "message"]
                .map(|field| operation[field].as_str().unwrap_or_default());
            let what = format!("this {kind} has not ended: it is {status}: {message}");
            judgement.complain(MODEL, id, what);
        }
    }
    let asked = || rows.iter().filter(|row| row.f == "probe");
    let mut acknowledged = 0;
    for row in asked() {
        let End::Ok(_, answer) = &row.end else { continue };
        acknowledged += 1;
        let id = answer["operation"].as_str().unwrap_or_default();
        if !found.contains_key(id) {
            judgement.complain(MODEL, &row.key, format!("{id} was acknowledged and is not there"));
        }
    }
    // Of what nobody knows, each may be there once.
    let unknown = asked().filter(|row| row.end == End::Unknown).count();
    let is_whole = |it: &&&serde_json::Value| it["kind"] == "probe" && it["is_part"] == false;
    let there = found.values().filter(is_whole).count();
    if there > acknowledged + unknown {
        let what = format!(
            "{acknowledged} were acknowledged, of {unknown} nobody knows, and there are {there}"
        );
        judgement.complain(MODEL, "probe", what);
    }
}
