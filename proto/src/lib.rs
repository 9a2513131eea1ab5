//! The language at NovaCron's doors: the code made from the .proto files, and how the API's messages
//! and the domain's types become each other.

pub mod convert;

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

/// What a node and its driver processes say to each other.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the .proto files have the documentation"
)]
pub mod driver {
    tonic::include_proto!("novacron.driver.v1");
}

/// The public API; the module path is the package's, as the generated code expects it.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated; the .proto files have the documentation"
)]
pub mod novacron {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/novacron.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/novacron.v1.serde.rs"));
        include!(concat!(env!("OUT_DIR"), "/novacron.v1.rest.rs"));
    }
}
pub use novacron::v1;

/// The REST face of the public API.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated; the .proto files have the documentation"
)]
pub mod rest {
    use super::novacron;
    include!(concat!(env!("OUT_DIR"), "/transcoder.rest.rs"));
}

/// The public API's descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Every method of the public API, as `Service/Method`.
pub const METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// The OpenAPI 3.1 document of the REST face.
pub const OPENAPI: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));
