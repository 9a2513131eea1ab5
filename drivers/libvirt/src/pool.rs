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

    /// Where the disks of a VM lie, if it has a pool.
    pub(crate) fn directory(&self, order: &Order) -> Result<Option<PathBuf>, DriverError> {
        let Some(name) = &order.spec.pool else { return Ok(None) };
        let id = order.pool.ok_or_else(|| {
            DriverError::new(ErrorKind::Protocol, format!("it is not said which pool {name} is"))
        })?;
        Ok(Some(pool::directory_of(self.mounted(name, id)?, order.vm)))
    }

    /// Where a pool is mounted, if it is the one meant.
    fn mounted(&self, name: &Name, id: PoolId) -> Result<&Path, DriverError> {
        let failed = |message: String| DriverError::new(ErrorKind::Transient, message);
        let missing = || failed(format!("the host has no pool {name}"));
        let directory = self.directories.get(name).ok_or_else(missing)?;
        let there = pool::identity(directory).map_err(|error| {
            failed(format!("pool {name} is not mounted at {}: {error}", directory.display()))
        })?;
        if there != id {
            return Err(failed(format!(
                "pool {name} is here another one than that of the VM's disks"
            )));
        }
        Ok(directory)
    }

    /// Removes a VM's disks.
    pub(crate) fn discard(&self, name: &Name, id: PoolId, vm: VmId) -> Result<(), DriverError> {
        let directory = self.mounted(name, id)?;
        match std::fs::remove_dir_all(pool::directory_of(directory, vm)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(crate::error::io("the VM's disks")(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
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
