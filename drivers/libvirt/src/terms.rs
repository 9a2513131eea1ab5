//! How libvirt is asked to send a guest.

use domain::operation::CopyPolicy;
use drivers::{Departure, DriverError};
use virt::{
    domain::{Domain, MigrateParameters},
    sys,
};

use crate::{
    host::Inner,
    landing::Places,
    live::{host_of, written_disks},
};

impl Inner {
    /// Flags and parameters.
    pub(crate) fn terms(
        &self,
        departure: &Departure,
        domain: &Domain,
    ) -> Result<(u32, MigrateParameters), DriverError> {
        let CopyPolicy { bandwidth_mib_s, auto_converge, connections, .. } = departure.policy;
        let address = &departure.landing.address;
        let mut flags = sys::VIR_MIGRATE_LIVE
            | sys::VIR_MIGRATE_PEER2PEER
            | sys::VIR_MIGRATE_PAUSED
            | sys::VIR_MIGRATE_PERSIST_DEST
            | sys::VIR_MIGRATE_UNDEFINE_SOURCE
            | sys::VIR_MIGRATE_ABORT_ON_ERROR;
        if guard::is_broken("no-pause") {
            flags &= !sys::VIR_MIGRATE_PAUSED;
        }
        if auto_converge {
            flags |= sys::VIR_MIGRATE_AUTO_CONVERGE;
        }
        if connections > 1 {
            flags |= sys::VIR_MIGRATE_PARALLEL;
        }
        if address.starts_with("qemu+tls:") {
            flags |= sys::VIR_MIGRATE_TLS;
        }
        let disks = if departure.pooled { Vec::new() } else { written_disks(domain)? };
        // The base of each disk is on the target already: only what the guest wrote is copied.
        if !disks.is_empty() {
            flags |= sys::VIR_MIGRATE_NON_SHARED_INC;
        }
        // libvirt knows some file systems that hosts share; that the target sees the same pool is known, and
        // its disks are cached by nobody.
        if departure.pooled {
            flags |= sys::VIR_MIGRATE_UNSAFE;
        }
        let host = host_of(address).map(|host| format!("tcp://{host}"));
        let live = domain.xml_desc(sys::VIR_DOMAIN_XML_MIGRATABLE | sys::VIR_DOMAIN_XML_SECURE);
        let live = live.map_err(|error| crate::error::libvirt(&error))?;
        let definition = Places::read(&departure.landing.definition)?.apply(&live)?;
        let parameters = MigrateParameters {
            parallel_connections: (connections > 1).then_some(connections.into()),
            bandwidth: (bandwidth_mib_s > 0).then_some(u64::from(bandwidth_mib_s)),
            dest_xml: Some(definition.clone()),
            persist_xml: Some(definition),
            disks_uri: host.clone().filter(|_| !disks.is_empty()),
            migrate_disks: disks,
            uri: host,
            ..MigrateParameters::default()
        };
        Ok((flags, parameters))
    }
}
