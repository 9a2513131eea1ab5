//! Lets a log go whose entries are large: Raft counts them, and all that it lets a log hold may be more than a node has
//! memory for.

use std::{sync::Arc, time::Duration};

use openraft::async_runtime::WatchReceiver;
use tokio::{sync::watch, time::MissedTickBehavior};

use super::Core;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks at the log until the node stops.
pub(super) async fn watch(core: Arc<Core>, mut stopped: watch::Receiver<bool>) {
    let mut looks = tokio::time::interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The newest entry that is to go. Another is chosen when it has gone: who is still sent it may otherwise never get
    // as far.
    let mut going = None;
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        let (applied, snapshot, purged) = {
            let metrics = core.raft.metrics();
            let metrics = metrics.borrow_watched();
            let [applied, snapshot, purged] =
                [&metrics.last_applied, &metrics.snapshot, &metrics.purged]
                    .map(|at| at.as_ref().map(|at| at.index));
            (applied, snapshot, purged)
        };
        going =
            going.filter(|going| purged < Some(*going)).or_else(|| newest_to_go(&core, applied));
        let Some(going) = going else { continue };
        let trigger = core.raft.trigger();
        let asked = if snapshot < Some(going) {
            trigger.snapshot().await
        } else {
            trigger.purge_log(going).await
        };
        // Raft has ended.
        if asked.is_err() {
            return;
        }
    }
}

/// If the log is too large, the newest of its entries that a snapshot can hold and of those that do not stay.
fn newest_to_go(core: &Core, applied: Option<u64>) -> Option<u64> {
    let index = core.log.index();
    let is_large = index.bytes() > core.timing.log_bytes;
    let beyond = is_large.then(|| index.beyond(core.timing.log_bytes / 4)).flatten()?;
    Some(beyond.min(applied?))
}
