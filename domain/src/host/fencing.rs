//! Whether the guests of a host that is not heard of are known to have ended, and how.
//!
//! Silence proves nothing: a host that is cut off runs on. What proves that its guests ended is
//! [`Evidence`], and each kind covers what it covers: a guard ends the guests that may be started
//! elsewhere, and no others; a machine without power runs none.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Host, Status};
use crate::{
    Draft, Fence,
    id::{BootId, HostId, VmId},
    instance::{self, Instance},
    principal::Principal,
    rejected::{Reason, Rejected},
    setting::Key,
    vm,
};

/// What ends a host's guests when the host cannot renew its lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fencing {
    /// Nothing: they run on.
    #[default]
    None,
    /// The guard, a process of its own on the host. It was seen to work, and has a deadline that lies
    /// before the end of the lease.
    Guard,
    /// The guard and a watchdog, which resets the machine before the end of the lease when the guard stands
    /// still.
    Watchdog,
}

impl Fencing {
    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Fencing::None => "none",
            Fencing::Guard => "guard",
            Fencing::Watchdog => "watchdog",
        }
    }

    /// The setting that says whether a lapsed lease proves anything where this ends the guests; none where
    /// nothing does.
    const fn counts_by(self) -> Option<Key> {
        match self {
            Fencing::None => None,
            Fencing::Guard => Some(Key::FailoverByGuard),
            Fencing::Watchdog => Some(Key::FailoverByWatchdog),
        }
    }
}

/// How it is known that guests of a lost host have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The lease lapsed, and the host's guard ends its guests before that, or its watchdog resets it.
    Guard,
    /// A fencing agent cut the host's power and read it back as off.
    Agent,
    /// A person has seen that the host is off.
    Person,
}

impl Evidence {
    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Evidence::Guard => "guard",
            Evidence::Agent => "agent",
            Evidence::Person => "person",
        }
    }

    /// Whether it proves the end of this body's guest. A guard spares guests that are to stay.
    #[must_use]
    pub const fn covers(self, body: &Instance) -> bool {
        match self {
            Evidence::Guard => body.guarded,
            Evidence::Agent | Evidence::Person => true,
        }
    }
}

/// The host, if the node that drives it under this lease speaks of it.
pub(super) fn driven(draft: &Draft, id: HostId, fence: Fence) -> Result<Host, Rejected> {
    let host = held(draft, id, fence)?;
    if matches!(*draft.principal(), Principal::Node(node) if node == host.node) {
        return Ok(host);
    }
    Err(Rejected::new(Reason::Fenced, "another node drives the host"))
}

/// A fencing agent has read the power of a host back as off. `fence` is that of the lease which the
/// host held when the agent was sent: whoever has taken the host up since is not meant.
pub(super) fn powered_off(
    draft: &mut Draft,
    id: HostId,
    boot: BootId,
    fence: Fence,
) -> Result<(), Rejected> {
    let host = held(draft, id, fence)?;
    if host.boot != boot {
        return Err(Rejected::new(Reason::Fenced, "the host was booted since"));
    }
    super::lose(draft, id);
    end(draft, id, Evidence::Agent);
    vm::clear_pools(draft);
    Ok(())
}

/// The host, if its last lease is the one meant.
fn held(draft: &Draft, id: HostId, fence: Fence) -> Result<Host, Rejected> {
    let host = draft.state().hosts.get(&id).ok_or_else(|| Rejected::not_found("host", id))?;
    if host.fence != fence {
        return Err(Rejected::new(Reason::Fenced, "the host was taken up since"));
    }
    Ok(Host::clone(host))
}

/// A person says that a lost host is off.
pub(super) fn confirm_dead(draft: &mut Draft, id: HostId, boot: BootId) -> Result<(), Rejected> {
    let state = draft.state();
    let host = state.hosts.get(&id).ok_or_else(|| Rejected::not_found("host", id))?;
    if host.status != Status::Lost || host.boot != boot {
        let message = format!("host {} is heard of, or was booted since; look again", host.name);
        return Err(Rejected::new(Reason::HostUnfit, message));
    }
    end(draft, id, Evidence::Person);
    draft.reply_object("host", id);
    Ok(())
}

/// What the lapse of a host's lease proves.
pub(super) fn lapsed(draft: &mut Draft, id: HostId) {
    let state = draft.state();
    let Some(host) = state.hosts.get(&id) else { return };
    if host.fencing.counts_by().is_some_and(|key| state.setting(key) == 1) {
        end(draft, id, Evidence::Guard);
    }
}

/// It is known that the guests which `evidence` covers have ended. Bodies of VMs that are on their way
/// out are gone with a machine that is off; the others stay where they are: their disks may be good.
fn end(draft: &mut Draft, id: HostId, evidence: Evidence) {
    let Some(host) = draft.state().hosts.get(&id) else { return };
    let ended = host.ended.max(Some(evidence));
    let host = Host { ended, ..Host::clone(host) };
    draft.put(host);
    let vms: Vec<_> = draft.state().instances_on(id).map(|body| body.vm).collect();
    instance::host_ended(draft, id, evidence);
    if evidence == Evidence::Guard {
        return;
    }
    vms.into_iter().for_each(|vm| forget_bodies(draft, vm));
}

/// Forgets the bodies of a VM that is on its way out which are on machines without power: nobody is left
/// to release them.
pub(crate) fn forget_bodies(draft: &mut Draft, id: VmId) {
    let state = draft.state();
    if !state.vms.get(&id).is_some_and(|vm| vm.deleting) {
        return;
    }
    let is_off = |body: &&Arc<Instance>| {
        let host = state.hosts.get(&body.host);
        host.is_some_and(|host| host.ended > Some(Evidence::Guard))
    };
    let bodies = [state.instance_of(id), state.spare_of(id)];
    let gone: Vec<_> = bodies.into_iter().flatten().filter(is_off).map(|body| body.id).collect();
    gone.into_iter().for_each(|body| draft.delete::<Instance>(body));
    vm::forget_if_gone(draft, id);
}
