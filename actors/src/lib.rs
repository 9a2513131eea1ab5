//! The staff of a node: supervised actors that read what is wanted, do their part and report what
//! they saw by proposing a command. None of them holds a truth: kill any, and its successor finds
//! everything in the state.
//!
//! ```text
//!  root ─┬─ leader      on the leading node only: time, placement, failover, fencing, membership
//!        ├─ beat        renews the leases of this node's hosts, all in one entry, and tells their guards
//!        ├─ health      reports this node's disk and version
//!        ├─ keeper      keeps copies of images here
//!        ├─ chronicle   writes down what becomes of operations
//!        ├─ reporter    gathers reports of bodies into few entries
//!        └─ host …      one per host this node drives
//!             └─ instance …   one per body that has something to be done, gone afterwards
//! ```

mod beat;
mod chronicle;
mod disk;
mod files;
mod health;
mod host;
mod keeper;
mod leader;
mod machine;
pub mod metrics;
mod monitor;
pub mod planted;
mod reporter;
mod root;
mod routine;
mod series;
mod supervision;

pub use disk::{Disk, used_percent};
pub use files::{ImageFiles, Incoming};
pub use host::LocalHost;
pub use leader::{FencingAgent, Receiver, ReceiverKind, membership};
pub use monitor::{Measured, Monitor};
pub use root::{Staff, StaffOptions};
pub use series::{Sample, Step};
