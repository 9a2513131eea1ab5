//! How nodes talk: gRPC over mutual TLS, from the first byte.

mod client;
mod file;
mod server;
pub(crate) mod wire;

pub(crate) use client::{Network, Pool};
pub use file::Fetch;
#[cfg(feature = "simulation")]
pub(crate) use server::routes;
pub(crate) use server::serve;

use domain::id::{ClusterId, NodeId, StoreId};
use newtype_uuid::GenericUuid;
use prost::Message as _;
use proto::peer::Header;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};

const HEADER: &str = "novacron-header-bin";
/// Set on a refusal that tells a node that it was removed.
const REMOVED: &str = "novacron-removed";
/// Largest message, bytes: a piece of a snapshot, a batch of entries, or one large entry.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Who this node is to others.
#[derive(Clone, Debug)]
pub struct Me {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Its data directory.
    pub store: StoreId,
    /// How often it was started.
    pub boots: u64,
}

impl Me {
    fn header(&self, to: NodeId, epoch: u16) -> BinaryMetadataValue {
        let header = Header {
            cluster: self.cluster.into_untyped_uuid().as_bytes().to_vec().into(),
            epoch: u32::from(epoch),
            group: 0,
            from: self.node,
            to,
            store: self.store.into_untyped_uuid().as_bytes().to_vec().into(),
            boots: self.boots,
        };
        BinaryMetadataValue::from_bytes(&header.encode_to_vec())
    }
}

fn header_of(metadata: &MetadataMap) -> Option<Header> {
    Header::decode(metadata.get_bin(HEADER)?.to_bytes().ok()?).ok()
}
