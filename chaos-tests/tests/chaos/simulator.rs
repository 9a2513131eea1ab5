//! The simulator: seeds that once found something are well, a seed repeats a run, and what is broken is
//! noticed. Fresh seeds run beside all tests: `scripts/test`.

use std::process::{Command, Stdio};

use lab::Broken;

/// Seeds that once found something.
const KEPT: [u64; 1] = [1];

fn simulate(arguments: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let mut command = Command::new(test.ancestors().nth(2).unwrap().join("chaos-tests"));
    command.arg("simulate").args(arguments).stderr(Stdio::null());
    command
}

#[test]
fn kept_seeds_are_well() {
    for seed in KEPT {
        let output = simulate(&["--seed", &seed.to_string(), "--seconds", "8"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// In two processes, at one time. The seed is one whose storm leaves the clients enough to do.
#[test]
fn one_seed_is_one_run() {
    let directory = tempfile::tempdir().unwrap();
    let traces = [1, 2].map(|run| directory.path().join(run.to_string()));
    let runs = traces.each_ref().map(|trace| {
        let arguments = ["--seed", "77", "--seconds", "30", "--trace", trace.to_str().unwrap()];
        simulate(&arguments).stdout(Stdio::null()).spawn().unwrap()
    });
    for mut run in runs {
        assert!(run.wait().unwrap().success());
    }
    let [one, other] = traces.map(|trace| std::fs::read_to_string(trace).unwrap());
    let apart = one.lines().zip(other.lines()).find(|(one, other)| one != other);
    assert_eq!(apart, None);
    let events = one.lines().count();
    assert_eq!(other.lines().count(), events);
    assert!(events > 10_000, "only {events}");
    for fault in [" power-cut ", " alone ", " halves "] {
        assert!(one.contains(fault), "no{fault}in it");
    }
}

#[test]
fn what_is_broken_is_noticed() {
    for broken in Broken::STORE {
        // From where on seeds are tried: one that showed it was near.
        let seed = if broken == Broken::WallClockLeases { "9" } else { "1" };
        let broken = broken.to_string();
        let arguments = ["--seed", seed, "--count", "40", "--seconds", "12", "--break", &broken];
        let output = simulate(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
