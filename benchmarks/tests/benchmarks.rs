//! That every row can be measured; the figures of so short a run mean nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

#[test]
fn every_row_is_measured() {
    if Command::new("etcd").arg("--version").output().is_err() {
        println!("SKIPPED: etcd is not installed; `scripts/packages` installs it");
        assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "it must be installed here");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let (page, json) = (out.path().join("page.md"), out.path().join("figures.json"));
    let mut run = Command::new(env!("CARGO_BIN_EXE_benchmarks"));
    let ended = run.arg("--short").arg("--page").arg(&page).arg("--json").arg(&json);
    assert!(ended.status().unwrap().success());
    let page = std::fs::read_to_string(page).unwrap();
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    for row in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14] {
        assert!(page.contains(&format!("\n## {row}. ")), "row {row} is not on the page");
    }
    for figure in figures["figures"].as_array().unwrap() {
        let ours = figure["ours"].as_array().unwrap();
        assert!(!ours.is_empty(), "{figure}");
        // What an idle process used may round to nothing.
        let positive = ours.iter().all(|figure| figure.as_f64().unwrap() > 0.0);
        assert!(positive || [9, 13].contains(&figure["row"].as_u64().unwrap()), "{figure}");
    }
}
