//! Faults on clusters of real processes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "figures for the reader of a test's output")]

mod full_disk;
mod general;
mod growth;
mod power_cut;
mod simulator;
mod trial;
