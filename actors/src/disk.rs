//! The disk that a directory is on.

use std::path::Path;

/// Its use, percent, as an ordinary user meets it. A disk that cannot be asked counts as empty: its
/// errors show elsewhere.
#[must_use]
pub fn used_percent(directory: &Path) -> u8 {
    let Ok(disk) = rustix::fs::statvfs(directory) else { return 0 };
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    let whole = used + disk.f_bavail;
    u8::try_from((used * 100).checked_div(whole).unwrap_or(0)).unwrap_or(100)
}

/// Whether it can take so many bytes and be less full than `percent_max`. One that cannot be asked
/// can: its errors show elsewhere.
pub(crate) fn has_room(directory: &Path, bytes: u64, percent_max: u8) -> bool {
    let Ok(disk) = rustix::fs::statvfs(directory) else { return true };
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    let whole = used + disk.f_bavail;
    let needed = bytes.div_ceil(disk.f_frsize.max(1));
    used.saturating_add(needed) <= whole / 100 * u64::from(percent_max)
}
