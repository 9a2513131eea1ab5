//! The product as its users meet it: a three-node cluster over its API, the rules of the house, and
//! what the documents say.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "figures for the reader of a test's output")]

mod alerts;
mod bundle;
mod canary;
mod changes;
mod docs;
mod doctor;
mod drains;
mod errors;
mod every_call;
mod faces;
mod failover;
mod fleet;
mod floors;
mod harness;
mod images;
mod kinds;
mod locks;
mod metrics;
mod migration;
mod monitoring;
mod placement;
mod probes;
mod queues;
mod reference;
mod roles;
mod scripted;
mod setup;
mod stage;
mod tally;
