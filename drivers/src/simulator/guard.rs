//! The guard of a simulated host. Its guests are ended when somebody looks after the deadline: nobody
//! can tell the difference.

use std::time::Duration;

use ::guard::{Level, Warrant, deadline, since_boot};
use async_trait::async_trait;
use domain::{
    Fence,
    instance::{Body, Ended},
};

use super::{Simulator, World, lock};
use crate::{DriverError, ErrorKind, Guard};

/// Until when guests may execute, and under which lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    lease: u64,
    until: Duration,
}

impl World {
    /// Ends the guests whose time is over.
    pub(super) fn expire(&mut self) {
        if self.held.is_some_and(|held| since_boot() >= held.until) {
            self.end(false);
        }
    }

    fn end(&mut self, all: bool) {
        let doomed =
            self.domains.values_mut().filter(|domain| all || domain.failover.goes_elsewhere());
        for domain in doomed {
            match domain.body {
                Body::Running | Body::Paused | Body::Arrived => {
                    domain.body = Body::Stopped(Ended::Crashed);
                }
                Body::Incoming => domain.body = Body::Ready,
                Body::Absent | Body::Ready | Body::Stopped(_) => {}
            }
        }
    }

    /// Whether a guest may begin to execute under this lease. Without a guard it may.
    pub(super) fn admit(&self, lease: Fence) -> Result<(), DriverError> {
        match self.held {
            Some(held) if held.lease != lease.as_u64() || since_boot() >= held.until => {
                let message = "the host's lease has run out, or was granted anew since";
                Err(DriverError::new(ErrorKind::Transient, message))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[async_trait]
impl Guard for Simulator {
    async fn hold(&self, Warrant { lease, asked, ttl }: Warrant) -> Result<Level, DriverError> {
        let mut world = lock(&self.shared.world);
        world.expire();
        let until = deadline(asked, ttl);
        world.held = match world.held {
            Some(held) if held.lease > lease => {
                let message = "the host was taken up anew since";
                return Err(DriverError::new(ErrorKind::Fenced, message));
            }
            Some(held) if held.lease == lease => Some(Held { until: until.max(held.until), lease }),
            Some(_) | None => Some(Held { lease, until }),
        };
        Ok(Level::Guard)
    }

    async fn end(&self) -> Result<(), DriverError> {
        let mut world = lock(&self.shared.world);
        world.end(true);
        world.held = world.held.map(|held| Held { until: Duration::ZERO, ..held });
        Ok(())
    }
}
