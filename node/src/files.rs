//! A node's own files beside its store: who it is, its certificate, and the cluster's authority.
//!
//! The authority's key lies on every node, so that any of them can admit others and renew its own
//! certificate: losing a node, the first one too, loses nothing. Whoever can read it is the cluster;
//! the directory is for root's eyes only.

use std::{
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use domain::{
    id::{ClusterId, NodeId, StoreId},
    name::Name,
};
use raft_store::identity::{self, Authority, Identity, Subject};
use serde::{Deserialize, Serialize};

/// Who a node is. Written last: without it a directory is not set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: Name,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// The identity of its data directory.
    pub store: StoreId,
}

/// A node's files, read.
pub struct Files {
    directory: PathBuf,
    /// Who it is.
    pub node: NodeFile,
    /// The cluster's authority.
    pub authority: Authority,
    /// Its certificate and key.
    pub identity: Arc<Identity>,
}

const NODE: &str = "node.json";
const CERTIFICATE: &str = "node.crt";
const KEY: &str = "node.key";
const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";

fn folder(data: &Path) -> PathBuf {
    data.join("identity")
}

/// Where the node's copies of images lie.
pub(crate) fn images(data: &Path) -> PathBuf {
    data.join("images")
}

/// Whether a data directory is set up already.
#[must_use]
pub fn is_set_up(data: &Path) -> bool {
    folder(data).join(NODE).exists()
}

impl Files {
    /// Writes the files of a node that is being set up.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn create(
        data: &Path,
        node: &NodeFile,
        authority: &Authority,
        certificate_pem: &str,
        key_pem: &str,
    ) -> Result<()> {
        let directory = folder(data);
        make_directory(&directory)?;
        write(&directory.join(AUTHORITY), authority.certificate_pem())?;
        write(&directory.join(AUTHORITY_KEY), authority.key_pem())?;
        write(&directory.join(KEY), key_pem)?;
        write(&directory.join(CERTIFICATE), certificate_pem)?;
        write(&directory.join(NODE), &serde_json::to_string_pretty(node)?)
    }

    /// Reads the files of a node.
    ///
    /// # Errors
    /// When the directory is not set up, or a file is not what it should be.
    pub fn load(data: &Path) -> Result<Files> {
        if !is_set_up(data) {
            bail!(
                "{} is not set up; run `novacron init` for a new cluster or `novacron join TOKEN` \
                 for an existing one",
                data.display()
            );
        }
        let directory = folder(data);
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))
        };
        let node = serde_json::from_str(&read(NODE)?)
            .with_context(|| format!("{} is damaged", directory.join(NODE).display()))?;
        let authority = Authority::load(&read(AUTHORITY)?, &read(AUTHORITY_KEY)?)?;
        let identity =
            Identity::load(&read(CERTIFICATE)?, &read(KEY)?, authority.certificate_pem())?;
        Ok(Files { directory, node, authority, identity })
    }

    /// When the node's certificate ends, Unix seconds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn certificate_expiry_s(&self) -> Result<i64> {
        let path = self.directory.join(CERTIFICATE);
        Ok(identity::expiry(&std::fs::read_to_string(&path)?)?)
    }

    /// Makes a new certificate when a third of the present one's time is left, and uses it at once.
    ///
    /// # Errors
    /// When the new one cannot be made or written; the present one stays in use.
    pub fn renew_if_due(&self, addresses: Vec<String>, now_s: i64) -> Result<bool> {
        let path = self.directory.join(CERTIFICATE);
        let left_s = self.certificate_expiry_s()? - now_s;
        let third_s = i64::try_from(identity::NODE_VALIDITY.as_secs() / 3)?;
        if left_s > third_s {
            return Ok(false);
        }
        let (request, key_pem) = identity::signing_request()?;
        let subject = Subject { cluster: self.node.cluster, node: self.node.node, addresses };
        let certificate_pem = self.authority.sign(&request, &subject)?;
        // Used before it is written: were only one of the two files new after a crash, the node
        // could not start.
        self.identity.replace(&certificate_pem, &key_pem)?;
        write(&self.directory.join(KEY), &key_pem)?;
        write(&path, &certificate_pem)?;
        Ok(true)
    }
}

/// Makes a directory that only its owner reads, and those above it, so that a crash does not undo
/// it.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().unwrap_or(Path::new("/"));
    make_directory(above)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| std::fs::File::open(above)?.sync_all())
        .with_context(|| format!("cannot make {}", path.display()))
}

/// Writes a file that only its owner reads, so that after a crash it is the old one or the new one.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let written = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.with_context(|| format!("cannot write {}", temporary.display()))?;
    std::fs::rename(&temporary, path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::File::open(directory)?.sync_all()?;
    Ok(())
}
