//! The binary `novacron`: configuration, API services, authentication, telemetry, and how they are
//! wired. It is a library too, so that tests run nodes in their own process.

pub mod api;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod dev;
pub mod files;
pub mod founding;
pub mod hosts;
pub mod pin;
pub mod telemetry;
