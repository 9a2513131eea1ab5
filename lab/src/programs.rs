//! The system's programs that a lab uses.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Where programs are looked for: an ordinary user's path has no directories for root.
pub(crate) fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// Says which of these programs is not installed.
pub(crate) fn require(programs: &[&str]) -> Result<(), String> {
    let path = path();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = |program: &&&str| directories.iter().any(|at| at.join(Path::new(program)).exists());
    match programs.iter().find(|program| !found(program)) {
        None => Ok(()),
        Some(missing) => Err(format!("{missing} is not installed; `scripts/packages` installs it")),
    }
}
