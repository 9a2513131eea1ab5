//! Clusters of real processes on one machine. The demo, tests and fault tests use this one harness.
//!
//! Everything it starts it ends by its own pid, also after a panic, and everything lies in one
//! directory of its own, so two labs on one machine do not meet.

mod apart;
mod cgroup;
mod clients;
mod cluster;
mod config;
mod damage;
mod disk;
mod down;
mod driver;
mod fault;
mod guard;
mod guest;
mod hypervisor;
mod late;
mod ledger;
mod look;
mod network;
mod node;
mod options;
mod pki;
pub mod power;
mod programs;
mod proxy;
mod qemu;
mod records;
mod root;
pub mod rpc;
mod spare;
mod syncs;
mod wall_clock;
mod watchdog;
mod witness;

pub use cgroup::{Limit, Limited, is_possible as limits_are_possible};
pub use clients::{begun_us, status};
pub use cluster::{COLLECTOR, Cluster, free_address};
pub use damage::Flipped;
pub use disk::{Waiting, is_possible as disks_are_possible};
pub use down::sweep;
pub use driver::DriverHost;
pub use drivers::simulator::Execution;
pub use fault::PLANTED;
pub use guest::{Guest, idle_kernel};
pub use hypervisor::is_possible;
pub use late::{Late, Lateness, is_possible as late_packets_are_possible};
pub use ledger::Ledger;
pub use network::{is_possible as bridges_are_possible, twice_is_possible};
pub use options::{Broken, ClusterOptions, Fencing, Hosts, Pace, Storage, Traces};
pub use proxy::Proxy;
pub use records::{HostRecords, Told};
pub use syncs::{TamperedSyncs, Tampering, is_possible as tampered_syncs_are_possible};
pub use wall_clock::{is_possible as wall_clocks_are_possible, stopped_clocks};
pub use watchdog::Watchdog;
pub use witness::{Interval, Witness};
