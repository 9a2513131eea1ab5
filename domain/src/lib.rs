//! The law of a NovaCron cluster: what it consists of, what may be asked of it, and what follows.
//!
//! Pure. No I/O, no clock, no randomness, no floating point, no hash maps: every node runs this on
//! the same log and must get the same state, to the bit. Time and ids come in with the command.
//!
//! The way of a command: [`envelope::Envelope`] → [`Applier`] → (known request? permitted? the noun's
//! rules on a [`Draft`]) → the next [`State`], an [`event::Event`] and an answer.

pub mod alert;
pub mod canary;
pub mod cluster;
pub mod codec;
pub mod credential;
pub mod envelope;
pub mod event;
pub mod host;
pub mod id;
pub mod image;
pub mod instance;
pub mod invariant;
pub mod limit;
pub mod lock;
pub mod migration_policy;
pub mod name;
pub mod node;
pub mod operation;
pub mod principal;
pub mod project;
pub mod rejected;
pub mod request;
pub mod setting;
pub mod state;
pub mod table;
pub mod token;
pub mod trace;
pub mod vm;

mod access;
mod admission;
mod apply;
mod decide;
mod draft;
mod revision;

pub use apply::{Applied, Applier};
pub use draft::Draft;
pub use revision::{Fence, Revision};
pub use state::State;
