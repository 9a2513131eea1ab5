//! Clusters of real processes on one machine. The demo, tests and fault tests use this one harness.
//!
//! Everything it starts it ends by its own pid, also after a panic, and everything lies in one
//! directory of its own, so two labs on one machine do not meet.

mod cluster;
mod down;
mod hypervisor;

pub use cluster::{Cluster, ClusterOptions};
pub use down::sweep;
pub use hypervisor::{Hypervisor, is_possible};
