//! The hands of a NovaCron cluster: what a hypervisor must be able to do, a simulated one, and the
//! suite that every driver passes.
//!
//! A driver executes; it never decides. Each call carries the fence under which it is made, and a
//! driver refuses a fence lower than the highest it has seen for that body, durably: that is what
//! keeps a stale owner's hands off.

mod error;
mod guard;
mod measured;
mod migration;
mod order;

pub mod conformance;
pub mod metrics;
pub mod pool;
pub mod protocol;
pub mod qcow2;
pub mod simulator;

pub use error::{DriverError, ErrorKind};
pub use guard::{Guard, GuardProcess};
pub use measured::Measured;
pub use migration::{Departure, Migration, cannot_migrate};
pub use order::{FOREIGN_MAX, Foreign, Inventory, Observation, Order, Usage};

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use domain::{
    Fence,
    id::{PoolId, VmId},
    name::Name,
};
use tokio::sync::broadcast;

/// The life of bodies on one host. Every call is idempotent: repeating it after a lost answer, or
/// finding the work done already, is a success.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// What the host is and has.
    async fn inventory(&self) -> Result<Inventory, DriverError>;

    /// What is there of one body. [`domain::instance::Body::Absent`] means certainly nothing.
    async fn observe(&self, vm: VmId) -> Result<Observation, DriverError>;

    /// What is there of all bodies of ours. Domains that are not ours are only counted, in
    /// [`Inventory::foreign`].
    async fn observe_all(&self) -> Result<Vec<Observation>, DriverError>;

    /// Makes the body: disks and definition. It does not run afterwards.
    async fn prepare(&self, order: &Order) -> Result<(), DriverError>;

    /// Starts the guest with the order's spec, if the host's guard lets guests execute under the
    /// order's lease. That is seen after the guest is there and before its first instruction: a guard
    /// whose deadline passes in between ends it.
    async fn start(&self, order: &Order) -> Result<(), DriverError>;

    /// Asks the guest to shut down and returns at once. A guest may not listen: ask again.
    async fn shutdown(&self, vm: VmId, fence: Fence) -> Result<(), DriverError>;

    /// Cuts the guest's power.
    async fn kill(&self, vm: VmId, fence: Fence) -> Result<(), DriverError>;

    /// Restarts the guest within its body.
    async fn reboot(&self, vm: VmId, fence: Fence) -> Result<(), DriverError>;

    /// Lets the guest stand still in memory.
    async fn pause(&self, vm: VmId, fence: Fence) -> Result<(), DriverError>;

    /// Lets the guest go on, if the host's guard lets guests execute under `lease`.
    async fn resume(&self, vm: VmId, fence: Fence, lease: Fence) -> Result<(), DriverError>;

    /// Ends the guest and removes body and disks, but for those in a pool: afterwards it is certainly
    /// absent.
    async fn release(&self, vm: VmId, fence: Fence) -> Result<(), DriverError>;

    /// The pools of disks that the host sees, by the names that it has for them.
    async fn pools(&self) -> Result<BTreeMap<Name, PoolId>, DriverError>;

    /// Removes a VM's disks from a pool, once its body is released and no other will need them.
    /// The pool is one that has this name and this identity.
    async fn discard(
        &self,
        vm: VmId,
        fence: Fence,
        pool: &Name,
        identity: PoolId,
    ) -> Result<(), DriverError>;

    /// Names bodies that changed without being told to. A wake-up and no truth: whoever lags or
    /// misses some observes all.
    fn changes(&self) -> broadcast::Receiver<VmId>;

    /// What the guest wrote to its serial console, from byte `offset` of the log on, at most
    /// `bytes_max`; and the offset after it.
    async fn console_log(
        &self,
        vm: VmId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, u64), DriverError>;

    /// A Unix socket on this machine that carries the guest's serial console both ways, for one
    /// connection at a time.
    async fn console_socket(&self, vm: VmId) -> Result<PathBuf, DriverError>;

    /// What a running guest uses.
    async fn usage(&self, vm: VmId) -> Result<Usage, DriverError>;

    /// Moves running guests, if this driver can.
    fn migration(&self) -> Option<&dyn Migration>;

    /// The domains that are not ours, at most [`FOREIGN_MAX`]. They are never touched.
    async fn foreign(&self) -> Result<Vec<Foreign>, DriverError>;
}
