//! The language at NovaCron's doors: the code made from the .proto files.

/// What nodes say to each other.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the .proto files have the documentation"
)]
pub mod peer {
    tonic::include_proto!("novacron.peer.v1");
}
