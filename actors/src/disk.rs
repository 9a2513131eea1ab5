//! The disk that a directory is on, as an ordinary user meets it: what is kept for root counts nowhere.

use std::path::Path;

/// What a disk has, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// What can still be written.
    pub free_bytes: u64,
    /// That and what is used.
    pub whole_bytes: u64,
}

impl Disk {
    /// That of a directory, if it can be asked.
    #[must_use]
    pub fn of(directory: &Path) -> Option<Disk> {
        let disk = rustix::fs::statvfs(directory).ok()?;
        let used = disk.f_blocks.saturating_sub(disk.f_bfree);
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Some(Disk {
            free_bytes: bytes(disk.f_bavail),
            whole_bytes: bytes(used.saturating_add(disk.f_bavail)),
        })
    }

    fn used_bytes(self) -> u64 {
        self.whole_bytes - self.free_bytes
    }
}

/// Its use, percent. A disk that cannot be asked counts as empty: its errors show elsewhere.
#[must_use]
pub fn used_percent(directory: &Path) -> u8 {
    let Some(disk) = Disk::of(directory) else { return 0 };
    let percent = u128::from(disk.used_bytes()) * 100;
    let percent = percent.checked_div(disk.whole_bytes.into()).unwrap_or(0);
    u8::try_from(percent).unwrap_or(100)
}

/// Whether it can take so many bytes and be less full than `percent_max`. One that cannot be asked
/// can: its errors show elsewhere.
pub(crate) fn has_room(directory: &Path, bytes: u64, percent_max: u8) -> bool {
    let Some(disk) = Disk::of(directory) else { return true };
    disk.used_bytes().saturating_add(bytes) <= disk.whole_bytes / 100 * u64::from(percent_max)
}
