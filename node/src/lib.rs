//! The binary `novacron`: configuration, API services, authentication, logs, metrics, and how they are
//! wired. It is a library too, so that tests run nodes in their own process.

pub mod api;
pub mod bundle;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod dev;
pub mod doctor;
pub mod files;
pub mod founding;
pub mod hosts;
pub mod logs;
pub mod metrics;
pub mod pin;
