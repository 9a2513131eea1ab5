//! A node takes up a host, and when it asks again for one that it was not given.

use std::time::Duration;

use domain::{
    Revision, State,
    envelope::Command,
    host::{Grant, HostCommand, Status},
};
use guard::since_boot;
use raft_store::{Consistency, ProposeError};
use tokio::time::Instant;

use super::{HostState, LocalHost, guarding, instance};

/// After the first refusal, and after many: each is an entry of the cluster's log.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What came of asking so far.
pub(super) struct Claim {
    not_before: Instant,
    /// After the next refusal.
    pause: Duration,
    /// What the cluster knew when it refused.
    standing: Option<Standing>,
    /// Why it was not given, as was told last.
    told: Option<String>,
    /// Whether the host's guests must be ended: they may run elsewhere.
    must_end: bool,
}

/// By what the cluster decides who is given a host: the row of the host, and of the one that has its name.
type Standing = [Option<Revision>; 2];

fn standing(state: &State, host: &LocalHost) -> Standing {
    let rows = [state.hosts.get(&host.id), state.host_named(&host.name)];
    rows.map(|row| row.map(|row| row.revision))
}

impl Default for Claim {
    fn default() -> Claim {
        let not_before = Instant::now();
        Claim { not_before, pause: PAUSE, standing: None, told: None, must_end: false }
    }
}

impl Claim {
    /// Whether the host may be asked for: it was not lately, or what was decided by has changed since.
    fn is_due(&self, now: Standing) -> bool {
        Instant::now() >= self.not_before || self.standing.is_some_and(|then| then != now)
    }

    /// The host was not given. The answer is whether that is news to whoever reads the log.
    fn refused(&mut self, error: &ProposeError, standing: Standing) -> bool {
        let (pause, next) = match error {
            // It is decided in the same way until something else is.
            ProposeError::Rejected(_) => (self.pause, (self.pause * 2).min(PAUSE_MAX)),
            ProposeError::Unavailable(_) | ProposeError::Unknown(_) => (PAUSE, PAUSE),
        };
        self.pause = next;
        self.standing = Some(standing);
        self.not_before = Instant::now() + pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        let why = error.to_string();
        let is_news = self.told.as_ref() != Some(&why);
        self.told = Some(why);
        is_news
    }
}

impl HostState {
    /// Whether this node may act on the host; takes it up if nobody drives it.
    pub(super) async fn hold_lease(&mut self, state: &State) -> bool {
        let node = self.tools.store.node();
        let row = state.hosts.get(&self.tools.host.id);
        let held = row.is_some_and(|row| {
            row.node == node && row.boot == self.tools.host.boot && row.status == Status::Ready
        });
        if held {
            self.claim = Claim::default();
            return true;
        }
        self.seen = None;
        // Only a member can drive; a node that has just joined waits until it knows itself.
        if !state.nodes.contains_key(&node) {
            return false;
        }
        if self.claim.must_end {
            self.claim.must_end = !guarding::end_all(&self.tools.host).await;
        }
        let standing = standing(state, &self.tools.host);
        if !self.claim.is_due(standing) {
            return false;
        }
        let inventory = match instance::within(self.tools.host.driver.inventory()).await {
            Ok(inventory) => inventory,
            Err(error) => {
                tracing::warn!(host = %self.tools.host.name, %error, "the host does not answer");
                return false;
            }
        };
        let grant = Grant {
            host: self.tools.host.id,
            name: self.tools.host.name.clone(),
            driver: inventory.kind,
            capacity: (self.tools.host.offered)(inventory.capacity),
            reserved: self.tools.host.reserved,
            boot: self.tools.host.boot,
            foreign: inventory.foreign,
        };
        let (host, asked) = (&self.tools.host, since_boot());
        let command = Command::Host(HostCommand::Grant(Box::new(grant)));
        match self.tools.store.propose_as_node(command).await {
            Ok(outcome) => {
                tracing::info!(host = %host.name, "this node drives the host");
                // The beat tells the guard too; this only lets guests start without waiting for it.
                let store = &self.tools.store;
                if let Ok(view) = store.read(Consistency::AtLeast(outcome.revision)).await {
                    guarding::renewed(store, &view.state, host, outcome.revision, asked).await;
                }
            }
            Err(error) => {
                if self.claim.refused(&error, standing) {
                    tracing::warn!(host = %host.name, %error, "the host was not taken up");
                }
                if guarding::says_dead(&error) {
                    self.claim.must_end = !guarding::end_all(host).await;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use domain::rejected::{Reason, Rejected};

    use super::*;

    const NOW: Standing = [None, None];

    // The clock stands still: the machine may be slow, and lets no pause pass meanwhile.
    #[tokio::test(start_paused = true)]
    async fn who_is_refused_asks_less_and_less_until_something_has_changed() {
        let refusal = ProposeError::from(Rejected::new(Reason::NameTaken, "another one's"));
        let mut claim = Claim::default();
        assert!(claim.is_due(NOW));
        for pause_ms in [500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            let before = Instant::now();
            let is_news = claim.refused(&refusal, NOW);
            assert_eq!(is_news, pause_ms == 500, "it was told already");
            let pause = claim.not_before - before;
            assert!(pause >= Duration::from_millis(pause_ms * 3 / 4), "{pause:?}");
            assert!(pause <= Duration::from_millis(pause_ms * 5 / 4 + 100), "{pause:?}");
            assert!(!claim.is_due(NOW));
        }
        assert!(claim.is_due([Some(Revision::ZERO), None]));
        // Nobody has decided: it is asked for again soon.
        let before = Instant::now();
        assert!(claim.refused(&ProposeError::Unavailable("no leader".to_owned()), NOW));
        assert!(claim.not_before - before < Duration::from_secs(1));
    }
}
