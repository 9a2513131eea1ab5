//! Where a lab lies.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{disk, down};

/// The directory in which all of a lab lies; removed when dropped.
pub(crate) struct Root {
    directory: tempfile::TempDir,
    is_shared: bool,
}

impl Root {
    pub(crate) fn make() -> Result<Root> {
        // Short: QEMU's sockets lie in it.
        let root = tempfile::Builder::new().prefix("nc").tempdir_in("/tmp")?;
        std::fs::write(root.path().join(down::OWNER), std::process::id().to_string())?;
        Ok(Root { directory: root, is_shared: false })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Lets those who have mounts of their own see what is mounted in it from now on, and what is no more.
    pub(crate) fn share(&mut self) -> Result<()> {
        let path = self.path();
        disk::tool(Command::new("mount").arg("--bind").args([path, path]))?;
        self.is_shared = true;
        disk::tool(Command::new("mount").arg("--make-shared").arg(self.path()))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if self.is_shared {
            // Lazily: somebody may still end.
            let _ = disk::tool(Command::new("umount").arg("--lazy").arg(self.path()));
        }
    }
}
