//! Pools: directories that several hosts see. What makes a directory one is a file with the pool's identity,
//! which is made once and on purpose: a file system that is not mounted is never taken for its pool.

use std::{
    io::{Error, ErrorKind, Result, Write},
    path::{Path, PathBuf},
};

use domain::id::{PoolId, VmId};
use newtype_uuid::GenericUuid;

const MARK: &str = "novacron-pool";

/// Makes a directory a pool; one that is one already stays the same.
///
/// # Errors
/// When the directory cannot be written.
pub fn make(directory: &Path) -> Result<PoolId> {
    let id = PoolId::from_untyped_uuid(uuid::Uuid::now_v7());
    let draft = directory.join(format!("{MARK}.{id}"));
    let mut file = std::fs::File::create_new(&draft)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    // Of two who make it at one time the first one wins.
    let made = std::fs::hard_link(&draft, directory.join(MARK));
    std::fs::remove_file(&draft)?;
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => identity(directory),
    }
}

/// The identity of the pool that a directory is.
///
/// # Errors
/// [`ErrorKind::NotFound`] when it is none, as when it is not mounted.
pub fn identity(directory: &Path) -> Result<PoolId> {
    let text = std::fs::read_to_string(directory.join(MARK))?;
    let damaged = |_| Error::new(ErrorKind::InvalidData, format!("{MARK} in it is damaged"));
    text.trim().parse().map_err(damaged)
}

/// Where a VM's disks lie in a pool.
#[must_use]
pub fn directory_of(pool: &Path, vm: VmId) -> PathBuf {
    pool.join("vms").join(vm.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_a_pool_once_it_was_made_one() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(identity(directory.path()).unwrap_err().kind(), ErrorKind::NotFound);
        let id = make(directory.path()).unwrap();
        assert_eq!(make(directory.path()).unwrap(), id);
        assert_eq!(identity(directory.path()).unwrap(), id);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        std::fs::write(directory.path().join(MARK), "?").unwrap();
        assert_eq!(identity(directory.path()).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
