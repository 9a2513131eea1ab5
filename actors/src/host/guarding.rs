//! Tells a host's guard how the host's lease stands, and the cluster whether there is a guard.

use std::time::Duration;

use domain::{
    Fence, State,
    envelope::Command,
    host::{Fencing, Host, HostCommand, Status},
    rejected::Reason,
};
use guard::{Level, Warrant};
use raft_store::{ProposeError, Store};

use super::LocalHost;

/// The host's row, if this node holds its lease.
pub(crate) fn held<'a>(store: &Store, state: &'a State, local: &LocalHost) -> Option<&'a Host> {
    let host = state.hosts.get(&local.id)?;
    let ours = host.node == store.node() && host.boot == local.boot;
    (ours && host.status == Status::Ready).then_some(host)
}

/// The lease with this fence was granted or renewed, as was asked for at `asked`, and `state` is from
/// after that. The cluster hears that there is a guard after the guard has its deadline, and that there is
/// none as soon as that is seen.
pub(crate) async fn renewed(
    store: &Store,
    state: &State,
    local: &LocalHost,
    lease: Fence,
    asked: Duration,
) {
    // Still held under the same fence: so it was held when the renewal was decided, and was renewed.
    let still = held(store, state, local).filter(|host| host.fence == lease);
    let (Some(host), Some(row)) = (still, state.leases.get(&local.id)) else { return };
    let mut ttl = Duration::from_millis(row.ttl_ms);
    if guard::is_broken("target-before-source") {
        ttl *= 4;
    }
    let warrant = Warrant { lease: lease.as_u64(), asked, ttl };
    let fencing = match hold(local, warrant, host.fencing).await {
        Ok(Level::Guard) => Fencing::Guard,
        Ok(Level::Watchdog) => Fencing::Watchdog,
        Err(error) => {
            // Told once; it is tried with every beat.
            if host.fencing != Fencing::None {
                tracing::warn!(host = %local.name, %error, "nothing would end the host's guests");
            }
            Fencing::None
        }
    };
    local.note_held((fencing != Fencing::None).then(|| guard::deadline(asked, ttl)));
    if fencing != host.fencing {
        let command = HostCommand::Fencing { host: host.id, fence: lease, fencing };
        if let Err(error) = store.propose_as_node(Command::Host(command)).await {
            tracing::warn!(host = %local.name, %error, "what ends the host's guests was not told");
        }
    }
}

/// Has the guard hold, if there is one. Before it is counted on for the first time the driver must say
/// that it asks the same: one that was started before the guard was configured asks nobody.
async fn hold(local: &LocalHost, warrant: Warrant, before: Fencing) -> Result<Level, String> {
    let guard = local.guard.as_ref().ok_or("no guard is configured")?;
    let level = guard.hold(warrant).await.map_err(|error| error.to_string())?;
    if before == Fencing::None {
        let inventory = local.driver.inventory().await.map_err(|error| error.to_string())?;
        if inventory.guard != local.guard_socket {
            return Err(
                "the driver was started without this guard; end it, and it is started anew"
                    .to_owned(),
            );
        }
    }
    Ok(level)
}

/// Whether a host was not given because it was said to be off: its guests may run elsewhere by now.
pub(super) fn says_dead(error: &ProposeError) -> bool {
    matches!(error, ProposeError::Rejected(why) if why.reason == Reason::HostSaidDead)
}

/// Ends the guests of a host; whether they have ended.
pub(super) async fn end_all(local: &LocalHost) -> bool {
    let ended = match &local.guard {
        Some(guard) => guard.end().await.map_err(|error| error.to_string()),
        None => Err("it has no guard".to_owned()),
    };
    if let Err(error) = ended {
        tracing::error!(host = %local.name, error, "guests may run twice: reboot the host");
        return false;
    }
    true
}
