//! The guard of a simulated host. Its guests are ended when somebody looks after the deadline: nobody
//! can tell the difference.

use std::time::Duration;

use ::guard::{Level, Warrant, deadline, is_broken, since_boot};
use async_trait::async_trait;
use domain::{
    Fence,
    instance::{Body, Ended},
};

use serde::{Deserialize, Serialize};

use super::{
    Simulator, lock,
    world::{World, written},
};
use crate::{DriverError, ErrorKind, Guard};

/// Until when guests may execute, and under which lease: under none, when nobody has said so since the host booted.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Held {
    lease: u64,
    pub(super) until: Duration,
}

impl World {
    /// Ends the guests whose time is over.
    pub(super) fn expire(&mut self) {
        let over = self.held.filter(|held| since_boot() >= held.until);
        if let Some(held) = over {
            self.end(false, held.until);
        }
    }

    /// Ends guests, all or those that are not to stay; they executed until then.
    fn end(&mut self, all: bool, at: Duration) {
        let World { domains, records, changes, .. } = self;
        for (vm, domain) in domains {
            if !all && !domain.failover.goes_elsewhere() {
                continue;
            }
            match domain.body {
                Body::Running | Body::Paused | Body::Arrived => {
                    domain.body = Body::Stopped(Ended::Crashed);
                    domain.leaving = false;
                }
                Body::Incoming => domain.body = Body::Ready,
                Body::Absent | Body::Ready | Body::Stopped(_) => continue,
            }
            if let Some(records) = records {
                written(records.write_at(*vm, Some(domain), None, at));
            }
            if let Some(changes) = changes {
                let _ = changes.send(*vm);
            }
        }
    }

    fn hold(&mut self, held: Held) {
        self.held = Some(held);
        if let Some(records) = &self.records {
            written(records.write_held(self.held));
        }
    }

    /// Whether a guest may begin to execute under this lease. Without a guard it may.
    pub(super) fn admit(&self, lease: Fence) -> Result<(), DriverError> {
        match self.held {
            Some(held)
                if (held.lease != lease.as_u64() || since_boot() >= held.until)
                    && !is_broken("ignore-fence") =>
            {
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
        let held = match world.held {
            Some(held) if held.lease > lease => {
                let message = "the host was taken up anew since";
                return Err(DriverError::new(ErrorKind::Fenced, message));
            }
            Some(held) if held.lease == lease => Held { until: until.max(held.until), lease },
            Some(_) | None => Held { lease, until },
        };
        world.hold(held);
        Ok(Level::Guard)
    }

    async fn end(&self) -> Result<(), DriverError> {
        let mut world = lock(&self.shared.world);
        world.expire();
        world.end(true, since_boot());
        if let Some(held) = world.held {
            world.hold(Held { until: Duration::ZERO, ..held });
        }
        Ok(())
    }
}
