//! The law, tested from outside: golden encodings, transition tables, transcripts and properties.

mod encoding;
mod property;
mod table;
mod transcript;
mod world;
