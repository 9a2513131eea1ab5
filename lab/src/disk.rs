//! A disk of a node's own, whose power can be cut: a file with an ext4 in it, mounted.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::{
    io::Errno,
    ioctl::{Opcode, Setter, ioctl, opcode},
};

use crate::programs;

/// Why this machine cannot have such disks, if it cannot.
///
/// # Errors
/// The reason in a sentence.
pub fn is_possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("disks of one's own need root, to mount them".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("disks of one's own need /dev/loop-control".to_owned());
    }
    programs::require(&["mkfs.ext4", "mount", "fsfreeze"])
}

/// A mounted disk; unmounted when dropped.
pub(crate) struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

const BYTES: u64 = 1 << 30;

/// How long it may take until nobody uses it any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Written until the power is gone and never synced; a disk that has all of it was not cut.
const WITNESS: &str = "witness";

/// What fills a disk.
const BALLAST: &str = "ballast";

impl Disk {
    /// Makes a disk and mounts it on a new directory.
    pub(crate) fn make(image: &Path, mount: &Path) -> Result<Disk> {
        std::fs::create_dir_all(mount)?;
        // Sparse: it takes what is written.
        File::create(image)?.set_len(BYTES)?;
        tool(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image))?;
        let disk = Disk { image: image.to_owned(), mount: mount.to_owned() };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        tool(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    /// Unmounts it as soon as those who have ended have let go of it.
    fn unmount(&self) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = tool(Command::new("umount").arg(&self.mount)) {
            if begun.elapsed() > PATIENCE {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until the kernel has let go of the file system: mounted again before, it would still be
    /// what it was in memory.
    fn await_detached(&self) -> Result<()> {
        let begun = Instant::now();
        while self.is_attached()? {
            ensure!(begun.elapsed() < PATIENCE, "{} stays mounted somewhere", self.mount.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn is_attached(&self) -> Result<bool> {
        let devices = std::fs::read_dir("/sys/block")?.flatten();
        let files = devices.filter_map(|device| {
            std::fs::read_to_string(device.path().join("loop/backing_file")).ok()
        });
        Ok(files.into_iter().any(|file| Path::new(file.trim_end()) == self.image))
    }

    /// Writes to the disk until so much of it is used, percent; 100 is until it takes no more. The answer is
    /// whether it took no more.
    pub(crate) fn fill(&self, percent: u64) -> Result<bool> {
        let usage = rustix::fs::statvfs(&self.mount)?;
        let block = usage.f_frsize;
        let wanted = usage.f_blocks * percent / 100;
        let left = wanted.saturating_sub(usage.f_blocks - usage.f_bfree) * block;
        let mut file = File::options().create(true).append(true).open(self.mount.join(BALLAST))?;
        // Most of it is only taken, and not written.
        let most = left / 16 * 15;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, most)?;
        file.seek(std::io::SeekFrom::End(0))?;
        let left = left - most;
        let left = if percent == 100 { u64::MAX } else { left };
        let written = std::io::copy(&mut std::io::repeat(0xA5).take(left), &mut file);
        match written {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(true),
            written => Ok(written.map(|_| false)?),
        }
    }

    /// Takes away again what [`Disk::fill`] wrote.
    pub(crate) fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.mount.join(BALLAST))?)
    }

    /// Has every write to the disk wait. The answer is one that does.
    pub(crate) fn freeze(&self) -> Result<Waiting> {
        tool(Command::new("fsfreeze").arg("-f").arg(&self.mount))?;
        let witness = self.mount.join(WITNESS);
        let writes = std::thread::spawn(move || {
            let begun = Instant::now();
            let written =
                std::fs::write(&witness, b"w").and_then(|()| std::fs::remove_file(&witness));
            written.map(|()| begun.elapsed())
        });
        Ok(Waiting(writes))
    }

    /// Lets writes go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        tool(Command::new("fsfreeze").arg("-u").arg(&self.mount))
    }

    /// Cuts the power and gives it back: what was not synced is gone. Nothing may use the disk: a
    /// sync that is under way could be answered and not be durable. The answer is how many bytes of
    /// the witness were lost.
    pub(crate) fn cut_power(&self) -> Result<u64> {
        let witness = self.mount.join(WITNESS);
        let file = File::create(&witness)?;
        let writer = std::thread::spawn(move || write_while_possible(file));
        // So that there is something to lose.
        while std::fs::metadata(&witness)?.len() == 0 && !writer.is_finished() {
            std::thread::yield_now();
        }
        go_down(&File::open(&self.mount)?).context("cannot cut the power")?;
        let written = writer.join().map_err(|_| anyhow!("the witness' writer has panicked"))?;
        self.unmount()?;
        self.await_detached()?;
        self.mount()?;
        let kept = std::fs::metadata(&witness).map_or(0, |metadata| metadata.len());
        let lost = written.saturating_sub(kept);
        ensure!(lost > 0, "the power of {} was not cut: nothing was lost", self.mount.display());
        if kept > 0 {
            std::fs::remove_file(&witness)?;
        }
        Ok(lost)
    }
}

/// A write to a frozen disk.
#[must_use]
pub struct Waiting(std::thread::JoinHandle<std::io::Result<Duration>>);

impl Waiting {
    /// How long it has waited, once the disk was thawed: the proof that it was frozen.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn end(self) -> Result<Duration> {
        Ok(self.0.join().map_err(|_| anyhow!("the witness' writer has panicked"))??)
    }
}

/// Writes until the disk refuses; the answer is how many bytes it took.
fn write_while_possible(mut file: File) -> u64 {
    let chunk = [0xA5; 64 << 10];
    let mut written = 0;
    while written < BYTES / 4
        && let Ok(count) = file.write(&chunk)
    {
        written += count as u64;
    }
    written
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = tool(Command::new("umount").arg(&self.mount));
    }
}

/// Stops a file system where it is, without writing its journal out.
#[allow(unsafe_code, reason = "the ioctl has no safe wrapper")]
fn go_down(root: &File) -> Result<(), Errno> {
    const EXT4_IOC_SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
    const WITHOUT_JOURNAL: u32 = 2;
    // SAFETY: the kernel reads one u32 for this opcode, and the setter holds one.
    unsafe { ioctl(root, Setter::<EXT4_IOC_SHUTDOWN, u32>::new(WITHOUT_JOURNAL)) }
}

/// Runs one of the system's tools.
pub(crate) fn tool(command: &mut Command) -> Result<()> {
    let command = command.env("PATH", programs::path());
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
