//! The memory of a NovaCron cluster: one Raft group over its nodes, the state every node holds, and
//! what each keeps on its disk.
//!
//! | on the disk | what | when it is damaged |
//! |---|---|---|
//! | `log/` | entries and the vote, synced before they are acknowledged | the node stops |
//! | `snapshot/` | the whole state at some entry | an older one or `state/` is used, else the node stops |
//! | `state/` | a copy of the state and its history in sled | it is made again |
//! | `marker` | that this directory was in use, and by whom | the node stops |
//!
//! Nothing outside this crate knows openraft or sled.

pub mod identity;
pub mod listener;
pub mod rescue;
#[cfg(feature = "simulation")]
pub mod simulation;

mod clock;
mod copy;
mod directory;
mod error;
mod ground;
mod log;
mod machine;
pub mod measure;
pub mod metrics;
mod recovery;
mod runtime;
mod snapshot;
mod store;
mod transport;
mod types;
mod view;
mod wal;

pub use error::DamageError;
pub use ground::Wire;
pub use guard::is_broken;
pub use store::{
    Consistency, Follower, Founder, Options, ProposeError, ReadError, Status, Store, StoreError,
    Timing,
};
pub use transport::Fetch;
pub use types::{Members, Position};
pub use view::View;
pub use wal::{SyncPolicy, WalOptions};

#[cfg(test)]
mod tests;
