//! The general run: faults of every kind, several at once, beside every workload. `CHAOS_SECONDS` says how
//! long it is, `SEED` repeats its choices.

use std::{path::PathBuf, time::Duration};

use lab::Broken;
use novacron_chaos_tests::{Plan, Summary, is_possible, notices, run};
use tokio::sync::Mutex;

/// One run at a time: ten nodes would only time out.
static ONE: Mutex<()> = Mutex::const_new(());

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

async fn run_with(broken: Broken, seconds: u64) -> Option<Summary> {
    if let Err(why) = is_possible() {
        assert!(std::env::var_os("REQUIRE_REAL_VMS").is_none(), "{why}");
        println!("SKIPPED the general run: {why}");
        return None;
    }
    let _one = ONE.lock().await;
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let test = std::env::current_exe().unwrap();
    let programs: PathBuf = test.ancestors().nth(2).unwrap().to_owned();
    let previous = programs.with_file_name("previous").join("novacron");
    if !previous.exists() {
        println!(
            "SKIPPED upgrades: {} is not there; scripts/previous builds it",
            previous.display()
        );
    }
    let plan = Plan {
        seed,
        nodes: 5,
        previous: Some(previous).filter(|file| file.exists() && broken == Broken::Nothing),
        storm: Duration::from_secs(seconds),
        broken,
        out: programs.join("chaos").join(format!("{seed}-{broken}")),
        programs,
    };
    println!("SEED={seed}, with {broken} broken");
    let summary = run(&plan, |step| println!("{step}")).await.unwrap();
    println!("{summary}");
    Some(summary)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_breaks_whatever_befalls_it() {
    let Some(summary) = run_with(Broken::Nothing, number("CHAOS_SECONDS").unwrap_or(90)).await
    else {
        return;
    };
    assert!(summary.is_good(), "seed {}: {summary}", summary.seed);
}

/// What is broken on purpose is noticed by the same run: `chaos-tests planted` has all, here are those that
/// the simulator cannot notice, and the disk.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_is_noticed() {
    let bugs = [Broken::NeverSyncs, Broken::ForgetsRequests, Broken::DropsEvents, Broken::NoPause];
    for broken in bugs {
        let Some(summary) = run_with(broken, 300).await else { return };
        assert!(notices(broken, &summary.violations), "{broken} was not noticed: {summary}");
    }
}
