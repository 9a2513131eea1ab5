//! What there is on a simulated host.

use std::{collections::BTreeMap, io, sync::Arc};

use ::guard::is_broken;
use domain::{Fence, id::VmId, instance::Body, name::Name, vm::Failover};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::{guard::Held, migration::Sending, record::Records};
use crate::{DriverError, ErrorKind, Order};

/// A body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Domain {
    pub(super) body: Body,
    /// Whether its guest stands still because it is being handed over.
    #[serde(default)]
    pub(super) leaving: bool,
    pub(super) generation: Option<u32>,
    pub(super) reboots: u32,
    pub(super) starts: u32,
    pub(super) console: Vec<u8>,
    pub(super) name: Name,
    pub(super) memory_mib: u64,
    pub(super) failover: Failover,
}

impl Domain {
    pub(super) fn fresh(order: &Order) -> Domain {
        Domain {
            body: Body::Ready,
            leaving: false,
            generation: None,
            reboots: 0,
            starts: 0,
            console: Vec::new(),
            name: order.name.clone(),
            memory_mib: u64::from(order.spec.memory_mib),
            failover: order.spec.failover,
        }
    }

    /// Whether its guest executes.
    pub(super) fn executes(&self) -> bool {
        self.body == Body::Running && !self.leaving
    }

    /// Refuses what cannot be done while its guest is being handed over.
    pub(super) fn is_here(&self, wish: &str) -> Result<(), DriverError> {
        let message = format!("cannot {wish} a guest that is being handed over");
        if self.leaving { Err(DriverError::new(ErrorKind::Conflict, message)) } else { Ok(()) }
    }

    /// Nobody sends it or receives it any more: its guest goes on here, if it did before.
    pub(super) fn stay(&mut self) {
        self.leaving = false;
        if self.body == Body::Incoming {
            self.body = Body::Ready;
        }
    }
}

/// All bodies, and what is known of them.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) domains: BTreeMap<VmId, Domain>,
    pub(super) fences: BTreeMap<VmId, Fence>,
    pub(super) sendings: BTreeMap<VmId, Arc<Sending>>,
    /// Nothing while there is no guard.
    pub(super) held: Option<Held>,
    /// Who hears of guests that end by themselves.
    pub(super) changes: Option<broadcast::Sender<VmId>>,
    /// Nothing when all is gone with the process.
    pub(super) records: Option<Records>,
}

impl World {
    /// Checks a fence, and raises it, before anything is done under it.
    pub(super) fn claim(&mut self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        let seen = self.fences.get(&vm).copied().unwrap_or_default();
        if fence < seen && !is_broken("ignore-fence") {
            let message = format!("fence {fence} is below {seen}");
            return Err(DriverError::new(ErrorKind::Fenced, message));
        }
        if let Some(records) = &mut self.records {
            if fence > seen {
                let failed = |error: io::Error| {
                    DriverError::new(ErrorKind::Transient, format!("the fence: {error}"))
                };
                records.raise(vm, fence).map_err(failed)?;
            }
            records.note_fence(vm, fence);
        }
        self.fences.insert(vm, fence);
        Ok(())
    }

    /// Writes down what has become of a body, under this fence if somebody let it.
    pub(super) fn keep(&mut self, vm: VmId, fence: Option<Fence>) {
        if let Some(records) = &mut self.records {
            written(records.write(vm, self.domains.get(&vm), fence));
        }
    }

    pub(super) fn domain(&mut self, vm: VmId) -> Result<&mut Domain, DriverError> {
        let missing = || DriverError::new(ErrorKind::NotFound, format!("no domain {vm}"));
        self.domains.get_mut(&vm).ok_or_else(missing)
    }
}

/// What is not written down has not happened: a host that cannot do that ends, and its files tell what there is.
pub(super) fn written(result: io::Result<()>) {
    if result.is_err() {
        std::process::abort();
    }
}
