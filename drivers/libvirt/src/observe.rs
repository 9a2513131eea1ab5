//! What libvirt says of a body, in our words.

use domain::instance::{Body, Ended};
use virt::{domain::Domain, error::Error, sys};

use crate::record::Record;

/// What there is, and whether its process may have to be ended: a guest that panicked while libvirtd
/// was away is left standing, and so is one that was started to send the disks of a body at rest.
pub(crate) struct Seen {
    pub(crate) body: Body,
    pub(crate) left_standing: bool,
}

pub(crate) fn body(domain: &Domain, record: &Record) -> Result<Seen, Error> {
    let (state, reason) = raw_state(domain)?;
    let sends_disks = record.at_rest && state == sys::VIR_DOMAIN_PAUSED;
    let left_standing = state == sys::VIR_DOMAIN_CRASHED || sends_disks;
    let body = match state {
        _ if sends_disks => ended(sys::VIR_DOMAIN_SHUTOFF_UNKNOWN, record),
        // It came, and was not let go on yet. While it is still coming libvirt gives another reason.
        sys::VIR_DOMAIN_PAUSED if record.receiving => match reason {
            sys::VIR_DOMAIN_PAUSED_USER => Body::Arrived,
            _ => Body::Incoming,
        },
        sys::VIR_DOMAIN_PAUSED => Body::Paused,
        sys::VIR_DOMAIN_CRASHED => Body::Stopped(Ended::Crashed),
        sys::VIR_DOMAIN_SHUTOFF => ended(reason, record),
        // Running, blocked, shutting down: the guest executes.
        _ => Body::Running,
    };
    Ok(Seen { body, left_standing })
}

fn ended(reason: u32, record: &Record) -> Body {
    if reason == sys::VIR_DOMAIN_SHUTOFF_MIGRATED && record.sending {
        return Body::Stopped(Ended::Migrated);
    }
    if record.starts == 0 {
        return Body::Ready;
    }
    if let Some(ended) = record.ended {
        return Body::Stopped(ended);
    }
    match reason {
        sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN => Body::Stopped(Ended::Shutdown),
        sys::VIR_DOMAIN_SHUTOFF_DESTROYED => Body::Stopped(Ended::Killed),
        sys::VIR_DOMAIN_SHUTOFF_CRASHED | sys::VIR_DOMAIN_SHUTOFF_FAILED => {
            Body::Stopped(Ended::Crashed)
        }
        // libvirtd forgets reasons when it restarts. An end that was seen in time is told already;
        // of one that was not, nobody knows that it was in order.
        _ => Body::Stopped(Ended::Crashed),
    }
}

/// The state and its reason as numbers; the enums of the virt crate have no order to match on.
#[allow(unsafe_code, reason = "one call of libvirt with two out parameters")]
fn raw_state(domain: &Domain) -> Result<(u32, u32), Error> {
    let (mut state, mut reason) = (0, 0);
    // SAFETY: the domain lives as long as the reference, and both pointers are to locals.
    let result = unsafe { sys::virDomainGetState(domain.as_ptr(), &mut state, &mut reason, 0) };
    if result < 0 {
        return Err(Error::last_error());
    }
    Ok((u32::try_from(state).unwrap_or(0), u32::try_from(reason).unwrap_or(0)))
}
