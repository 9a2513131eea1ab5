//! Lives of VMs: what was acknowledged was done, once, and to one VM; what becomes of each in the end is what
//! was asked of it last.

use std::collections::BTreeMap;

use super::{Judgement, registers::judge_repeats};
use crate::{
    history::{End, Event, Operation, operations},
    workload::lives::MODEL,
};

/// What a VM must be, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    Be {
        /// Nothing, when nobody knows.
        running: Option<bool>,
    },
    NotBe,
    /// It may be, or not.
    Either,
}

pub(super) fn judge(events: &[Event], judgement: &mut Judgement) {
    let mut lives: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for row in operations(events, MODEL) {
        lives.entry(row.key.clone()).or_default().push(row);
    }
    for (name, life) in &lives {
        judge_repeats(MODEL, name, life, judgement);
        judge_life(name, life, judgement);
    }
}

fn judge_life(name: &str, life: &[Operation], judgement: &mut Judgement) {
    let mut must = Must::NotBe;
    let mut id: Option<&str> = None;
    for row in life {
        if let End::Ok(_, answer) = &row.end
            && let Some(told) = answer["id"].as_str()
        {
            let known = *id.get_or_insert(told);
            if known != told {
                let what = format!("{} was of {told}, and it was {known}", row.f);
                judgement.complain(MODEL, name, what);
            }
        }
        must = match (row.f.as_str(), &row.end) {
            ("found", End::Ok(_, found)) => {
                let phase = found["phase"].as_str();
                let is_known = !matches!(must, Must::Either | Must::Be { running: None });
                judgement.compared.lives += usize::from(is_known);
                if !fits(must, phase) {
                    let phase = phase.unwrap_or("not there");
                    let what = format!("in the end it is {phase}, and was to be {must:?}");
                    judgement.complain(MODEL, name, what);
                }
                must
            }
            ("create", End::Ok(..)) => Must::Be { running: row.asked["runs"].as_bool() },
            ("start", End::Ok(..)) => Must::Be { running: Some(true) },
            ("stop", End::Ok(..)) => Must::Be { running: Some(false) },
            ("delete", End::Ok(..)) => Must::NotBe,
            ("start" | "stop", End::Unknown) => Must::Be { running: None },
            ("create" | "delete", End::Unknown) => Must::Either,
            ("start" | "stop" | "migrate" | "delete", End::Fail(_, why))
                if why == "NOT_FOUND" && matches!(must, Must::Be { .. }) =>
            {
                let what = format!("{} did not find it, and it had been made", row.f);
                judgement.complain(MODEL, name, what);
                must
            }
            // What was refused was not done.
            _ => must,
        };
    }
}

fn fits(must: Must, phase: Option<&str>) -> bool {
    match (must, phase) {
        (Must::Be { running: None }, Some(_)) | (Must::NotBe, None) | (Must::Either, _) => true,
        // One that crashed often has yet to wait.
        (Must::Be { running: Some(true) }, Some(phase)) => {
            matches!(phase, "running" | "restarting")
        }
        (Must::Be { running: Some(false) }, Some(phase)) => phase == "stopped",
        (Must::Be { .. }, None) | (Must::NotBe, Some(_)) => false,
    }
}
