//! What was struck, and how: the harness's table, kinds × calls × faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

/// How often an operation ended well although a call of it was struck.
#[derive(Default)]
pub struct Tally(Mutex<BTreeMap<(&'static str, String, String), u32>>);

impl Tally {
    /// A call of an operation was struck in this way, and its end was one of those that may be.
    pub fn note(&self, kind: &'static str, call: String, way: &str) {
        *self.0.lock().unwrap().entry((kind, call, way.to_owned())).or_default() += 1;
    }

    /// The calls of a kind that were struck in this way.
    pub fn struck(&self, kind: &str, way: &str) -> BTreeSet<String> {
        let hits = self.0.lock().unwrap();
        let struck = hits.keys().filter(|(of, _, how)| *of == kind && how == way);
        struck.map(|(_, call, _)| call.clone()).collect()
    }

    /// What has rows.
    pub fn kinds(&self) -> BTreeSet<&'static str> {
        self.0.lock().unwrap().keys().map(|(kind, ..)| *kind).collect()
    }

    pub fn table(&self) -> String {
        let hits = self.0.lock().unwrap();
        let ways: BTreeSet<&String> = hits.keys().map(|(_, _, way)| way).collect();
        let rows: BTreeSet<(&str, &String)> =
            hits.keys().map(|(kind, call, _)| (*kind, call)).collect();
        let mut text = format!("{:15} {:11}", "KIND", "CALL");
        for way in &ways {
            text += &format!(" {way:>22}");
        }
        for (kind, call) in rows {
            text += &format!("\n{kind:15} {call:11}");
            for way in &ways {
                let count = hits.get(&(kind, call.clone(), (*way).clone())).copied();
                text += &format!(" {:>22}", count.map_or("-".to_owned(), |n| n.to_string()));
            }
        }
        text
    }
}
