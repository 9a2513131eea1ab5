//! The law, tested from outside: golden encodings, transition tables, transcripts and properties.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::wildcard_enum_match_arm, reason = "tests pick the variants they are about")]

mod alert;
mod canary;
mod encoding;
mod lock;
mod migration;
mod migration_policy;
mod property;
mod protocol;
mod table;
mod transcript;
mod world;
