//! The tiny guest that real hosts of a lab execute.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;

/// What it is made of, as files. It says `GUEST-UP` on its console once it is up, and reads from its kernel's
/// arguments what else it is to do.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its kernel.
    pub kernel: PathBuf,
    /// Its initial file system.
    pub initrd: PathBuf,
    /// The same on a disk that boots by itself.
    pub disk: PathBuf,
}

impl Guest {
    /// Makes it, beside the programs. What is there already is not made again.
    ///
    /// # Errors
    /// When it cannot be made: its parts are Debian's.
    pub fn make(programs: &Path) -> Result<Guest> {
        let out = programs.join("guest");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/build");
        let made = Command::new(script).arg(&out).output().context("cannot make the guest")?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "cannot make the guest: {said}");
        let kernels = [out.join("vmlinux"), out.join("vmlinuz")];
        let kernel = kernels.into_iter().find(|path| path.exists()).context("it has no kernel")?;
        Ok(Guest { kernel, initrd: out.join("initrd.cpio"), disk: out.join("disk.raw") })
    }

    /// Makes an image of its kernel and its initial file system.
    ///
    /// # Errors
    /// With what `novacron` said, when it cannot.
    pub fn import(&self, cluster: &Cluster, image: &str) -> Result<()> {
        let (kernel, initrd) = (self.kernel.to_string_lossy(), self.initrd.to_string_lossy());
        let files = ["--kernel", &*kernel, "--initrd", &*initrd];
        cluster.novacron(0, &[&["image", "create", image], files.as_slice()].concat()).map(drop)
    }
}
