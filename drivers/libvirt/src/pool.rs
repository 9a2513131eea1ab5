//! The pools that this host sees.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, TryLockError},
};

use domain::{
    id::{PoolId, VmId},
    name::Name,
};
use drivers::{DriverError, ErrorKind, Order, pool};

/// Where pools are mounted, by name.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    directories: BTreeMap<Name, PathBuf>,
    look: Mutex<()>,
}

impl Pools {
    pub(crate) fn new(directories: Vec<(Name, PathBuf)>) -> Pools {
        Pools { directories: directories.into_iter().collect(), look: Mutex::default() }
    }

    /// Those that are mounted. One that does not answer holds one caller up and no more.
    pub(crate) fn identities(&self) -> Result<BTreeMap<Name, PoolId>, DriverError> {
        let _look = match self.look.try_lock() {
            Ok(look) => look,
            Err(TryLockError::Poisoned(look)) => look.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let message = "a pool has not answered yet";
                return Err(DriverError::new(ErrorKind::Transient, message));
            }
        };
        let mounted = self.directories.iter().filter_map(|(name, directory)| {
            match pool::identity(directory) {
                Ok(id) => Some((name.clone(), id)),
                Err(error) => {
                    tracing::warn!(%name, directory = %directory.display(), %error, "no pool is mounted");
                    None
                }
            }
        });
        Ok(mounted.collect())
    }

    /// Where the disks of a VM lie, if it has a pool: in the one that they were made in.
    pub(crate) fn directory(&self, order: &Order) -> Result<Option<PathBuf>, DriverError> {
        let Some(name) = &order.spec.pool else { return Ok(None) };
        let (directory, id) = self.mounted(name)?;
        if order.pool.is_some_and(|made| made != id) {
            let message = format!("pool {name} is here another one than the VM's disks lie in");
            return Err(DriverError::new(ErrorKind::Permanent, message));
        }
        Ok(Some(pool::directory_of(directory, order.vm)))
    }

    fn mounted(&self, name: &Name) -> Result<(&Path, PoolId), DriverError> {
        let missing = || {
            let message = format!("the host has no pool {name}");
            DriverError::new(ErrorKind::Permanent, message)
        };
        let directory = self.directories.get(name).ok_or_else(missing)?;
        let id = pool::identity(directory).map_err(|error| {
            let message = format!("pool {name} is not mounted at {}: {error}", directory.display());
            DriverError::new(ErrorKind::Transient, message)
        })?;
        Ok((directory, id))
    }

    /// Removes a VM's disks.
    pub(crate) fn discard(&self, name: &Name, vm: VmId) -> Result<(), DriverError> {
        let (directory, _) = self.mounted(name)?;
        match std::fs::remove_dir_all(pool::directory_of(directory, vm)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(crate::error::io("the VM's disks")(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether a file lies in a pool.
    pub(crate) fn has(&self, file: &Path) -> bool {
        self.directories.values().any(|directory| file.starts_with(directory))
    }
}

/// `NAME=DIRECTORY`, of which the directory must be absolute.
pub(crate) fn read(text: &str) -> Result<(Name, PathBuf), String> {
    let (name, directory) = text.split_once('=').ok_or("use NAME=DIRECTORY")?;
    let name = Name::new(name).map_err(|error| error.to_string())?;
    let directory = PathBuf::from(directory);
    if !directory.is_absolute() {
        return Err("the directory must be absolute".to_owned());
    }
    Ok((name, directory))
}
