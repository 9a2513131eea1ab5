//! Typed identifiers. Passing a host's id where an instance's is wanted does not compile.

use newtype_uuid::{TypedUuid, TypedUuidKind, TypedUuidTag};

macro_rules! uuid_kinds {
    ($($(#[$doc:meta])* $kind:ident = $tag:literal => $id:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $kind {}

        impl TypedUuidKind for $kind {
            fn tag() -> TypedUuidTag {
                const TAG: TypedUuidTag = TypedUuidTag::new($tag);
                TAG
            }
        }

        $(#[$doc])*
        pub type $id = TypedUuid<$kind>;
    )+};
}

// Ids are minted by whoever proposes (UUID v7) and never by `decide`: the law has no randomness,
// and an id derived from a log index could come back after a recovery that loses a suffix.
uuid_kinds! {
    /// A VM: the promise made to a user.
    VmKind = "vm" => VmId;
    /// An instance: one body of a VM on one host.
    InstanceKind = "instance" => InstanceId;
    /// A machine that runs VMs.
    HostKind = "host" => HostId;
    /// A disk image or a kernel with its initrd.
    ImageKind = "image" => ImageId;
    /// A long task somebody may wait for.
    OperationKind = "operation" => OperationId;
    /// A bearer credential of the API.
    CredentialKind = "credential" => CredentialId;
    /// A token with which a node may join.
    TokenKind = "token" => TokenId;
    /// A request to hold a lock.
    TicketKind = "ticket" => TicketId;
    /// The cluster itself; part of every certificate and every message between nodes.
    ClusterKind = "cluster" => ClusterId;
    /// The identity of a data directory: a wiped node is a new node.
    StoreKind = "store" => StoreId;
    /// One boot of a host's hypervisor: a newer boot proves that older bodies ended.
    BootKind = "boot" => BootId;
    /// A pool of disks: the identity that lies in it, whatever hosts call it.
    PoolKind = "pool" => PoolId;
    /// A client's idempotency key.
    RequestKind = "request" => RequestId;
}

/// A node, a peer of the Raft group: the log index of the entry that admitted it, so an id is never
/// given twice. The node that creates the cluster is 1.
pub type NodeId = u64;

/// SHA-256, the one digest of this code base.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Digest(#[serde(with = "serde_bytes")] [u8; 32]);

impl Digest {
    /// The digest before anything was hashed.
    pub const ZERO: Digest = Digest([0; 32]);

    /// Hashes `parts` as one sequence of bytes; each part is preceded by its length, so that no two
    /// different sequences of parts hash alike.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Digest {
        use sha2::Digest as _;
        let mut hasher = sha2::Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Digest(hasher.finalize().into())
    }

    /// The digest of exactly these bytes, as other tools compute SHA-256.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Digest {
        use sha2::Digest as _;
        Digest(sha2::Sha256::digest(bytes).into())
    }

    /// The digest that `bytes` already are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Digest> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Digest(bytes))
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}
