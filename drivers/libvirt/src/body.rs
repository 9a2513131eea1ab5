//! What is done to one body. Everything here blocks, and runs under the body's own lock.

use std::path::PathBuf;

use domain::{
    Fence,
    id::VmId,
    image::Part,
    instance::{Body, Ended},
};
use drivers::{DriverError, ErrorKind, Order};
use virt::{domain::Domain, sys};

use crate::{
    disk,
    error::{io, is_missing, libvirt},
    host::Inner,
    nat, observe,
    process::Process,
    record::Record,
    xml::{self, Parts},
};

impl Inner {
    pub(crate) fn directory(&self, id: VmId) -> PathBuf {
        self.bodies.join(id.to_string())
    }

    /// The domain, if libvirt knows it.
    pub(crate) fn find(&self, id: VmId) -> Result<Option<Domain>, DriverError> {
        let connect = self.connect()?;
        match connect.lookup_domain_by_uuid_string(&id.to_string()) {
            Ok(domain) => Ok(Some(domain)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    pub(crate) fn existing(&self, id: VmId) -> Result<Domain, DriverError> {
        let missing = || DriverError::new(ErrorKind::NotFound, format!("there is no domain {id}"));
        self.find(id)?.ok_or_else(missing)
    }

    /// What there is of a body; ends a guest that was left standing.
    pub(crate) fn look(&self, id: VmId, record: &mut Record) -> Result<Body, DriverError> {
        let Some(domain) = self.find(id)? else { return self.remains(id, record) };
        let seen = observe::body(&domain, record).map_err(|error| self.failed(&error))?;
        if seen.left_standing && record.at_rest {
            if !self.is_sending(id, &domain)? {
                self.stop_sending_disks(id, &domain, record)?;
            }
        } else if seen.left_standing {
            record.ended = Some(Ended::Crashed);
            self.records.write(id, record)?;
            domain.destroy().map_err(|error| self.failed(&error))?;
        }
        Ok(seen.body)
    }

    /// What there is of a body, and nothing is done about it.
    pub(crate) fn glance(&self, id: VmId, record: &Record) -> Result<Body, DriverError> {
        let Some(domain) = self.find(id)? else { return self.remains(id, record) };
        observe::body(&domain, record).map(|seen| seen.body).map_err(|error| self.failed(&error))
    }

    /// What there is of a body that libvirt does not know.
    fn remains(&self, id: VmId, record: &Record) -> Result<Body, DriverError> {
        if record.process.is_some_and(Process::is_alive) {
            let message = "libvirt does not know the guest any more, and it still executes";
            return Err(DriverError::new(ErrorKind::Transient, message));
        }
        // libvirt forgets a domain by itself only when it knows that its guest has arrived.
        Ok(if record.sending {
            Body::Stopped(Ended::Migrated)
        } else if record.receiving && self.directory(id).exists() {
            Body::Ready
        } else {
            Body::Absent
        })
    }

    pub(crate) fn prepare(&self, order: &Order) -> Result<(), DriverError> {
        let record = self.records.claim_to_make(order.vm, order.fence)?;
        // What was sent away or never came has left disks, and nothing else that counts.
        if record.sending || record.receiving {
            let record = Record { fence: record.fence, ..Record::default() };
            self.records.write(order.vm, &record)?;
        }
        let parts = self.parts(order)?;
        if self.find(order.vm)?.is_none() {
            self.define(order, &parts)?;
        }
        Ok(())
    }

    /// Everything the body is made of, on this host.
    pub(crate) fn parts(&self, order: &Order) -> Result<Parts, DriverError> {
        let directory = self.directory(order.vm);
        std::fs::create_dir_all(&directory).map_err(io("the body's directory"))?;
        let kernel = order.file(&[Part::Kernel])?;
        let initrd = order.file(&[Part::Initrd])?;
        let base = order.file(&[Part::Qcow2, Part::Raw])?;
        if kernel.is_none() && base.is_none() {
            let name = &order.image.name;
            let message = format!("image {name} has no bytes; it is for simulated hosts");
            return Err(DriverError::new(ErrorKind::Permanent, message));
        }
        Ok(Parts {
            kernel: kernel.map(|(path, _)| path.to_owned()),
            initrd: initrd.map(|(path, _)| path.to_owned()),
            disks: match self.pools.directory(order)? {
                Some(pool) => disk::ensure_in_pool(order, &pool, base)?,
                None => disk::ensure(order, &directory, base)?,
            },
            seed: disk::ensure_seed(order, &directory)?,
            directory,
        })
    }

    fn define(&self, order: &Order, parts: &Parts) -> Result<Domain, DriverError> {
        let text = xml::domain(order, parts, &self.virt_type)?;
        let connect = self.connect()?;
        connect.define_domain_xml(&text).map_err(|error| self.failed(&error))
    }

    pub(crate) fn start(&self, order: &Order) -> Result<(), DriverError> {
        let id = order.vm;
        let mut record = self.records.claim_to_make(id, order.fence)?;
        self.existing(id)?;
        match self.look(id, &mut record)? {
            Body::Running => return Ok(()),
            Body::Paused | Body::Incoming | Body::Arrived => {
                return Err(DriverError::new(ErrorKind::Conflict, "the guest is paused"));
            }
            Body::Absent | Body::Ready | Body::Stopped(_) => {}
        }
        if record.at_rest && self.existing(id)?.is_active().map_err(|error| self.failed(&error))? {
            return Err(DriverError::new(ErrorKind::Conflict, "its disks are being sent"));
        }
        if order.spec.nics.iter().any(|nic| nic.network == domain::vm::Network::Nat) {
            self.ensure_nat()?;
        }
        // Defined anew with the newest spec; never created from XML, since a late creation must
        // fail when the definition is gone.
        let parts = self.parts(order)?;
        let domain = self.define(order, &parts)?;
        let before = record.clone();
        record.starts += 1;
        record.reboots = record.reboots.max(order.reboots);
        record.generation = Some(order.generation);
        record.ended = None;
        // Whatever it came from or was on its way to, this is a new guest.
        record =
            Record { receiving: false, sending: false, at_rest: false, process: None, ..record };
        self.records.write(id, &record)?;
        // Created paused: the last look at the fence comes before the guest's first instruction.
        if let Err(error) = domain.create_with_flags(sys::VIR_DOMAIN_START_PAUSED) {
            // A start that failed is not one that ended.
            if domain.is_active().is_ok_and(|active| !active) {
                self.records.write(id, &before)?;
            }
            return Err(self.failed(&error));
        }
        if let Err(fenced) = self.records.claim(id, order.fence) {
            let _ = domain.destroy();
            return Err(fenced);
        }
        if let Err(refused) = self.admit(id, order.lease) {
            // It has not executed: this was no start, and what follows is no end.
            domain.destroy().map_err(|error| self.failed(&error))?;
            self.records.write(id, &before)?;
            return Err(refused);
        }
        domain.resume().map(drop).map_err(|error| self.failed(&error))
    }

    pub(crate) fn ensure_nat(&self) -> Result<(), DriverError> {
        let connect = self.connect()?;
        let network = match connect.lookup_network_by_name(nat::NETWORK) {
            Ok(network) => network,
            Err(_) => connect
                .define_network_xml(&nat::definition()?)
                .map_err(|error| self.failed(&error))?,
        };
        if !network.is_active().map_err(|error| self.failed(&error))? {
            network.create().map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    pub(crate) fn shutdown(&self, id: VmId, fence: Fence) -> Result<(), DriverError> {
        let mut record = self.records.claim(id, fence)?;
        match self.look(id, &mut record)? {
            Body::Running => {
                let domain = self.existing(id)?;
                let pressed = domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN);
                pressed.map_err(|error| self.failed(&error))
            }
            Body::Paused | Body::Incoming | Body::Arrived => {
                Err(DriverError::new(ErrorKind::Conflict, "the guest is paused"))
            }
            Body::Absent => self.existing(id).map(drop),
            Body::Ready | Body::Stopped(_) => Ok(()),
        }
    }

    pub(crate) fn kill(&self, id: VmId, fence: Fence) -> Result<(), DriverError> {
        let mut record = self.records.claim(id, fence)?;
        let seen = self.look(id, &mut record)?;
        if matches!(seen, Body::Running | Body::Paused | Body::Incoming | Body::Arrived) {
            let domain = self.existing(id)?;
            record.ended = Some(Ended::Killed);
            self.records.write(id, &record)?;
            domain.destroy().map_err(|error| self.failed(&error))?;
            if record.receiving {
                record.receiving = false;
                self.records.write(id, &record)?;
            }
        } else {
            self.existing(id)?;
        }
        Ok(())
    }

    pub(crate) fn reboot(&self, id: VmId, fence: Fence) -> Result<(), DriverError> {
        let mut record = self.records.claim(id, fence)?;
        if self.look(id, &mut record)? != Body::Running {
            return Err(DriverError::new(ErrorKind::Conflict, "the guest does not run"));
        }
        let domain = self.existing(id)?;
        // A reset and not a request: a guest that does not listen is the commonest reason to reboot.
        domain.reset().map_err(|error| self.failed(&error))?;
        record.reboots += 1;
        self.records.write(id, &record)
    }

    pub(crate) fn pause(&self, id: VmId, fence: Fence) -> Result<(), DriverError> {
        let mut record = self.records.claim(id, fence)?;
        let domain = self.existing(id)?;
        match self.look(id, &mut record)? {
            Body::Paused => Ok(()),
            Body::Running => domain.suspend().map(drop).map_err(|error| self.failed(&error)),
            Body::Absent | Body::Ready | Body::Stopped(_) | Body::Incoming | Body::Arrived => {
                Err(DriverError::new(ErrorKind::Conflict, "the guest does not run"))
            }
        }
    }

    pub(crate) fn resume(&self, id: VmId, fence: Fence, lease: Fence) -> Result<(), DriverError> {
        let mut record = self.records.claim(id, fence)?;
        let domain = self.existing(id)?;
        match self.look(id, &mut record)? {
            Body::Running => Ok(()),
            Body::Paused | Body::Arrived => {
                self.admit(id, lease)?;
                if record.receiving {
                    record.receiving = false;
                    self.records.write(id, &record)?;
                }
                domain.resume().map(drop).map_err(|error| self.failed(&error))
            }
            Body::Absent | Body::Ready | Body::Stopped(_) | Body::Incoming => {
                Err(DriverError::new(ErrorKind::Conflict, "the guest does not run"))
            }
        }
    }

    /// Ends the guest and removes disks and body; done when libvirt has twice said that it knows
    /// nothing of it. The files go first, so that a body that is gone has left none.
    pub(crate) fn release(&self, id: VmId, fence: Fence) -> Result<(), DriverError> {
        let mut record = self.records.claim(id, fence)?;
        if let Some(domain) = self.find(id)? {
            if domain.is_active().map_err(|error| self.failed(&error))? {
                domain.destroy().map_err(|error| self.failed(&error))?;
            }
            self.remove_files(id)?;
            let flags = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE;
            match domain.undefine_flags(flags) {
                Err(error) if !is_missing(&error) => {
                    return Err(self.failed(&error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        for _ in 0..2 {
            if self.find(id)?.is_some() {
                let message = "the domain is still there after it was removed";
                return Err(DriverError::new(ErrorKind::Transient, message));
            }
        }
        self.remove_files(id)?;
        record = Record { fence: record.fence, released: true, ..Record::default() };
        self.records.write(id, &record)
    }

    fn remove_files(&self, id: VmId) -> Result<(), DriverError> {
        match std::fs::remove_dir_all(self.directory(id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io("the body's directory")(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn console(
        &self,
        id: VmId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, u64), DriverError> {
        use std::os::unix::fs::FileExt;
        let path = xml::console_log(&self.directory(id));
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((Vec::new(), 0));
            }
            Err(error) => return Err(io("the console's log")(error)),
        };
        let length = file.metadata().map_err(io("the console's log"))?.len();
        let count = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; count.min(bytes_max)];
        let read = file.read_at(&mut bytes, offset).map_err(io("the console's log"))?;
        bytes.truncate(read);
        Ok((bytes, offset.min(length) + read as u64))
    }

    pub(crate) fn console_socket(&self, id: VmId) -> Result<PathBuf, DriverError> {
        let record = self.records.read(id)?.unwrap_or_default();
        match self.glance(id, &record)? {
            Body::Running | Body::Paused => Ok(xml::console_socket(&self.directory(id))),
            Body::Absent | Body::Ready | Body::Stopped(_) | Body::Incoming | Body::Arrived => {
                Err(DriverError::new(ErrorKind::Conflict, "the guest does not run"))
            }
        }
    }

    /// A failed call; a broken connection is made anew with the next one.
    pub(crate) fn failed(&self, error: &virt::error::Error) -> DriverError {
        self.forget_broken_connection();
        libvirt(error)
    }
}
