//! Real processes, and real VMs where the machine can run them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "figures for the reader of a test's output")]

mod consoles;
mod driver;
mod failover;
mod harness;
mod logs;
mod migration;
mod partitions;
mod planted;
mod policies;
mod pools;
mod processes;
mod question;
mod real;
mod rescue;
mod strike;
mod tally;
mod traces;
mod traveller;
mod trial;
mod watchdog;
