//! What drivers are told and what they tell.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use domain::{
    Fence,
    host::Capacity,
    id::{BootId, Digest, PoolId, VmId},
    image::{Image, Part},
    instance::Body,
    name::Name,
    vm::VmSpec,
};

use crate::{DriverError, ErrorKind};

/// All that is needed to make or start a body.
#[derive(Clone, Debug)]
pub struct Order {
    /// The VM; its body on the host goes by this id, and there is one at most.
    pub vm: VmId,
    /// The fence under which this is ordered.
    pub fence: Fence,
    /// The fence of the host's lease under which this was decided. A call that was under way for longer
    /// than the lease starts nothing.
    pub lease: Fence,
    /// The VM's project, for people who look at the hypervisor.
    pub project: Name,
    /// The VM's name, for the same.
    pub name: Name,
    /// What it is to be like.
    pub spec: Arc<VmSpec>,
    /// The generation of `spec`.
    pub generation: u32,
    /// Reboots the guest has had, when it comes from elsewhere.
    pub reboots: u32,
    /// What it boots from.
    pub image: Arc<Image>,
    /// The pool in which its disks lie, if they lie in one.
    pub pool: Option<PoolId>,
    /// Whether they were made there: they are not made again.
    pub disks_made: bool,
    /// Where the image's files lie on this machine. They are read and never written.
    pub files: BTreeMap<Digest, PathBuf>,
}

impl Order {
    /// The image's file that is one of these parts, if it has one.
    ///
    /// # Errors
    /// When the file is not on this machine.
    pub fn file(&self, wanted: &[Part]) -> Result<Option<(&Path, Part)>, DriverError> {
        let Some(file) = self.image.files.iter().find(|file| wanted.contains(&file.part)) else {
            return Ok(None);
        };
        let missing = || {
            let part = file.part.as_str();
            let message = format!("the {part} of image {} is not here", self.image.name);
            DriverError::new(ErrorKind::NotFound, message)
        };
        let path = self.files.get(&file.sha256).ok_or_else(missing)?;
        Ok(Some((path, file.part)))
    }
}

/// What is there of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The VM whose body it is.
    pub vm: VmId,
    /// The highest fence seen for it.
    pub fence: Fence,
    /// What is there.
    pub body: Body,
    /// The generation of the spec it was started with, while that is known.
    pub generation: Option<u32>,
    /// Reboots it has had on request.
    pub reboots: u32,
    /// Starts it has had.
    pub starts: u32,
}

/// What a guest has used since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time of all CPUs, nanoseconds.
    pub cpu_ns: u64,
    /// Memory that the host holds for it, MiB.
    pub memory_mib: u64,
    /// Read from its disks, bytes.
    pub disk_read_bytes: u64,
    /// Written to its disks, bytes.
    pub disk_written_bytes: u64,
    /// Received over its network cards, bytes.
    pub network_received_bytes: u64,
    /// Sent over its network cards, bytes.
    pub network_sent_bytes: u64,
}

/// A domain that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its name on the hypervisor.
    pub name: String,
    /// Its id there.
    pub uuid: String,
    /// Whether it runs.
    pub running: bool,
}

/// Most domains that are not ours that a driver names.
pub const FOREIGN_MAX: usize = 1_000;

/// What a host is and has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The driver's kind: `libvirt`, `simulator`.
    pub kind: Name,
    /// What the machine has; CPUs times its overcommit.
    pub capacity: Capacity,
    /// The present boot of what runs bodies. A newer one proves that older bodies ended.
    pub boot: BootId,
    /// Domains that are not ours.
    pub foreign: u32,
    /// The socket of the guard that the driver asks before a guest executes, if that is a process of its
    /// own.
    pub guard: Option<PathBuf>,
}
