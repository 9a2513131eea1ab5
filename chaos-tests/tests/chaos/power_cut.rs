//! The power of nodes fails under full load: everything that was not synced is gone.
//! `POWER_CUTS` says how many times (4), `SEED` repeats a run's choices.

use std::time::{Duration, Instant};

use lab::Storage;

use crate::trial::{NODES, Trial, is_possible};

/// Then another cluster begins: from one second of age to past a purge of its log.
const CUTS_PER_CLUSTER: u64 = 10;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost() {
    if !is_possible() {
        return;
    }
    let cuts = number("POWER_CUTS").unwrap_or(4);
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let (begun, mut acknowledged, mut lost) = (Instant::now(), 0, 0);
    let mut trial = None;
    for cut in 0..cuts {
        if cut % CUTS_PER_CLUSTER == 0 {
            println!("after {cut} cuts {acknowledged} writes acknowledged, none lost");
            trial = Some(Trial::start(Storage::Disk).await.unwrap());
        }
        let trial = trial.as_mut().unwrap();
        // All at once in half of the cuts: then nobody else has what a disk has not.
        let victims = if cut % 2 == 0 { (0..NODES).collect() } else { vec![random.usize(..NODES)] };
        let load = Duration::from_millis(random.u64(200..2_000));
        let before = trial.counters.acknowledged();
        let fail = |error| -> ! {
            panic!("SEED={seed}, cut {cut} of {victims:?} after {load:?}: {error:#}")
        };
        lost += trial.cut(&victims, load).await.unwrap_or_else(|error| fail(error));
        trial.recover(&victims).await.unwrap_or_else(|error| fail(error));
        acknowledged += trial.counters.acknowledged() - before;
    }
    println!(
        "{cuts} power cuts in {:.0?}: {acknowledged} writes acknowledged and kept, {} KiB not \
         synced and lost; SEED={seed}",
        begun.elapsed(),
        lost >> 10
    );
}
