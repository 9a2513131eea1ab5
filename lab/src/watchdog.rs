//! A watchdog of a host of its own: a file that the guard opens as it would the machine's device, and that cuts
//! the host's power when it was not written to in time. The kernel hands what is done to the file to this process,
//! ioctls too, since a file system of ours is mounted on it (FUSE, as in linux/fuse.h).

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    ioctl::{Opcode, opcode},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use crate::power;

const WDIOC_SETTIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);

/// What the device does.
#[derive(Default)]
struct Counter {
    timeout: Duration,
    /// When it was last written to; none while it does not count.
    heard: Option<Instant>,
    /// Whether the last byte said that closing it ends the counting.
    may_close: bool,
    /// How often it has cut the host's power.
    resets: usize,
}

/// A device; it is gone when dropped.
pub struct Watchdog {
    path: PathBuf,
    counter: Arc<Mutex<Counter>>,
    dropped: Arc<AtomicBool>,
}

impl Watchdog {
    /// Whether this machine lets one be made.
    #[must_use]
    pub fn is_possible() -> bool {
        Path::new("/dev/fuse").exists()
    }

    /// Makes the one of the host that lies in `host`.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn make(host: &Path) -> Result<Watchdog> {
        let path = host.join("watchdog");
        std::fs::write(&path, "")?;
        let kernel = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=100600,user_id=0,group_id=0", kernel.as_raw_fd());
        let options = std::ffi::CString::new(options)?;
        mount("watchdog", &path, "fuse", MountFlags::NOSUID | MountFlags::NODEV, &*options)
            .with_context(|| format!("cannot mount on {}", path.display()))?;
        let counter = Arc::new(Mutex::new(Counter::default()));
        let dropped = Arc::new(AtomicBool::new(false));
        let served = counter.clone();
        std::thread::spawn(move || serve(kernel, &served));
        let (watched, ended, host) = (counter.clone(), dropped.clone(), host.to_owned());
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
                if lock(&watched).fires() {
                    let _ = power::cut(&host);
                }
            }
        });
        Ok(Watchdog { path, counter, dropped })
    }

    /// Where it is opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it cuts the host's power unless it hears of somebody.
    #[must_use]
    pub fn counts(&self) -> bool {
        lock(&self.counter).heard.is_some()
    }

    pub(crate) fn resets(&self) -> usize {
        lock(&self.counter).resets
    }

    /// The host has no power any more: it does not count before it is opened again.
    pub(crate) fn power_off(&self) {
        lock(&self.counter).heard = None;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
        // Whoever still has it open finds it gone.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

fn lock(counter: &Mutex<Counter>) -> MutexGuard<'_, Counter> {
    counter.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counter {
    /// Whether it has heard of nobody for too long. It says so once.
    fn fires(&mut self) -> bool {
        let fires = self.heard.is_some_and(|heard| heard.elapsed() > self.timeout);
        if fires {
            self.heard = None;
            self.resets += 1;
        }
        fires
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.heard = Some(Instant::now());
        self.may_close = bytes.contains(&b'V');
    }

    fn answer(&mut self, call: &Call<'_>) -> Result<Vec<u8>, Errno> {
        const GETATTR: u32 = 3;
        const SETATTR: u32 = 4;
        const OPEN: u32 = 14;
        const WRITE: u32 = 16;
        const RELEASE: u32 = 18;
        const FLUSH: u32 = 25;
        const INIT: u32 = 26;
        const IOCTL: u32 = 39;
        match call.operation {
            // Version 7.31, nothing of what is offered, and 64 bytes in all.
            INIT => Ok(words(&[7, 31, 0, 0, 0, 4_096, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            GETATTR | SETATTR => Ok(attributes()),
            OPEN => {
                const DIRECT: u32 = 1;
                self.hear(&[]);
                self.timeout = Duration::from_secs(60);
                Ok(words(&[0, 0, DIRECT, 0]))
            }
            WRITE => {
                let bytes = call.body.get(40..).ok_or(Errno::INVAL)?;
                self.hear(bytes);
                Ok(words(&[u32::try_from(bytes.len()).map_err(|_| Errno::INVAL)?, 0]))
            }
            IOCTL => {
                if call.word(12)? != WDIOC_SETTIMEOUT {
                    return Err(Errno::NOTTY);
                }
                let timeout_s = call.word(32)?;
                self.timeout = Duration::from_secs(u64::from(timeout_s));
                self.hear(&[]);
                Ok(words(&[0, 0, 0, 0, timeout_s]))
            }
            RELEASE => {
                if self.may_close {
                    self.heard = None;
                }
                Ok(Vec::new())
            }
            FLUSH => Ok(Vec::new()),
            _ => Err(Errno::NOSYS),
        }
    }
}

/// What the kernel asks: `fuse_in_header`, and what follows it.
struct Call<'a> {
    operation: u32,
    unique: [u8; 8],
    body: &'a [u8],
}

impl Call<'_> {
    const HEADER_BYTES: usize = 40;

    fn read(bytes: &[u8]) -> Option<Call<'_>> {
        let operation = u32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?);
        let unique = bytes.get(8..16)?.try_into().ok()?;
        Some(Call { operation, unique, body: bytes.get(Call::HEADER_BYTES..)? })
    }

    fn word(&self, at: usize) -> Result<u32, Errno> {
        let bytes = self.body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or(Errno::INVAL)
    }
}

/// Answers the kernel until the file is gone.
fn serve(mut kernel: File, counter: &Mutex<Counter>) {
    let mut buffer = vec![0; 1 << 16];
    // One that was interrupted before it was read is asked for again.
    while let Some(bytes) = read(&mut kernel, &mut buffer) {
        let Some(call) = Call::read(bytes) else { return };
        if is_silent(call.operation) {
            continue;
        }
        let (error, said) = match lock(counter).answer(&call) {
            Ok(said) => (0, said),
            Err(error) => (-error.raw_os_error(), Vec::new()),
        };
        let length = u32::try_from(16 + said.len()).unwrap_or(u32::MAX);
        let head = [length.to_ne_bytes(), error.to_ne_bytes()].concat();
        // One that nobody waits for any more is none of ours.
        let _ = kernel.write_all(&[&*head, &call.unique, &said].concat());
    }
}

fn read<'a>(kernel: &mut File, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    loop {
        match kernel.read(buffer) {
            Ok(count) => return buffer.get(..count),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => return None,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BADF) => return None,
            Err(_) => {}
        }
    }
}

/// Whether nobody waits for an answer: what is forgotten or interrupted.
fn is_silent(operation: u32) -> bool {
    matches!(operation, 2 | 36 | 42)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `fuse_attr_out` of a file with nothing in it that only root may use.
fn attributes() -> Vec<u8> {
    const MODE: usize = 4 + 15;
    const LINKS: usize = MODE + 1;
    let mut out = vec![0; 26];
    out[4] = 1;
    (out[MODE], out[LINKS]) = (0o100_600, 1);
    words(&out)
}
