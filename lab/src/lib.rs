//! Clusters of real processes on one machine. The demo, tests and fault tests use this one harness.
//!
//! Everything it starts it ends by its own pid, also after a panic, and everything lies in one
//! directory of its own, so two labs on one machine do not meet.

mod cluster;
mod config;
mod disk;
mod down;
mod driver;
mod failing_syncs;
mod fault;
mod guard;
mod hypervisor;
mod ledger;
mod network;
mod node;
mod options;
mod pki;
pub mod power;
mod programs;
mod proxy;
mod qemu;
pub mod rpc;
mod wall_clock;
mod watchdog;
mod witness;

pub use cluster::{Cluster, status};
pub use disk::{Waiting, is_possible as disks_are_possible};
pub use down::sweep;
pub use driver::DriverHost;
pub use failing_syncs::{FailingSyncs, is_possible as failing_syncs_are_possible};
pub use hypervisor::is_possible;
pub use ledger::Ledger;
pub use network::is_possible as bridges_are_possible;
pub use options::{Broken, ClusterOptions, Fencing, Hosts, Storage};
pub use proxy::Proxy;
pub use wall_clock::is_possible as wall_clocks_are_possible;
pub use watchdog::Watchdog;
pub use witness::{Interval, Witness};
