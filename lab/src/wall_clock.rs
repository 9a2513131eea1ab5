//! The wall clock of a node's process, which can be moved while it runs. The clock that leases go by is
//! another one, and stays.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// Where Debian has the library that stands before the system's clock.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Why this machine cannot have such clocks, if it cannot.
///
/// # Errors
/// The reason in a sentence.
pub fn is_possible() -> Result<(), String> {
    let there = Path::new(LIBRARY).exists();
    if there { Ok(()) } else { Err(format!("clocks that can be moved need {LIBRARY}")) }
}

/// The environment of a process for which no time passes, on whichever clock.
///
/// # Errors
/// As [`is_possible`].
pub fn stopped_clocks() -> Result<[(&'static str, &'static str); 2], String> {
    is_possible()?;
    Ok([("LD_PRELOAD", LIBRARY), ("FAKETIME", "2027-01-01 00:00:00")])
}

/// Removes what the library leaves of a process that is killed: memory that it would have shared.
pub(crate) fn sweep(pid: u32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(name));
    }
}

/// A clock.
#[derive(Debug)]
pub(crate) struct WallClock {
    /// What the library reads whenever the time is asked for.
    file: PathBuf,
}

impl WallClock {
    /// One that is right.
    pub(crate) fn make(directory: &Path) -> Result<WallClock> {
        let clock = WallClock { file: directory.join("wall-clock") };
        clock.set(0)?;
        Ok(clock)
    }

    /// Moves it, to so many seconds off the right time.
    pub(crate) fn set(&self, off_s: i64) -> Result<()> {
        // In one step: the library may be reading.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{off_s:+}"))?;
        Ok(std::fs::rename(new, &self.file)?)
    }

    /// How a process is given it.
    pub(crate) fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", LIBRARY.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_string_lossy().into_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}
