//! The guests that real hosts of a lab execute.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use domain::limit::IMAGE_COPIES;

use crate::cluster::{Cluster, PATIENCE};

/// The tiny guest, as files. It says `GUEST-UP` on its console once it is up, and reads from its kernel's
/// arguments what else it is to do.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its kernel.
    pub kernel: PathBuf,
    /// Its initial file system.
    pub initrd: PathBuf,
    /// The same on a disk that boots by itself, where syslinux and mtools are installed.
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

    /// Makes an image of its kernel and its initial file system, and waits until it has the copies that the cluster keeps:
    /// a node that is lost before takes the only one along.
    ///
    /// # Errors
    /// With what `novacron` said, when it cannot; when there are no copies after a minute.
    pub fn import(&self, cluster: &Cluster, image: &str) -> Result<()> {
        let (kernel, initrd) = (self.kernel.to_string_lossy(), self.initrd.to_string_lossy());
        let files = ["--kernel", &*kernel, "--initrd", &*initrd];
        cluster.novacron(0, &[&["image", "create", image], files.as_slice()].concat())?;
        let (copies, begun) = (cluster.access.endpoints.len().min(IMAGE_COPIES), Instant::now());
        loop {
            let shown = cluster.novacron(0, &["image", "get", image, "-o", "json"])?;
            let shown: serde_json::Value = serde_json::from_str(&shown)?;
            let holders = shown["holders"].as_array().map_or(0, Vec::len);
            if holders >= copies {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{image} has {holders} of {copies} copies");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// A kernel for a guest that only waits for the clock, 18 times a second: it executes as soon as it is loaded, and is
/// hardly any work for this machine.
///
/// It looks like Linux, of which a loader first runs some code in real mode, where the firmware's interrupts still work: this one
/// never leaves it.
#[must_use]
pub fn idle_kernel() -> Vec<u8> {
    const SECTOR: usize = 512;
    /// Where the header says how many sectors of code for real mode follow the first one.
    const SETUP_SECTORS: usize = 0x1f1;
    const CODE: usize = 0x23c;
    // The first sector, one of code, and one that would be the kernel.
    let mut kernel = vec![0; 3 * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| kernel[at..at + bytes.len()].copy_from_slice(bytes);
    put(SETUP_SECTORS, &[1]);
    put(SECTOR - 2, &[0x55, 0xaa]);
    // jmp CODE; the rest of the header: that it is one, its version 2.3, and that the kernel lies high.
    put(SECTOR, &[0xeb, 0x3a]);
    put(SECTOR + 2, b"HdrS\x03\x02");
    put(0x211, &[1]);
    // sti; hlt; jmp back to hlt.
    put(CODE, &[0xfb, 0xf4, 0xeb, 0xfd]);
    kernel
}
