//! The data directory of one node.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::Write as _,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use domain::{codec, id::StoreId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::DamageError;

/// Says that a directory was in use. It stands beside the log so that a log that has vanished is
/// never taken for one that has not begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marker {
    /// The identity of the directory.
    pub(crate) store: StoreId,
    /// Whether the log holds something.
    pub(crate) begun: bool,
    /// How often the directory was opened: peers refuse an older process of the same node.
    pub(crate) boots: u64,
}

/// An open data directory; locked while it lives.
pub(crate) struct Directory {
    root: PathBuf,
    pub(crate) marker: Marker,
    _lock: File,
}

impl Directory {
    /// Opens `root`, which is made if it does not exist; `fresh` is its identity if it is new.
    pub(crate) fn open(root: &Path, fresh: StoreId) -> Result<Directory, DamageError> {
        let make = |path: &Path| {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(DamageError::io(path))
        };
        make(root)?;
        for name in ["log", "snapshot", "state"] {
            make(&root.join(name))?;
        }
        let lock = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(DamageError::io(&lock))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| DamageError::InUse { directory: root.to_owned() })?;
        sync(root)?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync(parent)?;
        }
        let marker = match std::fs::read(root.join("marker")) {
            Ok(bytes) => codec::decode(&bytes).map_err(|error| DamageError::Damaged {
                file: root.join("marker"),
                offset: 0,
                what: error.to_string(),
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Marker { store: fresh, begun: false, boots: 0 }
            }
            Err(error) => return Err(DamageError::io(&root.join("marker"))(error)),
        };
        let mut directory = Directory { root: root.to_owned(), marker, _lock: lock };
        directory.marker.boots += 1;
        directory.write_marker()?;
        Ok(directory)
    }

    /// Notes that the log holds something from now on.
    pub(crate) fn begin(&mut self) -> Result<(), DamageError> {
        if self.marker.begun {
            return Ok(());
        }
        self.marker.begun = true;
        self.write_marker()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshot")
    }

    pub(crate) fn copy(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn write_marker(&self) -> Result<(), DamageError> {
        write_whole(&self.root.join("marker"), &codec::encode(&self.marker))
    }
}

/// Writes a small file so that after a crash it is the old one or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DamageError> {
    let temporary = path.with_extension("tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(DamageError::io(&temporary))?;
    std::fs::rename(&temporary, path).map_err(DamageError::io(path))?;
    sync(path.parent().unwrap_or(Path::new("/")))
}

fn sync(directory: &Path) -> Result<(), DamageError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(DamageError::io(directory))
}
