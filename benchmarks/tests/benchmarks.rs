//! That every row can be measured; the figures of so short a run mean nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

use serde_json::Value;

/// Measures for a short time; the page has these rows, and every figure is one.
fn check(arguments: &[&str], rows: &[u64], may_be_nothing: impl Fn(&Value) -> bool) {
    let out = tempfile::tempdir().unwrap();
    let (page, json) = (out.path().join("page.md"), out.path().join("figures.json"));
    let mut run = Command::new(env!("CARGO_BIN_EXE_benchmarks"));
    run.arg("--short").args(arguments).arg("--page").arg(&page).arg("--json").arg(&json);
    assert!(run.status().unwrap().success());
    let page = std::fs::read_to_string(page).unwrap();
    let figures: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    for row in rows {
        assert!(page.contains(&format!("\n## {row}. ")), "row {row} is not on the page");
    }
    for figure in figures["figures"].as_array().unwrap() {
        let ours = figure["ours"].as_array().unwrap();
        assert!(!ours.is_empty(), "{figure}");
        let positive = ours.iter().all(|figure| figure.as_f64().unwrap() > 0.0);
        assert!(positive || may_be_nothing(figure), "{figure}");
    }
}

#[test]
fn every_row_is_measured() {
    if Command::new("etcd").arg("--version").output().is_err() {
        println!("SKIPPED: etcd is not installed; `scripts/packages` installs it");
        assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "it must be installed here");
        return;
    }
    let guests = lab::is_possible();
    if let Err(why) = &guests {
        println!("SKIPPED: real guests: {why}");
        assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "they must be possible here");
    }
    let rows = (1..=14).filter(|row| *row != 11 || guests.is_ok());
    // What an idle process used may round to nothing.
    check(&[], &rows.collect::<Vec<_>>(), |figure| {
        [9, 13].contains(&figure["row"].as_u64().unwrap())
    });
}

#[test]
fn growth_is_measured() {
    let links = lab::bridges_are_possible().and_then(|()| lab::late_packets_are_possible());
    if let Err(why) = &links {
        println!("SKIPPED: links that are late: {why}");
        assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "they must be possible here");
    }
    let rows: &[u64] = if links.is_ok() { &[1, 2, 3] } else { &[1, 2] };
    // An idle process may have used nothing, and there need be no election.
    check(&["--growth"], rows, |figure| {
        ["% of a core, nothing is asked", "terms meanwhile"]
            .contains(&figure["unit"].as_str().unwrap())
    });
}
