//! Several nodes in one process, over real TCP and mutual TLS on loopback.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod failure;
mod harness;
mod life;
