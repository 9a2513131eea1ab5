//! The durable record of each body: above all the highest fence seen. It outlives the body, so that
//! a call that was under way for long cannot bring a released body back.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use domain::{Fence, id::VmId, instance::Ended};
use drivers::{DriverError, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::{error::io, process::Process};

/// What must be known of a body whatever libvirt remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) fence: Fence,
    /// The generation of the spec it was started with.
    pub(crate) generation: Option<u32>,
    pub(crate) starts: u32,
    pub(crate) reboots: u32,
    /// How it ended, where libvirt would say it otherwise or forget it.
    pub(crate) ended: Option<Ended>,
    pub(crate) released: bool,
    /// It was made to receive a guest, which has not been let go on yet.
    pub(crate) receiving: bool,
    /// Its guest is being sent away, or was.
    pub(crate) sending: bool,
    /// What is sent are the disks of a body at rest: its QEMU was started for that, and never executes.
    pub(crate) at_rest: bool,
    /// What executed the guest when it began to be sent.
    pub(crate) process: Option<Process>,
}

/// The records of one host.
pub(crate) struct Records(PathBuf);

impl Records {
    pub(crate) fn open(state: &Path) -> std::io::Result<Records> {
        let directory = state.join("records");
        std::fs::create_dir_all(&directory)?;
        Ok(Records(directory))
    }

    fn path(&self, id: VmId) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    pub(crate) fn read(&self, id: VmId) -> Result<Option<Record>, DriverError> {
        match std::fs::read(self.path(id)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                // Without the fence nobody may act on the body: better no call than a stale one.
                let message = format!("the record of {id} is damaged: {error}");
                DriverError::new(ErrorKind::Permanent, message)
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("the record")(error)),
        }
    }

    /// Checks the fence and raises it, on the disk, before anything is done under it.
    pub(crate) fn claim(&self, id: VmId, fence: Fence) -> Result<Record, DriverError> {
        let known = self.read(id)?;
        let mut record = known.clone().unwrap_or_default();
        if fence < record.fence && !guard::is_broken("ignore-fence") {
            let message = format!("fence {fence} is below {}, which was seen", record.fence);
            return Err(DriverError::new(ErrorKind::Fenced, message));
        }
        if known.is_none() || fence > record.fence {
            record.fence = fence;
            self.write(id, &record)?;
        }
        Ok(record)
    }

    /// The same for calls that make something: a late one must not bring back what was released
    /// under its own fence.
    pub(crate) fn claim_to_make(&self, id: VmId, fence: Fence) -> Result<Record, DriverError> {
        let known = self.read(id)?.unwrap_or_default();
        if !known.released {
            return self.claim(id, fence);
        }
        if fence <= known.fence && !guard::is_broken("ignore-fence") {
            let message = format!("the body was released under fence {}", known.fence);
            return Err(DriverError::new(ErrorKind::Fenced, message));
        }
        // One write: a fence that was raised beside the old end would refuse its own call.
        let record = Record { fence, ..Record::default() };
        self.write(id, &record)?;
        Ok(record)
    }

    pub(crate) fn write(&self, id: VmId, record: &Record) -> Result<(), DriverError> {
        let path = self.path(id);
        let temporary = path.with_extension("tmp");
        let text = serde_json::to_vec(record).map_err(|error| {
            DriverError::new(ErrorKind::Permanent, format!("the record of {id}: {error}"))
        })?;
        let written = File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(&text)?;
                file.sync_data()
            })
            .and_then(|()| std::fs::rename(&temporary, &path))
            .and_then(|()| File::open(&self.0)?.sync_all());
        written.map_err(io("the record"))
    }

    /// The bodies that are ours.
    pub(crate) fn all(&self) -> Result<Vec<VmId>, DriverError> {
        let files = std::fs::read_dir(&self.0).map_err(io("the records"))?;
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_only_rises_and_outlives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let id = VmId::from_u128(7);
        let fence = |index| Fence::new(1, index);
        let records = Records::open(directory.path()).unwrap();
        records.claim(id, fence(5)).unwrap();
        records.claim(id, fence(5)).unwrap();
        records.claim(id, fence(6)).unwrap();
        let records = Records::open(directory.path()).unwrap();
        let refused = records.claim(id, fence(5)).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Fenced);
        assert_eq!(records.all().unwrap(), [id]);
        let released = Record { fence: fence(6), released: true, ..Record::default() };
        records.write(id, &released).unwrap();
        records.claim(id, fence(6)).unwrap();
        assert_eq!(records.claim_to_make(id, fence(6)).unwrap_err().kind, ErrorKind::Fenced);
        // Made again under a newer fence, as often as it takes.
        records.claim_to_make(id, fence(7)).unwrap();
        records.claim_to_make(id, fence(7)).unwrap();
        std::fs::write(records.path(id), "{").unwrap();
        assert_eq!(records.claim(id, fence(9)).unwrap_err().kind, ErrorKind::Permanent);
    }
}
