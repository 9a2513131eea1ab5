//! Clusters of real processes on one machine. The demo, tests and fault tests use this one harness.
//!
//! Everything it starts it ends by its own pid, also after a panic, and everything lies in one
//! directory of its own, so two labs on one machine do not meet.

mod cluster;
mod config;
mod disk;
mod down;
mod driver;
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
mod watchdog;
mod witness;

pub use cluster::{Cluster, status};
pub use disk::is_possible as disks_are_possible;
pub use down::sweep;
pub use driver::DriverHost;
pub use hypervisor::is_possible;
pub use ledger::Ledger;
pub use network::is_possible as bridges_are_possible;
pub use options::{Broken, ClusterOptions, Fencing, Hosts, Storage};
pub use proxy::Proxy;
pub use watchdog::Watchdog;
pub use witness::{Interval, Witness};
