//! The system's programs that a lab uses.

use std::{ffi::OsString, path::PathBuf};

/// Where programs are looked for: an ordinary user's path has no directories for root.
pub(crate) fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// Where a program is, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path()).map(|at| at.join(program)).find(|at| at.exists())
}

/// Says which of these programs is not installed.
pub(crate) fn require(programs: &[&str]) -> Result<(), String> {
    match programs.iter().find(|program| find(program).is_none()) {
        None => Ok(()),
        Some(missing) => Err(format!("{missing} is not installed; `scripts/packages` installs it")),
    }
}
