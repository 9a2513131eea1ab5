//! The watchdog: a device that resets the machine when it has not heard of the guard for a while. It covers
//! what the guard cannot: a guard that stands still, and a guest that does not end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use guard::WATCHDOG;
use rustix::{
    io::Errno,
    ioctl::{Opcode, Updater, ioctl, opcode},
};

/// A device that counts.
pub(crate) struct Watchdog(File);

impl Watchdog {
    /// Opens it, which has it count, and sees that it takes the time.
    pub(crate) fn open(path: &Path) -> Result<Watchdog> {
        let opened = OpenOptions::new().write(true).open(path);
        let device = opened.with_context(|| format!("cannot open {}", path.display()))?;
        let watchdog = Watchdog(device);
        let taken = watchdog.try_out();
        if taken.is_err() {
            // What is not relied on must not reset anybody.
            let _ = watchdog.disarm();
        }
        taken.with_context(|| format!("{} is no watchdog for this", path.display()))?;
        Ok(watchdog)
    }

    fn try_out(&self) -> Result<()> {
        let wanted_s = i32::try_from(WATCHDOG.as_secs())?;
        let timeout_s = set_timeout(&self.0, wanted_s).context("it takes no timeout")?;
        ensure!(timeout_s == wanted_s, "it makes {timeout_s} s of {wanted_s} s");
        Ok(self.pet()?)
    }

    /// Has it count anew.
    pub(crate) fn pet(&self) -> io::Result<()> {
        (&self.0).write_all(b"\0")
    }

    /// Has it count no more once it is closed.
    pub(crate) fn disarm(&self) -> io::Result<()> {
        (&self.0).write_all(b"V")
    }
}

/// The answer is what the device made of it.
#[allow(unsafe_code, reason = "the ioctl has no safe wrapper")]
fn set_timeout(device: &File, mut timeout_s: i32) -> Result<i32, Errno> {
    const WDIOC_SETTIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);
    // SAFETY: for this opcode the kernel reads and writes one int, and the updater holds one.
    unsafe { ioctl(device, Updater::<WDIOC_SETTIMEOUT, i32>::new(&mut timeout_s))? };
    Ok(timeout_s)
}
