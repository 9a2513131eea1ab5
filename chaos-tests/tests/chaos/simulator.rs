//! The simulator: seeds are well, and what is broken is noticed. `SEEDS` says how many,
//! `SEED` with which to begin.

use std::process::{Command, Stdio};

use lab::Broken;

/// Seeds that once found something.
const KEPT: [u64; 1] = [1];

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn simulate(arguments: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let mut command = Command::new(test.ancestors().nth(2).unwrap().join("chaos-tests"));
    command.arg("simulate").args(arguments).stderr(Stdio::null());
    command
}

#[test]
fn every_seed_is_well() {
    let (seed, count) = (number("SEED", fastrand::u64(..1 << 48)), number("SEEDS", 12));
    let kept = KEPT.map(|seed| (seed, 1));
    for (seed, count) in kept.into_iter().chain([(seed, count)]) {
        let (seed, count) = (seed.to_string(), count.to_string());
        let run = simulate(&["--seed", &seed, "--count", &count, "--seconds", "8"]);
        let output = { run }.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        println!("{told}");
        assert!(output.status.success(), "{told}");
    }
}

#[test]
fn what_is_broken_is_noticed() {
    for broken in Broken::STORE {
        let broken = broken.to_string();
        // Among the first seeds are some that show each.
        let arguments = ["--seed", "1", "--count", "40", "--seconds", "12", "--break", &broken];
        let output = simulate(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
