//! Panics that a test plants, to show that whoever supervises an actor starts it again. A release has none.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// What such a panic says: the lab looks for it in logs.
const WORDS: &str = "a test planted this panic";
/// Actors that panic each time.
const EACH_TIME: usize = 5;
/// Between two looks whether a test wants some.
const LOOK: Duration = Duration::from_millis(100);

static DUE: AtomicUsize = AtomicUsize::new(0);

/// Has the next few actors that do something panic whenever the file appears that `NOVACRON_TEST_PANICS` names;
/// it is removed then.
pub fn watch() {
    let Some(file) = std::env::var_os("NOVACRON_TEST_PANICS").map(PathBuf::from) else { return };
    if !cfg!(debug_assertions) {
        return;
    }
    std::thread::spawn(move || {
        loop {
            if std::fs::remove_file(&file).is_ok() {
                DUE.store(EACH_TIME, Ordering::Relaxed);
            }
            std::thread::sleep(LOOK);
        }
    });
}

/// Where an actor panics, if one is due.
pub(crate) fn may_panic() {
    let one_less = |due: usize| due.checked_sub(1);
    if DUE.try_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
        #[allow(clippy::panic, reason = "it is what a test wants")]
        {
            panic!("{WORDS}");
        }
    }
}
